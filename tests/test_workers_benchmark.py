"""The benchmark of workers, run small."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from experiments.benchmarks import serving_load, workers


@pytest.mark.skipif(shutil.which("h2load") is None, reason="needs h2load (package nghttp2-client)")
def test_workers_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert workers.main(["--quick", "--out", str(tmp_path)]) == 0
    assert "# Workers" in capsys.readouterr().out
    found = json.loads((tmp_path / "results.json").read_text())
    rows = {(row["name"], row["metric"]): row["value"] for row in found["rows"]}
    for what in ("Score, 64 items", "Recommend k=10"):
        ratio = rows["2 workers", what] / rows["1 worker", what]
        assert found["ratios"][f"{what}: 2 workers/1 worker"] == pytest.approx(ratio)
        assert rows["1 worker", f"{what}, CPU"] > 10, "microseconds"
    memory = "memory of all processes"
    assert rows["2 workers", memory] > rows["1 worker", memory] > 50


def test_without_h2load_it_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serving_load, "is_there", lambda: False)
    assert workers.main(["--quick", "--out", str(tmp_path)]) == 1
    assert "needs h2load" in capsys.readouterr().err
