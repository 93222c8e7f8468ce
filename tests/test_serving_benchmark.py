"""The serving benchmark, run small, and what its load is made of."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from serving import Running

from experiments.benchmarks import serving, serving_load
from experiments.benchmarks.opponents.process import OpponentFailed
from experiments.benchmarks.opponents.servers import Target, cpu_seconds, free_ports
from experiments.benchmarks.serving_targets import SERVICE, score_request
from server.pb import recommender_pb2 as pb

pytest_plugins = ("serving_fixtures",)

needs_h2load = pytest.mark.skipif(
    shutil.which("h2load") is None, reason="needs h2load (package nghttp2-client)"
)


class Here(Target):
    """The server of the tests, which lives in this process."""

    def cpu(self) -> float:
        return 0.0


@pytest.fixture
def target(server: Running) -> Target:
    port = int(server.target.rpartition(":")[2])
    return Here("ours", [], port, f"{SERVICE}Score", score_request)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is counted in hundredths")
def test_cpu_time_is_finer_than_hundredths_of_a_second() -> None:
    code = "sum(range(10**6)); print(flush=True); input()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        process = psutil.Process(child.pid)
        found, coarse = cpu_seconds(process), process.cpu_times()
        child.communicate(b"\n")
    assert abs(found - coarse.user - coarse.system) < 0.05
    assert round(found, 2) != found


def test_serving_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A real server, the same without its model, the plain one; nothing is downloaded."""
    assert serving.main(["--quick", "--out", str(tmp_path)]) == 0
    assert "# Serving" in capsys.readouterr().out
    found = json.loads((tmp_path / "results.json").read_text())
    rows = {(row["name"], row["metric"]): row["value"] for row in found["rows"]}
    assert found["ratios"].keys() == {"ours/naive", "ours/empty", "recommend/floor"}
    score = "Score, 64 items"
    assert rows["naive", score] / rows["ours", score] == pytest.approx(found["ratios"]["ours/naive"])
    assert rows["empty", score] > 10, "microseconds"
    assert rows["ours", "ScoreStream, pipelined"] > 64
    ranking = "Recommend k=10 over 200 items, p50"
    floor = (rows["floor", ranking] + rows["empty", ranking]) / rows["ours", ranking]
    assert floor == pytest.approx(found["ratios"]["recommend/floor"])
    assert rows["ours", "Recommend k=10 over 3,000 items, p50"] > 0


@pytest.mark.parametrize("flags", [["--only", "triton"], ["--big-items", "5"]])
def test_wrong_flags_stop_before_anything_is_made(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        serving.main(["--out", str(tmp_path), *flags])
    assert flags[0] in capsys.readouterr().err


@pytest.mark.parametrize("tool", [pytest.param("h2load", marks=needs_h2load), "python"])
def test_the_load_counts_answers_and_sees_refusals(
    tool: str, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_load, "is_there", lambda: tool == "h2load")
    items = [str(item) for item in range(1, 9)]
    good, bad = score_request("1", items), score_request("1", ["nothing"])
    load = serving_load.unary(target, good, 40, 8, tmp_path)
    assert load.requests == 40
    assert load.rate == pytest.approx(40 / load.seconds)
    with pytest.raises(OpponentFailed, match="ours: "):
        serving_load.unary(target, bad, 40, 8, tmp_path)
    message = pb.ScoreStreamRequest(request=pb.ScoreRequest(user_id="1", item_ids=items)).SerializeToString()
    assert serving_load.stream(target, f"{SERVICE}ScoreStream", [message] * 30, tmp_path).requests == 30


def test_an_answer_must_be_the_models_own(target: Target) -> None:
    items = ["1", "2", "3"]
    answer = serving_load.ask(target, score_request("4", items))
    expected = np.array(pb.ScoreResponse.FromString(answer).probabilities, np.float32)
    assert serving_load.holds(target, answer, expected)
    assert not serving_load.holds(target, answer, expected + np.float32(1e-3))
    target.rest = True
    assert serving_load.holds(target, json.dumps({"predictions": expected.tolist()}).encode(), expected)


def test_a_server_that_ends_or_refuses_is_not_waited_for(target: Target, tmp_path: Path) -> None:
    with pytest.raises(OpponentFailed, match="ours: INVALID_ARGUMENT"):
        serving_load.ask(target, score_request("1", []))
    (port,) = free_ports(1)
    code = "import sys; sys.exit('no such bundle')"
    ends = Target(
        "ends", [sys.executable, "-c", code], port, target.path, score_request, log=tmp_path / "log"
    )
    ends.start()
    try:
        with pytest.raises(OpponentFailed, match="ends: the process ended, no such bundle"):
            ends.await_answer(lambda: serving_load.ask(ends, b""))
    finally:
        ends.stop()
    with socket.socket() as free:
        free.bind(("127.0.0.1", port))
