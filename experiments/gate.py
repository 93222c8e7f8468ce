"""The gate: may a new recipe take the place of the champion?

Two recipes are compared on one split, user by user, by a paired bootstrap of NDCG@10:

    better      the interval of the difference is above zero
    not-worse   the interval of the relative difference is above -1%
    strict      better, and every baseline is beaten, too
    auto        better where the champion was evaluated on the same data, not-worse on other data

Where there is no champion, beating popularity is enough (with strict, every baseline).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from widedeep.bootstrap import PairedDifference, paired_difference

METRIC = "ndcg_at_10"
MARGIN = 0.01  # not-worse: a loss of less than 1% of the champion's mean is no loss
POPULARITY = "popularity"


@dataclass(frozen=True)
class Duel:
    """One comparison.  passed: by the rule that it was held to;  needed: that rule, in words

    margin  what of the reference's mean may be lost by that rule
    """

    against: str
    difference: PairedDifference
    needed: str
    passed: bool
    margin: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return {
            "against": self.against,
            "needed": self.needed,
            "passed": self.passed,
            **self.difference.to_dict(),
        }

    def __str__(self) -> str:
        found = self.difference
        change = "" if math.isnan(found.relative.value) else f" ({found.relative.value:+.1%})"
        return (
            f"NDCG@10 {found.mean:.4f} against {found.reference_mean:.4f} of {self.against}: "
            f"difference {found.absolute.value:+.4f}{change}, "
            f"95% interval {found.absolute.low:+.4f} to {found.absolute.high:+.4f}, needed {self.needed}"
        )


@dataclass(frozen=True)
class Verdict:
    """What the gate says.  rule: the one that was applied, never auto"""

    passed: bool
    rule: str
    reason: str
    duels: list[Duel] = field(default_factory=list)

    @property
    def word(self) -> str:
        return "passed" if self.passed else "refused"

    def metrics(self) -> dict[str, float | None]:
        """Of the comparison that the gate is about, the first."""
        found: dict[str, float | None] = {"gate/passed": float(self.passed)}
        if self.duels:
            difference = self.duels[0].difference
            for kind, value in (("difference", difference.absolute), ("relative", difference.relative)):
                found[f"gate/{kind}"] = value.value
                found[f"gate/{kind}_low"] = value.low
                found[f"gate/{kind}_high"] = value.high
            found["gate/probability_better"] = difference.probability_better
        return found

    def to_dict(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "rule": self.rule,
            "reason": self.reason,
            "metric": METRIC,
            "comparisons": [duel.to_dict() for duel in self.duels],
        }


def resolve(rule: str, *, same_data: bool) -> str:
    """The rule that `auto` stands for."""
    if rule != "auto":
        return rule
    return "better" if same_data else "not-worse"


def judge(
    candidate: pd.Series,
    champion: tuple[str, pd.Series] | None,
    baselines: Mapping[str, pd.Series],
    *,
    rule: str,
    samples: int = 10_000,
    seed: int = 0,
) -> Verdict:
    """Compare user by user.

    candidate   NDCG@10 by user
    champion    its name and its NDCG@10 by user; None where there is none
    baselines   the same by the baseline's name; popularity among them
    rule        better, not-worse or strict (see `resolve`)
    Raises      DataError: not the same users
    """

    def duel(against: str, reference: pd.Series, how: str) -> Duel:
        found = paired_difference(candidate, reference, samples=samples, seed=seed)
        if how == "not-worse":
            low = found.relative.low if found.reference_mean else found.absolute.low
            return Duel(against, found, f"above -{MARGIN:.0%} of it", low > -MARGIN, MARGIN)
        return Duel(against, found, "above 0", found.absolute.low > 0)

    duels = []
    if champion is not None:
        duels.append(duel(*champion, rule))
    needed = list(baselines) if rule == "strict" else [] if champion is not None else [POPULARITY]
    duels += [duel(name, baselines[name], "better") for name in sorted(needed, key=_popularity_first)]
    lost = [found for found in duels if not found.passed]
    return Verdict(not lost, rule, _reason(lost, duels, champion is None), duels)


def _popularity_first(name: str) -> tuple[bool, str]:
    return name != POPULARITY, name


def _reason(lost: list[Duel], duels: list[Duel], first: bool) -> str:
    if lost:
        return "; ".join(map(str, lost))
    opening = "There was no champion yet. " if first else ""
    return opening + "; ".join(map(str, duels))
