"""Is a data set still like the one that a model was made from?

    found = drift.compare(reference, current)
    found.verdict, found.sentence()        "significant", "drift: ratings PSI 4.84 (limit 0.25)"

Distributions are compared by the population stability index (see psi). Ids come and go in any data set that grows,
so for them the shares that are new or gone are held to limits of their own. docs/data.md has the measures one by
one, and what they come to in data that only grow and in data that are broken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from experiments import measures
from experiments.jobs import JobConfig
from experiments.measures import NONE, SIGNIFICANT, SOME, Measure
from experiments.profile import Profile
from experiments.profiling import Examined

LEVEL: Mapping[str, float] = {NONE: 0.0, SOME: 1.0, SIGNIFICANT: 2.0}


@dataclass(frozen=True)
class Drift:
    """reference, current: their names, for people"""

    reference: str
    current: str
    measures: list[Measure]

    @property
    def verdict(self) -> str:
        return max((measure.verdict for measure in self.measures), key=LEVEL.__getitem__)

    def found(self, verdict: str) -> list[Measure]:
        return [measure for measure in self.measures if measure.verdict == verdict]

    def sentence(self) -> str:
        """no drift; some drift: …; drift: …"""
        if self.verdict == NONE:
            return "no drift"
        opening = "drift" if self.verdict == SIGNIFICANT else "some drift"
        return f"{opening}: {'; '.join(map(str, self.found(self.verdict)))}"

    def rows(self) -> list[list[str]]:
        """A header, then one line a measure."""
        header = ["measure", "value", "by chance", "some above", "significant above", "drift", "which is"]
        return [header, *(measure.cells() for measure in self.measures)]

    def frame(self) -> pd.DataFrame:
        return pd.DataFrame([measure.to_dict() for measure in self.measures])

    def metrics(self) -> dict[str, float | None]:
        values: dict[str, float | None] = {f"drift/{found.name}": found.value for found in self.measures}
        return values | {"drift/level": LEVEL[self.verdict]}

    def to_dict(self) -> dict[str, Any]:
        return {
            "reference": self.reference,
            "current": self.current,
            "verdict": self.verdict,
            "measures": [measure.to_dict() for measure in self.measures],
        }


def compare(
    reference: Examined, current: Examined, limits: JobConfig | None = None, *, same_name: bool = False
) -> Drift:
    """Hold a data set against an earlier one.

    limits     its fields max_psi, max_new_users, max_new_items and max_lost
    same_name  another name of the data set is drift, too; not so where a person has named both
    """
    limits = limits or JobConfig()
    before, now = reference.profile, current.profile
    found = [measures.name(before, now)] if same_name else []
    found += [
        measures.kinds(before, now),
        measures.rows(before, now, limits.max_lost),
        *measures.times(before, now, limits.max_lost),
        *measures.ids("users", reference.users, current.users, limits.max_new_users, limits.max_lost),
        *measures.ids("items", reference.items, current.items, limits.max_new_items, limits.max_lost),
        *measures.distributions(reference, current, limits.max_psi),
        measures.likes(before, now),
        measures.titles(before, now, limits.max_lost),
    ]
    return Drift(_called(before), _called(now), found)


def _called(profile: Profile) -> str:
    return f"{profile.dataset} ({profile.interactions:,} interactions, {profile.source})"
