"""The reload benchmark: what it makes of what was sent, and, where the server follows its alias, a small run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.benchmarks import form, reload, reload_load, reload_versions
from experiments.benchmarks.reload import Move
from experiments.benchmarks.reload_load import Sent
from server.pb import recommender_pb2 as pb
from widedeep.recommender import Recommender


def test_what_is_lost_mixed_or_slow_is_seen() -> None:
    moves = [Move("2", True, 10.0, 11.0), Move("3", False, 20.0, 20.5)]
    sent = [Sent("Score", 10.2, 0.3, "1", ""), Sent("Score", 12.0, 0.1, "2", "")]
    sent += [
        Sent("Recommend", 20.1, 0.5, "2", ""),
        Sent("Recommend", 21.2, 0.1, "2", "not the answer of the version that it names"),
        Sent("Score", 21.3, float("nan"), "", "lost: UNAVAILABLE"),
    ]
    report = form.Report("", "")
    reload.fill(report, sent, moves)
    rows = {row.metric: row.value for row in report.rows}
    assert rows["requests"] == 5
    assert rows["requests lost"] == 1
    assert rows["answers that are not their version's own"] == 1
    assert rows["answers by version 2"] == 3
    assert rows["from the move to the first answer, longest"] == 1.0
    assert rows["p99 during swaps / p99 without"] == pytest.approx(4.0), "the median of 3 and 5"
    assert any("UNAVAILABLE" in note for note in report.notes)


def test_versions_differ_and_damaged_ones_do_not_load(tmp_path: Path) -> None:
    versions = reload_versions.make(tmp_path, reload.QUICK, good=2, questions=3)
    one, other = versions.answers.values()
    assert not np.allclose(one[0].probabilities, other[0].probabilities, atol=1e-3)
    assert not np.allclose(one[0].scores, other[0].scores, atol=1e-3)
    for number in range(2):
        source = versions.client.get_model_version(reload_versions.NAME, versions.add_bad(number)).source
        with pytest.raises(Exception, match=r"model\.pth"):
            Recommender.load(source.removeprefix("file://") + "/model.pth")


def test_an_answer_of_another_version_than_it_names_is_a_fault(tmp_path: Path) -> None:
    versions = reload_versions.make(tmp_path, reload.QUICK, good=2, questions=1)
    load = reload_load.Load(1, versions.questions, versions.answers, rate=1.0)
    one, other = (versions.answers[version][0] for version in versions.good)
    for answer, named in ((one, "1"), (other, "1"), (one, "9")):
        response = pb.ScoreResponse(
            probabilities=answer.probabilities.tolist(), model=pb.ModelVersion(version=named)
        )
        load._answered("Score", 0, 0.0, 1.0, response)
    assert [bool(sent.fault) for sent in load.sent] == [False, True, True]
    ranking = pb.RecommendResponse(
        item_ids=one.ranked, scores=one.scores.tolist(), model=pb.ModelVersion(version="1")
    )
    load._answered("Recommend", 0, 0.0, 1.0, ranking)
    ranking.item_ids[:] = [*one.ranked[1:], one.ranked[0]]
    load._answered("Recommend", 0, 0.0, 1.0, ranking)
    assert [bool(sent.fault) for sent in load.sent[3:]] == [False, True]


def test_reload_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reload.main(["--quick", "--moves", "3", "--out", str(tmp_path)]) == 0, capsys.readouterr().err
    found = json.loads((tmp_path / "results.json").read_text())
    rows = {row["metric"]: row["value"] for row in found["rows"]}
    assert rows["requests"] > 100
    assert rows["requests lost"] == 0
    assert rows["answers that are not their version's own"] == 0
    assert {"answers by version 1", "answers by version 2", "answers by version 3"} <= rows.keys()
