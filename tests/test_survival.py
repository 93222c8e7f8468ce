"""What a server survives: each run small, and what is left in it after a storm of cancelled calls."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from serving import eventually, recommend, running

from experiments.benchmarks import form, survival, survival_cancel, survival_fuzz, survival_soak
from experiments.benchmarks.reload_load import Sent
from experiments.benchmarks.survival_messages import BUILDERS, Hostile
from server.pb import recommender_pb2 as pb

pytest_plugins = ["serving_fixtures"]


def rows_of(folder: Path) -> dict[str, float]:
    found = json.loads((folder / "results.json").read_text())
    return {f"{row['name']}, {row['metric']}": row["value"] for row in found["rows"]}


def test_nothing_is_held_after_a_storm_of_cancelled_calls(bundle: Path) -> None:
    with running(bundle) as server, server.stub() as stub:
        before = recommend(stub, user_id="1")
        ended = asyncio.run(survival_cancel.storm(int(server.target.rpartition(":")[2]), 300, 40))
        assert ended.total() == 340
        assert ended["CANCELLED"] > 100
        inside = server.server
        assert eventually(lambda: not inside.calls.active and not inside.calls.streams)
        lanes = (inside.lanes.rankings, inside.lanes.scores)
        assert eventually(lambda: all(lane.queued == 0 for lane in lanes))
        listed = stub.ListModels(pb.ListModelsRequest(), timeout=20)
        assert [model.lease_count for model in listed.models] == [0]
        assert recommend(stub, user_id="1").item_ids == before.item_ids


def test_hostile_messages_are_the_same_for_a_seed_and_most_of_them_are_messages() -> None:
    one, again, other = (Hostile(seed) for seed in (7, 7, 8))
    sent = {name: [one.message(name, 50) for _ in range(200)] for name in BUILDERS}
    assert sent == {name: [again.message(name, 50) for _ in range(200)] for name in BUILDERS}
    assert sent != {name: [other.message(name, 50) for _ in range(200)] for name in BUILDERS}
    for name in ("Recommend", "ScoreStream"):
        assert len(set(sent[name])) > 80


def test_a_server_that_fails_is_seen() -> None:
    found = survival_fuzz.Found()
    found.add("Score", "OK", b"\x01")
    found.add("Score", "INTERNAL", b"\x02\xff")
    assert found.faults == ["Score INTERNAL: 02ff"]
    flat = [(number * 1000, 300.0) for number in range(30)]
    rising = [(number * 1000, 300.0 + number) for number in range(30)]
    assert survival_fuzz.growth(flat) == pytest.approx(0.0)
    assert survival_fuzz.growth(rising) == pytest.approx(100.0), "MiB for 100,000 requests"


def test_a_soak_counts_what_is_lost_and_what_memory_grows() -> None:
    sent = [Sent("Score", 1.0, 0.1, "1", ""), Sent("Score", 2.0, float("nan"), "", "lost: UNAVAILABLE")]
    report = form.Report("", "")
    survival_soak.fill(report, sent, [(float(second), 100 + second / 36) for second in range(3600)])
    rows = {row.metric: row.value for row in report.rows}
    assert (rows["requests"], rows["requests lost"]) == (2, 1)
    assert rows["memory, slope after 33%"] == pytest.approx(100.0, rel=1e-3), "MiB an hour"
    assert np.isclose(rows["p50"], 100.0)


def test_hostile_requests_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert survival_fuzz.main(["--quick", "--out", str(tmp_path)]) == 0, capsys.readouterr().err
    rows = rows_of(tmp_path)
    report = (tmp_path / "report.md").read_text()
    assert rows["ours, requests"] == pytest.approx(survival_fuzz.QUICK, abs=survival_fuzz.CALLERS)
    assert rows["ours, faults"] == 0, report
    assert rows["ours, tracebacks and internal errors in the log"] == 0, report
    assert rows["ours, leases left"] == 0
    assert rows["ours, ended with OK"] > 300


@pytest.mark.parametrize("name", ["disk", "tracking"])
def test_it_survives(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert survival.main(["--quick", "--only", name, "--out", str(tmp_path)]) == 0, capsys.readouterr().err
    rows, report = rows_of(tmp_path), (tmp_path / "report.md").read_text()
    for what in ("lost", "half-written", "tracebacks", "not SERVING"):
        assert not any(value for metric, value in rows.items() if what in metric), report
    assert rows[f"{name}, requests"] > 50
