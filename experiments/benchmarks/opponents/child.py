"""What every opponent's process does: it is told what to do by lines of JSON, and answers by lines of JSON.

    python -m experiments.benchmarks.opponents.NAME DATA

Needs numpy and nothing else of ours: it also runs in environments where widedeep is not installed. DATA holds
train_ and valid_ {user,item,features,liked}.npy, the training rows in random order, and sizes.json.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from experiments.benchmarks import memory

MARK = "result "  # before an answer: libraries print, too
DIM, HIDDEN, DROPOUT, RATE, BATCH = 32, (256, 128, 64), 0.2, 1e-3, 2048
INFERENCE_ROWS = 10_000
REPEATS = 15

Rows = dict[str, np.ndarray]


class Opponent(Protocol):
    def train(self, start: int, stop: int) -> int:
        """Train on these rows of the epoch; how many it were."""
        ...

    def probabilities(self, rows: Rows) -> np.ndarray:
        """(rows,) of a like."""
        ...

    def inference(self, rows: Rows) -> dict[str, Callable[[], object]]:
        """The ways to get the probabilities of these rows, by name."""
        ...

    def save(self, path: Path) -> None: ...


def read(folder: Path, part: str) -> Rows:
    return {
        name: np.load(folder / f"{part}_{name}.npy", mmap_mode="r", allow_pickle=False)
        for name in ("user", "item", "features", "liked")
    }


def sizes(folder: Path) -> dict[str, int]:
    """users, items (both with the unknown one) and columns of the features"""
    found: dict[str, int] = json.loads((folder / "sizes.json").read_text())
    return found


def area(liked: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve, ties counted as halves."""
    _, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[place]
    positive = liked > 0
    count = int(positive.sum())
    return float((rank[positive].sum() - count * (count + 1) / 2) / (count * (len(liked) - count)))


def median_ms(run: Callable[[], object]) -> dict[str, float]:
    """CPU and wall milliseconds of one run, after two that do not count."""
    cpu, wall = [], []
    for number in range(REPEATS + 2):
        wall_start, cpu_start = time.perf_counter(), time.process_time()
        run()
        if number > 1:
            cpu.append(1000 * (time.process_time() - cpu_start))
            wall.append(1000 * (time.perf_counter() - wall_start))
    return {"cpu": statistics.median(cpu), "wall": statistics.median(wall)}


def serve(opponent: Opponent, folder: Path) -> None:
    """Do what the lines of the standard input say, until they end."""
    valid = read(folder, "valid")
    few = {name: np.ascontiguousarray(column[:INFERENCE_ROWS]) for name, column in valid.items()}
    _answer({"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        started = time.process_time()
        found: dict[str, Any]
        match request["do"]:
            case "train":
                rows = opponent.train(request["start"], request["stop"])
                found = {"rows": rows, "cpu": time.process_time() - started}
            case "validate":
                found = {"auc": area(np.asarray(valid["liked"]), opponent.probabilities(valid))}
            case "inference":
                found = {name: median_ms(run) for name, run in opponent.inference(few).items()}
            case "save":
                path = Path(request["path"])
                opponent.save(path)
                found = {"bytes": path.stat().st_size}
            case "peak":
                found = {"bytes": memory.peak()}
        _answer(found)


def _answer(found: dict[str, Any]) -> None:
    print(MARK + json.dumps(found), flush=True)
