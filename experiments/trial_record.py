"""What is written of a finished trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

GIVEN = "given"  # origin of the trial of the configuration as it was given


@dataclass(frozen=True)
class TrialRecord:
    """A trial as its run in MLflow shows it.

    number   from 1, which is the configuration as given
    state    COMPLETE, PRUNED or FAIL, as Optuna has it
    started  seconds since 1970
    params   the searched settings
    metrics  its figures on the validation part; None and NaN are left out
    curves   {"head", "epoch", metric: value, …} each
    tags     what else there is to say of it, by name: trial.seed, trial.pruned_at, trial.error …
    """

    number: int
    state: str
    started: float
    seconds: float
    params: Mapping[str, Any]
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    curves: Sequence[Mapping[str, Any]] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
