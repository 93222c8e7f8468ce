"""What the search varies, and between what. --search-space FILE puts another file's `suggest` in its place.

The search maximises the ranking, so it varies what the ranking's deep side is made of and how it is trained. What
every fit chooses by itself on the validation part is not searched: the ridge, the dropout and the user exponent
of the crosses, weight, ridge and dimension of the low-rank part, shares, recency, epochs, calibration.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from optuna.trial import BaseTrial

from widedeep.config import Config

Range = tuple[float, float, bool]  # low, high, logarithmic

MODEL_RANGES: dict[str, Range] = {"ranking_dropout": (0.2, 0.8, False)}
MODEL_CHOICES: dict[str, tuple[int, ...]] = {
    "ranking_dim": (32, 64, 128, 256),
    "ranking_hidden": (256, 512, 1024),
}
TRAIN_RANGES: dict[str, Range] = {
    "ranking_learning_rate": (5e-4, 1e-2, True),
    "ranking_decay": (1e-5, 2e-3, True),
}


def suggest(trial: BaseTrial, base: Config) -> Config:
    """`base` with what the trial suggests in the place of the searched fields."""

    def drawn(ranges: dict[str, Range]) -> dict[str, Any]:
        return {
            name: trial.suggest_float(name, low, high, log=log) for name, (low, high, log) in ranges.items()
        }

    model = drawn(MODEL_RANGES)
    train = drawn(TRAIN_RANGES)
    for name, choices in MODEL_CHOICES.items():
        model[name] = trial.suggest_categorical(name, choices)
    return dataclasses.replace(
        base,
        model=dataclasses.replace(base.model, **model),
        train=dataclasses.replace(base.train, **train),
    )


def values(config: Config) -> dict[str, Any]:
    """The searched fields of a configuration."""
    found = {name: getattr(config.model, name) for name in (*MODEL_RANGES, *MODEL_CHOICES)}
    return found | {name: getattr(config.train, name) for name in TRAIN_RANGES}
