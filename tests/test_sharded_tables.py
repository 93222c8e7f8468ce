"""examples/sharded_tables.py: tables that lie in parts in two processes train as whole ones do."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from experiment_runs import ROOT, subprocess_environment

from widedeep import DataConfig, Recommender
from widedeep.datasets import load

SCRIPT = str(ROOT / "examples" / "sharded_tables.py")
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", SCRIPT]
SETTINGS = (
    "--dataset synthetic --users 251 --items 120 --interactions 6001 --epochs 2 --ranking-epochs 2 "
    "--ranking-hidden 32 --wide-l2 100 --factor-share 0 --recency 0 --device cpu"
)


def start(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        env=subprocess_environment(OMP_WAIT_POLICY="passive"),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_without_torchrec_it_says_what_to_install() -> None:
    run = f"runpy.run_path({SCRIPT!r}, run_name='__main__')"
    found = f"sys.path.insert(0, {str(Path(SCRIPT).parent)!r})"
    done = start("-c", f"import runpy, sys; sys.modules['torchrec'] = None; {found}; {run}")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: TorchRec does not load (")
    assert "pip install --no-deps torchrec==" in done.stderr


def test_tables_in_parts_train_as_whole_ones_and_serve_as_usual(tmp_path: Path) -> None:
    pytest.importorskip("torchrec", reason="needs TorchRec; what to install is in examples/sharded_tables.py")
    out = tmp_path / "model.pth"
    done = start(*TORCHRUN, *SETTINGS.split(), "--check", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "the losses are equal within " in done.stderr
    losses = re.findall(r"tables in parts, epoch \d: train loss ([\d.]+)", done.stderr)
    assert len(losses) == 2
    assert float(losses[1]) < float(losses[0])
    sizes = re.findall(r"in each process: ([\d,]+) and ([\d,]+)", done.stderr)[0]
    first, second = (int(size.replace(",", "")) for size in sizes)
    model = Recommender.load(out, device="cpu")
    table = 4 * sum(weight.numel() + len(weight) for weight in model.net.like.embeddings())
    assert first + second == table + 3 * 4 * sum(
        map(len, model.net.like.embeddings()[2:])
    )  # biases have 4 columns
    assert 0 <= first - second <= 0.05 * table
    before, after = re.findall(r"log loss ([\d.]+); of .*, loaded back, ([\d.]+)", done.stderr)[0]
    assert float(before) == pytest.approx(float(after), abs=2e-5)
    data = load(DataConfig(dataset="synthetic", users=251, items=120, interactions=6001)).interactions
    user, items = data.user_id[0], np.unique(data.item_id)[:20]
    assert np.unique(model.score(user, items)).size > 1
    assert len(model.recommend(user, k=5).item_ids) == 5
