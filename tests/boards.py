"""Data whose answer is known, and a configuration that learns it in about a second."""

from __future__ import annotations

import numpy as np
import pandas as pd

from widedeep import Config, DataConfig, ModelConfig, TrainConfig
from widedeep.datasets import Dataset
from widedeep.interactions import Interactions

USERS, ITEMS = 60, 40


def checkerboard(seed: int = 0) -> Dataset:
    """Even users like even items and dislike odd ones, odd users the other way round.

    Each user rated 24 of the 40 items, 5.0 or 1.0, in random order. Even items are comedies, odd ones dramas.
    """
    generator = np.random.default_rng(seed)
    rows = []
    for user in range(1, USERS + 1):
        for time, item in enumerate(generator.choice(np.arange(1, ITEMS + 1), 24, replace=False)):
            rows.append((user, item, 5.0 if user % 2 == item % 2 else 1.0, 1_000_000 + time))
    user_id, item_id, rating, timestamp = (np.array(column) for column in zip(*rows, strict=True))
    interactions = Interactions(
        user_id.astype(np.int64),
        item_id.astype(np.int64),
        rating.astype(np.float32),
        timestamp.astype(np.int64),
    )
    items = pd.DataFrame({"item_id": np.arange(1, ITEMS + 3, dtype=np.int64)})
    items["title"] = [f"Film {item}" for item in items["item_id"]]
    items["genres"] = np.where(items["item_id"] % 2 == 0, "Comedy", "Drama|War")
    items["year"] = (1980 + items["item_id"] % 30).astype(np.int32)
    users = pd.DataFrame({"user_id": np.arange(1, USERS + 1, dtype=np.int64)})
    users["age"] = np.arange(USERS) % 50 + 18.0
    users["city"] = np.where(users["user_id"] % 3 == 0, "Graz", "Linz")
    return Dataset(
        "checkerboard", interactions, items, users, "made up for a test", interactions.digest(), (), None
    )


def small_config(**train: object) -> Config:
    """A network that learns the checkerboard in about a second."""
    settings = {
        "epochs": 8,
        "ranking_epochs": 60,
        "batch_size": 128,
        "learning_rate": 1e-2,
        "ranking_learning_rate": 1e-2,
        "device": "cpu",
    }
    return Config(
        data=DataConfig(),
        model=ModelConfig(
            embedding_dim=8,
            hidden=(16,),
            ranking_hidden=32,
            ranking_dim=16,
            ranking_dropout=0.1,
            wide_l2=10.0,
        ),
        train=TrainConfig(**{**settings, **train}),  # type: ignore[arg-type]
    )
