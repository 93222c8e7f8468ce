"""The benchmark of writing trials, run small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.benchmarks import form, tracking


def test_three_ways_are_measured_in_a_young_and_an_old_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, small in (("QUICK", (12, form.REPEATS)), ("EPOCHS", 1), ("PARAMS", 3)):
        monkeypatch.setattr(tracking, name, small)
    assert tracking.main(["--quick", "--out", str(tmp_path)]) == 0
    assert "# What writing a trial to MLflow costs" in capsys.readouterr().out
    found = json.loads((tmp_path / "results.json").read_text())
    rows = {(row["name"], row["metric"]): row["value"] for row in found["rows"]}
    for way in tracking.WAYS:
        assert rows[way, "trial 10"] > 0
        assert rows[way, "trial 12"] > 0
    ratio = rows["ours", "trial 10"] / rows["ours", "trial 12"]
    assert found["ratios"]["trial_12/trial_10"] == pytest.approx(ratio)
    others = rows["one call each", "trial 10"] / rows["ours", "trial 10"]
    assert found["ratios"]["ours/one call each, trial 10"] == pytest.approx(others)
