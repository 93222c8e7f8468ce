"""A training that is killed at any moment and resumed comes to the weights of one that was not."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import torch
from experiment_runs import subprocess_environment

from widedeep import Recommender

KILLS = 2

TRAIN = """
import sys
import torch
torch.set_num_threads(1)
from widedeep import Config, DataConfig, ModelConfig, Recommender, TrainConfig
from widedeep.datasets import load
from widedeep.split import split

config = Config(
    DataConfig(dataset="synthetic", users=300, items=200, interactions=12_000),
    ModelConfig(ranking_hidden=256, wide_l2=100.0, factor_dim=16),
    TrainConfig(epochs=8, patience=8, ranking_epochs=30, ranking_patience=30, checkpoint=sys.argv[2], resume=True,
                device="cpu"),
)
data = load(config.data)
parts = split(data.interactions, config.data)
print("begins", flush=True)
recommender, result = Recommender.fit(config, data, parts.train, parts.validation)
recommender.save(sys.argv[1])
print("ended", flush=True)
"""


def _start(model: Path, checkpoint: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", TRAIN, str(model), str(checkpoint)],
        env=subprocess_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begins\n"
    return process


def _finish(process: subprocess.Popen[str]) -> None:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert output == "ended\n"


def test_killed_at_random_moments_it_comes_to_the_same_weights(tmp_path: Path) -> None:
    process = _start(tmp_path / "whole.pth", tmp_path / "whole.ckpt")
    started = time.monotonic()
    _finish(process)
    span = time.monotonic() - started
    generator = random.Random(0)
    checkpoint = tmp_path / "killed.ckpt"
    stored = tmp_path / "killed.fit.ckpt"
    for _ in range(KILLS):
        process = _start(tmp_path / "killed.pth", checkpoint)
        while not stored.exists():
            assert process.poll() is None, "it ended before it wrote a checkpoint"
            time.sleep(0.01)
        time.sleep(generator.uniform(0.0, span / KILLS))
        process.kill()
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()
    _finish(_start(tmp_path / "killed.pth", checkpoint))
    whole, killed = (Recommender.load(tmp_path / f"{name}.pth", device="cpu") for name in ("whole", "killed"))
    assert whole.chosen == killed.chosen
    expected, found = whole.net.state_dict(), killed.net.state_dict()
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name
