"""What there is to draw in a study."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

FEWEST = 10  # complete trials for importances: of fewer they are chance


@dataclass(frozen=True)
class Setting:
    """A setting that differs among the trials.

    choices  its values where it is one of several, in order; None where it is a number within a range
    """

    name: str
    choices: tuple[Any, ...] | None
    logarithmic: bool

    def place(self, value: Any) -> float:
        """Where a value lies on a linear axis."""
        if self.choices is not None:
            return float(self.choices.index(value))
        return math.log10(value) if self.logarithmic else float(value)


def complete(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that got to their end, with a number for every objective."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [trial for trial in trials if all(math.isfinite(value) for value in trial.values)]


def settings(trials: Sequence[FrozenTrial]) -> list[Setting]:
    """Those that differ among the trials."""
    kinds = {name: kind for trial in trials for name, kind in trial.distributions.items()}
    found = []
    for name, kind in kinds.items():
        values = {trial.params[name] for trial in trials if name in trial.params}
        if len(values) > 1:
            choices = (
                tuple(sorted(values, key=_in_order)) if isinstance(kind, CategoricalDistribution) else None
            )
            found.append(Setting(name, choices, bool(getattr(kind, "log", False))))
    return found


def _in_order(value: Any) -> tuple[bool, float, str]:
    """Numbers by size, then everything else by its text."""
    number = isinstance(value, int | float)
    return not number, float(value) if number else 0.0, str(value)


def maximised(study: optuna.Study, objective: int) -> bool:
    return study.directions[objective] == StudyDirection.MAXIMIZE


def best_of(study: optuna.Study, trials: Sequence[FrozenTrial], objective: int = 0) -> FrozenTrial:
    """The first of the best by one objective."""
    sign = 1 if maximised(study, objective) else -1
    return max(trials, key=lambda trial: sign * trial.values[objective])


def importances(study: optuna.Study) -> dict[str, float]:
    """What each setting has to do with a trial being among the best, most first; the shares sum to 1.

    Empty where nothing can be said: fewer than FEWEST complete trials, or fewer than two settings that differ.
    Source  Watanabe, Bansal & Hutter 2023, PED-ANOVA, arXiv 2304.10255
    """
    trials = complete(study)
    varied = settings(trials)
    if len(trials) < FEWEST or len(varied) < 2:
        return {}
    found = optuna.importance.get_param_importances(study, params=[setting.name for setting in varied])
    return {name: float(share) for name, share in found.items()}
