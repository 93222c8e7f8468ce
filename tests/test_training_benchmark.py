"""The training benchmark and the profile of the steps, run small, and what they are made of."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.benchmarks import steps, training
from experiments.benchmarks.opponents import child, data, environments
from experiments.benchmarks.opponents.process import OpponentFailed, Process
from widedeep.metrics import auc


def results(folder: Path) -> tuple[dict[tuple[str, str], float], dict[str, float]]:
    found = json.loads((folder / "results.json").read_text())
    return {(row["name"], row["metric"]): row["value"] for row in found["rows"]}, found["ratios"]


def test_training_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both train the whole epoch and learn something; nothing is downloaded."""
    assert training.main(["--quick", "--out", str(tmp_path)]) == 0
    assert "# Training and inference on the CPU" in capsys.readouterr().out
    rows, ratios = results(tmp_path)
    assert ratios.keys() == {"ours/seed", "inference/best"}
    assert {name for name, _ in rows} == {"ours", "seed"}
    assert rows["ours", "validation AUC after the epoch"] > 0.55
    assert rows["ours", "training"] / rows["seed", "training"] == pytest.approx(ratios["ours/seed"])
    for name in ("ours", "seed"):
        assert rows[name, "peak memory"] > 50
        assert rows[name, "model file"] > 0.1  # 601 rows of 32 numbers and the layers


def test_an_opponent_that_cannot_run_is_left_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(environments.PACKAGES, "keras", (("--no-index", "no-such-package==1"),))
    flags = ["--rows", "10000", "--only", "keras", "--envs", str(tmp_path / "envs"), "--out", str(tmp_path)]
    monkeypatch.setattr(training, "USERS", 300)
    monkeypatch.setattr(training, "ITEMS", 100)
    assert training.main(flags) == 0
    assert "Left out: keras: no environment" in capsys.readouterr().out
    _, ratios = results(tmp_path)
    assert ratios == {}


@pytest.mark.parametrize("flags", [["--rows", "5"], ["--threads", "0"], ["--only", "jax"]])
def test_wrong_flags_stop_before_anything_is_made(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        training.main(["--out", str(tmp_path), *flags])
    assert flags[0] in capsys.readouterr().err


def test_the_area_under_the_curve_is_ours() -> None:
    generator = np.random.default_rng(0)
    liked, score = (generator.random(500) < 0.3), generator.integers(0, 20, 500).astype(np.float32)
    expected = float(auc(torch.from_numpy(score), torch.from_numpy(liked)))
    assert child.area(liked.astype(np.float32), score) == pytest.approx(expected)


def test_the_opponents_are_given_the_rows_that_ours_trains_on(tmp_path: Path) -> None:
    count = data.write(50, 40, 1000, tmp_path)
    train, valid = child.read(tmp_path, "train"), child.read(tmp_path, "valid")
    interactions, items, users = data.load(tmp_path)
    assert len(interactions) == count == len(train["user"])
    assert len(valid["user"]) == 1000 - count
    shape = child.sizes(tmp_path)
    assert train["features"].shape == (count, shape["columns"])
    assert int(train["item"].max()) < shape["items"]
    assert interactions.rating is not None
    assert train["liked"].sum() == (interactions.rating >= 4).sum()
    assert (len(items), len(users)) == (40, 50)


def test_a_process_that_ends_says_why(tmp_path: Path) -> None:
    with pytest.raises(
        OpponentFailed, match=r"seed: the process ended, .*sizes|seed: the process ended, .*npy"
    ):
        Process("seed", Path(sys.executable), "seed", tmp_path, 1, tmp_path / "seed.log")


def test_steps_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert steps.main(["--quick", "--out", str(tmp_path)]) == 0
    assert "by Adam alone" in capsys.readouterr().out
    rows, _ = results(tmp_path)
    assert rows["like head", "training"] > 0
    shares = [value for (_, metric), value in rows.items() if metric == "share of the time"]
    assert len(shares) == steps.SHOWN
    assert 50 < sum(shares) <= 100
