"""From a ratings file to what training takes: encoded columns and the users' histories. Part of `loading`.

python -m experiments.benchmarks.ready {ours,ours-cached,pandas} FOLDER      # peak memory of one way, in bytes
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from experiments.benchmarks import memory
from widedeep import datasets
from widedeep.config import DataConfig
from widedeep.features import FeatureProcessor
from widedeep.histories import Encoded, Histories
from widedeep.split import split

RATINGS = "ml-10M100K/ratings.dat"  # where loading.write_files puts them
COLUMNS = ["user_id", "item_id", "rating", "timestamp"]

Ready = tuple[Encoded, Histories]


def ours(folder: Path) -> Ready:
    """The training part of ml-10m in `folder`, cut by user-time, and its histories."""
    config = DataConfig(dataset="ml-10m", data_dir=str(folder))
    data = datasets.load(config)
    parts = split(data.interactions, config)
    processor = FeatureProcessor.fit(parts.train, data.items, data.users, config.like_threshold)
    encoded = processor.encode(parts.train)
    return encoded, Histories.from_encoded(encoded, processor.user_count)


def parsing(folder: Path) -> Ready:
    """`ours` without the cache of parsed columns."""
    os.environ["WIDEDEEP_NO_CACHE"] = "1"
    return ours(folder)


def cached(folder: Path) -> Ready:
    """`ours` with the cache, which the first call fills."""
    os.environ.pop("WIDEDEEP_NO_CACHE", None)
    os.environ["WIDEDEEP_DATA_DIR"] = str(folder / "cache")
    return ours(folder)


def pandas(folder: Path) -> Ready:
    """The same, as one writes it with pandas; neither rows nor ids are checked, and no item is described."""
    config = DataConfig()
    rows = pd.read_csv(folder / RATINGS, sep=":", header=None, usecols=[0, 2, 4, 6])
    rows.columns = COLUMNS
    rows = _earlier(_earlier(rows, config.test_fraction), config.validation_fraction)
    user, users = pd.factorize(rows["user_id"], sort=True)
    item, _ = pd.factorize(rows["item_id"], sort=True)
    rating = torch.from_numpy(rows["rating"].to_numpy(dtype=np.float32))
    encoded = Encoded(
        torch.from_numpy(user + 1).int(),
        torch.from_numpy(item + 1).int(),
        rating,
        rating >= config.like_threshold,
        torch.tensor(rows["timestamp"].to_numpy()),
    )
    ordered = pd.DataFrame({"user": user, "time": rows["timestamp"].to_numpy(), "item": item})
    order = torch.tensor(ordered.sort_values(["user", "time", "item"]).index.to_numpy())
    counts = np.bincount(user + 1, minlength=len(users) + 1)
    columns = (encoded.item_index, encoded.rating, encoded.liked)
    return encoded, Histories(
        torch.from_numpy(np.r_[0, counts.cumsum()]), *(column[order] for column in columns)
    )


def _earlier(rows: pd.DataFrame, fraction: float) -> pd.DataFrame:
    """The rows, in their order, without the last ceil(fraction * n) of each user's n, one stays at least."""
    by_time = rows.sort_values(["user_id", "timestamp", "item_id"])
    groups = by_time.groupby("user_id")["item_id"]
    size = groups.transform("size")
    held = np.ceil(size * fraction - 1e-9).clip(upper=size - 1)
    return by_time[groups.cumcount() < size - held].sort_index()


WAYS: dict[str, Callable[[Path], Ready]] = {"ours": parsing, "ours-cached": cached, "pandas": pandas}


def peak_memory(way: str, folder: Path) -> tuple[int, int]:
    """Bytes of one way's process before it begins and at its peak; files mapped into memory count."""
    command = [sys.executable, "-m", "experiments.benchmarks.ready", way, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    before, peak = done.stdout.split()
    return int(before), int(peak)


if __name__ == "__main__":
    start = memory.peak()
    WAYS[sys.argv[1]](Path(sys.argv[2]))
    print(start, memory.peak())
