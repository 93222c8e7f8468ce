"""What several test modules need: data whose answer is known, and a model trained on it."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: waiting threads must not take the cores

os.environ.setdefault("WIDEDEEP_FIGURES", "off")  # drawn where they are looked at: dozens of jobs run here

import pytest
import torch
from boards import checkerboard, small_config

from widedeep import DataConfig, Recommender
from widedeep.datasets import Dataset
from widedeep.split import Split, split

# Files that take longest. They come first, so that no core waits for one of them at the end.
LONGEST = (
    "pipeline", "end_to_end", "distributed", "survival", "kill", "reload_benchmark", "cli", "tune_workers", "team",
    "follow", "benchmarks", "doctor", "training", "ui", "readme", "workers", "training_benchmark", "outbox", "pyfunc",
    "server_process", "withheld", "serving_benchmark", "workers_benchmark", "trained_benchmarks", "study_figures",
    "tune", "since", "reproduce", "overload", "monitoring", "webhook", "admin", "alias_turn",
)  # fmt: skip


def pytest_xdist_auto_num_workers() -> int:
    """Half as many again as there are cores: tests wait for servers, streams and deadlines a good part of the time."""
    return (os.cpu_count() or 1) * 3 // 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {f"test_{name}.py": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


torch.set_num_threads(1)  # the models here are small, and the machine is shared


@pytest.fixture(scope="session")
def board() -> Dataset:
    return checkerboard()


@pytest.fixture(scope="session")
def board_split(board: Dataset) -> Split:
    return split(board.interactions, DataConfig())


@pytest.fixture(scope="session")
def trained(board: Dataset, board_split: Split) -> Recommender:
    """Trained on the checkerboard's training part."""
    recommender, _ = Recommender.fit(small_config(), board, board_split.train, board_split.validation)
    return recommender


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with ml-latest-small."""
    folder = os.environ.get("WIDEDEEP_TEST_DATA")
    if not folder or not (Path(folder) / "ml-latest-small").is_dir():
        pytest.skip("needs WIDEDEEP_TEST_DATA: a folder that holds ml-latest-small")
    return Path(folder)
