"""What the search varies, and between what: the one place to change it.

What a fit chooses by itself on the validation part (ridge, shares, recency, epochs) is not searched.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from optuna.trial import BaseTrial

from widedeep.config import Config

Range = tuple[float, float, bool]  # low, high, logarithmic

MODEL_RANGES: dict[str, Range] = {
    "wide_dropout": (0.0, 0.5, False),
    "wide_user_exponent": (0.0, 0.6, False),
    "dropout": (0.0, 0.5, False),
}
TRAIN_RANGES: dict[str, Range] = {
    "learning_rate": (3e-4, 5e-3, True),
    "weight_decay": (1e-7, 1e-3, True),
    "embedding_decay": (1e-5, 1e-2, True),
}
RANKING_DIMS = (32, 64, 128, 256)


def suggest(trial: BaseTrial, base: Config) -> Config:
    """`base` with what the trial suggests in the place of the searched fields."""

    def drawn(ranges: dict[str, Range]) -> dict[str, Any]:
        return {
            name: trial.suggest_float(name, low, high, log=log) for name, (low, high, log) in ranges.items()
        }

    model = drawn(MODEL_RANGES)
    train = drawn(TRAIN_RANGES)
    model["ranking_dim"] = trial.suggest_categorical("ranking_dim", RANKING_DIMS)
    return dataclasses.replace(
        base,
        model=dataclasses.replace(base.model, **model),
        train=dataclasses.replace(base.train, **train),
    )


def nearest(base: Config) -> dict[str, Any]:
    """The point of the space that is nearest to `base`."""
    point: dict[str, Any] = {}
    for ranges, part in ((MODEL_RANGES, base.model), (TRAIN_RANGES, base.train)):
        for name, (low, high, _) in ranges.items():
            point[name] = min(max(getattr(part, name), low), high)
    point["ranking_dim"] = min(RANKING_DIMS, key=lambda dim: abs(dim - base.model.ranking_dim))
    return point


def values(config: Config) -> dict[str, Any]:
    """The searched fields of a configuration."""
    found = {name: getattr(config.model, name) for name in (*MODEL_RANGES, "ranking_dim")}
    return found | {name: getattr(config.train, name) for name in TRAIN_RANGES}
