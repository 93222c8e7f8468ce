"""A search space of one's own: how large the ranking's deep side is, and how much of the score is the wide side's.

python -m experiments tune --search-space examples/search_space.py
"""

from __future__ import annotations

import dataclasses

from optuna.trial import BaseTrial

from widedeep.config import Config


def suggest(trial: BaseTrial, base: Config) -> Config:
    """`base` with what the trial suggests in the place of some of its fields."""
    width = trial.suggest_int("ranking_hidden", 16, 512, log=True)
    model = dataclasses.replace(
        base.model,
        ranking_hidden=width,
        ranking_dim=max(8, width // 4),
        deep_share=trial.suggest_float("deep_share", 0.2, 0.8),
    )
    return dataclasses.replace(base, model=model)
