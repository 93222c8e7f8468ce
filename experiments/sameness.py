"""Whether a training came out as before: figure by figure, user by user, weight by weight."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from experiments.report import LABELS, NOTHING, cell
from widedeep.bootstrap import Interval
from widedeep.report import METRICS, Report

METRIC = "ndcg_at_10"


@dataclass(frozen=True)
class Figure:
    """One figure.  then: with its interval, which figures of the validation part have not"""

    name: str
    then: Interval
    now: float

    @property
    def equal(self) -> bool:
        """Bit for bit; a figure that does not apply equals itself."""
        return self.then.value == self.now or (math.isnan(self.then.value) and math.isnan(self.now))

    @property
    def difference(self) -> float:
        return 0.0 if self.equal else self.now - self.then.value

    @property
    def within(self) -> bool:
        """In the interval of then, which need not hold the figure itself: that of a calibration error is biased."""
        low, high = min(self.then.low, self.then.value), max(self.then.high, self.then.value)
        return self.equal or low <= self.now <= high

    @property
    def word(self) -> str:
        return "equal" if self.equal else "within the interval" if self.within else "outside"

    def to_dict(self) -> dict[str, Any]:
        """JSON has no NaN: None stands for it."""
        now = None if math.isnan(self.now) else self.now
        return {"figure": self.name, **self.then.to_dict(), "now": now, "found": self.word}


@dataclass(frozen=True)
class Sameness:
    """What two trainings of a recipe have in common.

    figures     of the test part
    validation  of the validation part; empty where nothing was selected again
    users       how many there are, and for how many NDCG@10 is equal; -1 where they are not the same users
    farthest    the largest difference of a user's NDCG@10
    others      what is equal or not beside: the choices of validation, the weights
    """

    figures: list[Figure]
    validation: list[Figure]
    users: int
    users_equal: int
    farthest: float
    others: dict[str, bool] = field(default_factory=dict)

    @property
    def unequal(self) -> list[str]:
        """What is not equal, in words."""
        found = {
            "test figures": all(figure.equal for figure in self.figures),
            "validation figures": all(figure.equal for figure in self.validation),
            "users' NDCG@10": self.users == self.users_equal,
            **self.others,
        }
        return [what for what, same in found.items() if not same]

    @property
    def equal(self) -> bool:
        return not self.unequal

    @property
    def outside(self) -> list[Figure]:
        return [figure for figure in self.figures if not figure.within]

    @property
    def largest(self) -> Figure:
        """The figure of the test part that is farthest from what it was."""
        return max(
            self.figures,
            key=lambda figure: math.inf if math.isnan(figure.difference) else abs(figure.difference),
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "figures": [figure.to_dict() for figure in self.figures],
            "validation": [figure.to_dict() for figure in self.validation],
            "users": self.users,
            "users_equal": self.users_equal,
            "largest_user_difference": None if math.isnan(self.farthest) else self.farthest,
            **self.others,
        }

    def rows(self) -> list[list[str]]:
        """A header, then one line a figure."""
        shown = [
            [label, cell(figure.then), _number(figure.now), _change(figure.difference), figure.word]
            for figures, prefix in ((self.figures, ""), (self.validation, "validation "))
            for figure in figures
            for label in (f"{prefix}{LABELS.get(figure.name, figure.name)}",)
        ]
        return [["figure", "then", "now", "difference", ""], *shown]

    def lines(self) -> list[str]:
        """What the table does not show."""
        if self.users_equal < 0:
            users = "The users of the test part are not the same."
        else:
            users = f"NDCG@10 is equal for {self.users_equal:,} of {self.users:,} users"
            users += "." if self.users == self.users_equal else f", and up to {self.farthest:.2g} away."
        return [
            users,
            *(
                f"{what[0].upper()}{what[1:]}: {'equal' if same else 'other'}."
                for what, same in self.others.items()
            ),
        ]


def compare(
    then: Report,
    now: Report,
    validation: tuple[Mapping[str, float], Mapping[str, float]],
    others: dict[str, bool],
) -> Sameness:
    """validation  figures of then and of now, by name"""
    figures = [
        Figure(name, then.metrics[name], now.metrics[name].value) for name in METRICS if name in then.metrics
    ]
    before, after = validation
    chosen = [
        Figure(name, Interval(before.get(name, math.nan), math.nan, math.nan), after[name]) for name in after
    ]
    return Sameness(figures, chosen, *_users(then.per_user[METRIC], now.per_user[METRIC]), others)


def _users(then: pd.Series, now: pd.Series) -> tuple[int, int, float]:
    """How many, how many are equal, and the largest difference."""
    if set(then.index) != set(now.index):
        return len(then), -1, math.nan
    apart = np.abs(then.to_numpy(float) - now.reindex(then.index).to_numpy(float))
    return len(then), int((apart == 0).sum()), float(apart.max(initial=0.0))


def _number(value: float) -> str:
    return NOTHING if math.isnan(value) else f"{value:.4f}"


def _change(difference: float) -> str:
    return "0" if difference == 0 else NOTHING if math.isnan(difference) else f"{difference:+.2g}"
