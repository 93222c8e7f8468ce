"""The rows that all opponents train on, written once: made-up interactions, and the inputs that ours makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from widedeep.config import DataConfig, ModelConfig
from widedeep.datasets import synthetic
from widedeep.features import FeatureProcessor
from widedeep.histories import Encoded, Histories
from widedeep.interactions import Interactions
from widedeep.model import WideDeepNet
from widedeep.split import split
from widedeep.statistics import ordered_statistics

BLOCK = 2**18  # rows whose features are made at once
COLUMNS = ("user_id", "item_id", "rating", "timestamp")


def write(users: int, items: int, rows: int, folder: Path) -> int:
    """Leave in `folder` what `child.read` and `load` read; how many training rows there are.

    A tenth of each user's rows, the last ones, validates. The features of a training row come from what was before
    it, those of a validation row from the training part: the columns that the like head reads.
    """
    interactions, item_frame, user_frame, _ = synthetic.generate(users, items, rows, seed=0)
    config = DataConfig(split="none")
    parts = split(interactions, config)
    for name in COLUMNS:
        np.save(folder / f"{name}.npy", getattr(parts.train, name))
    item_frame.to_parquet(folder / "items.parquet")
    user_frame.to_parquet(folder / "users.parquet")
    processor = FeatureProcessor.fit(parts.train, item_frame, user_frame, config.like_threshold)
    train, valid = processor.encode(parts.train), processor.encode(parts.validation)
    net = WideDeepNet.for_data(ModelConfig(), processor, train)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(train), generator=generator)
    statistics = ordered_statistics(train, net.genre_shares, net.baselines())
    _write_part(folder, "train", net, train.take(order), statistics[order])
    histories = Histories.from_encoded(train, processor.user_count)
    mixed = valid.take(torch.randperm(len(valid), generator=generator))
    totals = net.totals(histories)
    _write_part(
        folder, "valid", net, mixed, net.pair_statistics(totals[mixed.user_index.long()], mixed.item_index)
    )
    shape = {"users": processor.user_count, "items": processor.item_count, "columns": _columns(net)}
    (folder / "sizes.json").write_text(json.dumps(shape))
    return len(train)


def load(folder: Path) -> tuple[Interactions, pd.DataFrame, pd.DataFrame]:
    """The training part, the items and the users."""
    columns = [np.load(folder / f"{name}.npy", allow_pickle=False) for name in COLUMNS]
    items, users = (pd.read_parquet(folder / f"{name}.parquet") for name in ("items", "users"))
    return Interactions(*columns), items, users


def _columns(net: WideDeepNet) -> int:
    return net.like.linear.in_features


def _write_part(folder: Path, part: str, net: WideDeepNet, rows: Encoded, statistics: torch.Tensor) -> None:
    shape = (len(rows), _columns(net))
    features = np.lib.format.open_memmap(folder / f"{part}_features.npy", "w+", np.float32, shape)
    for start in range(0, len(rows), BLOCK):
        block = slice(start, start + BLOCK)
        features[block] = net.like_features(
            rows.user_index[block], rows.item_index[block], statistics[block]
        ).numpy()
    features.flush()
    np.save(folder / f"{part}_user.npy", rows.user_index.numpy())
    np.save(folder / f"{part}_item.npy", rows.item_index.numpy())
    np.save(folder / f"{part}_liked.npy", rows.liked.float().numpy())
