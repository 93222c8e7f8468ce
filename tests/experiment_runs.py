"""Jobs on tiny data, each test with a store of its own."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import unittest.mock
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow.tracking import MlflowClient

from experiments.cli import main

ROOT = Path(__file__).resolve().parent.parent
TINY = {
    "dataset": "synthetic",
    "users": "250",
    "items": "200",
    "interactions": "9000",
    "ranking-epochs": "6",
    "epochs": "3",
    "ranking-hidden": "32",
    "factor-share": "0",  # not searched: that takes as long as all the rest
    "bootstrap": "50",
    "gate-samples": "500",
    "device": "cpu",
}
TRAINING = {name: value for name, value in TINY.items() if name != "gate-samples"}
SETTINGS = {name: value for name, value in TRAINING.items() if name != "bootstrap"}


@dataclass(frozen=True)
class Done:
    """A finished command: its exit status, standard output and standard error."""

    status: int
    out: str
    err: str


def words(settings: Mapping[str, str]) -> list[str]:
    return [word for name, value in settings.items() for word in (f"--{name}", value)]


def run(*arguments: str) -> Done:
    """`python -m experiments …` in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(arguments)
    return Done(status, out.getvalue(), err.getvalue())


def ok(*arguments: str) -> Done:
    done = run(*arguments)
    assert done.status == 0, done.err
    return done


def ok_with_figures(*arguments: str) -> Done:
    """As `ok`, and all figures are drawn, none of which may fail."""
    with unittest.mock.patch.dict(os.environ, {"WIDEDEEP_FIGURES": "strict"}):
        return ok(*arguments)


@contextlib.contextmanager
def in_store(folder: Path) -> Iterator[MlflowClient]:
    """Work in `folder` with an MLflow store there."""
    before, here = dict(os.environ), Path.cwd()
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        os.environ.pop(name, None)
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder / 'mlflow.db'}"
    os.chdir(folder)
    try:
        yield MlflowClient()
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ.update(before)


def empty_store(template: Path, folder: Path) -> Path:
    """A copy of a store that has its tables and nothing in them: making them takes seconds."""
    shutil.copy(template, folder / "mlflow.db")
    return folder


def make_template(folder: Path) -> Path:
    with in_store(folder) as client:
        client.search_experiments(max_results=1)
    return folder / "mlflow.db"


def subprocess_environment(**extra: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    ours = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "WIDEDEEP_CACHE_MODELS": "false"}
    return inherited | ours | extra


def in_subprocess(
    command: Sequence[str], folder: Path, timeout: float = 120, **extra: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=subprocess_environment(**extra),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def table(text: str) -> dict[str, list[str]]:
    """The printed table: first column -> the others."""
    rows: dict[str, list[str]] = {}
    for line in text.splitlines():
        cells = re.split(r"\s{2,}", line.strip())
        if len(cells) > 1:
            rows[cells[0]] = cells[1:]
    return rows
