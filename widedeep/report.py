"""What an evaluation found: figures with intervals, slices, curves and the values of each user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from widedeep.bootstrap import Interval

RANKING_METRICS = (
    "ndcg_at_10",
    "recall_at_10",
    "recall_at_20",
    "hit_rate_at_10",
    "mrr",
    "coverage_at_10",
    "novelty_at_10",
    "diversity_at_10",
)
LIKE_METRICS = ("auc", "log_loss", "calibration_error")
METRICS = RANKING_METRICS + LIKE_METRICS


@dataclass(frozen=True)
class Slice:
    """One metric over a part of the users or of the items.

    kind    what the parts are of: "history" (users by the length of theirs) or "popularity" (items by their
            training interactions)
    part    the part's name, which says where it ends
    size    users in it, or relevant test interactions with its items
    metric  name of the metric
    """

    kind: str
    part: str
    size: int
    metric: str
    value: Interval

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "part": self.part,
            "size": self.size,
            "metric": self.metric,
            **self.value.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Slice:
        return cls(
            values["kind"], values["part"], values["size"], values["metric"], Interval.from_dict(values)
        )


@dataclass(frozen=True)
class Report:
    """What `evaluate` found.

    model     the ranker's name
    metrics   every name of METRICS; NaN where one does not apply (no ratings: no AUC; no genres: no diversity)
    users     users with a relevant test item: those that the ranking metrics average over
    rows      test rows, which the like metrics average over
    slices    the same metrics over parts of the users and of the items
    curves    {"reliability": {"low", "high", "count", "mean_probability", "positive_rate"}, "thresholds": {"liked",
              "not_liked"}}, a list each, the latter of rows by probability (see widedeep.thresholds); None in an
              empty bin; {} where the like metrics do not apply
    per_user  one row a user with a relevant test item, indexed by "user": ndcg_at_10, recall_at_10,
              recall_at_20, hit_rate_at_10, mrr, novelty_at_10 (bits), diversity_at_10 (NaN where genres are
              not known), relevant (test items), history (train items)
    """

    model: str
    metrics: dict[str, Interval]
    users: int
    rows: int
    slices: list[Slice] = field(default_factory=list)
    curves: dict[str, dict[str, list[float | None]]] = field(default_factory=dict)
    per_user: pd.DataFrame = field(default_factory=pd.DataFrame, compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain Python that JSON can hold: all but `per_user`, which belongs into a Parquet file."""
        return {
            "model": self.model,
            "users": self.users,
            "rows": self.rows,
            "metrics": {name: value.to_dict() for name, value in self.metrics.items()},
            "slices": [part.to_dict() for part in self.slices],
            "curves": self.curves,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any], per_user: pd.DataFrame | None = None) -> Report:
        return cls(
            model=values["model"],
            metrics={name: Interval.from_dict(value) for name, value in values["metrics"].items()},
            users=values["users"],
            rows=values["rows"],
            slices=[Slice.from_dict(value) for value in values["slices"]],
            curves=values["curves"],
            per_user=pd.DataFrame() if per_user is None else per_user,
        )

    def table(self) -> pd.DataFrame:
        """One row a metric: metric, value, low, high."""
        return pd.DataFrame(
            [
                {"metric": name, "value": found.value, "low": found.low, "high": found.high}
                for name, found in self.metrics.items()
            ]
        )


def comparison(reports: Sequence[Report]) -> pd.DataFrame:
    """One row a model, one column a metric: the figures without their intervals."""
    return pd.DataFrame(
        [
            {"model": report.model, **{name: found.value for name, found in report.metrics.items()}}
            for report in reports
        ]
    )
