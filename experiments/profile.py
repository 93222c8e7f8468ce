"""What is in a data set, in figures that are kept with a run and compared with those of another (see drift).

found = profiling.examine(dataset, config).profile
Profile.from_dict(found.to_dict()) == found
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from widedeep.errors import DataError

VERSION = 1
RATINGS_SHOWN = 20  # different ratings whose shares are printed


@dataclass(frozen=True)
class Activity:
    """How many interactions each user has, or each item.

    quantiles  per cent -> interactions: 50 is the median, 0 and 100 the fewest and the most
    edges      where each bin begins, four to the doubling; the last has no end
    counts     users or items in each bin
    relative   users or items by interactions over their mean: bin k is around 2 ** ((k - 12) / 2), both ends open
    once       users or items with a single interaction
    """

    mean: float
    quantiles: dict[str, float]
    edges: list[int]
    counts: list[int]
    relative: list[float]
    once: int

    def at_least(self) -> list[float]:
        """The share of users or items with `edges` interactions or more."""
        tail = np.cumsum(self.counts[::-1])[::-1]
        return [float(value) for value in tail / tail[0]]


@dataclass(frozen=True)
class Profile:
    """Plain figures of a data set.

    duplicates      rows whose user and item are those of an earlier row, too
    first, last     seconds since 1970; None without times
    months          "2018-09" -> interactions, without the months that have none
    ratings         rising values, each with its interactions in `rating_counts`; None without ratings. Of more than
                    1,000 different ones quantiles stand for all
    liked           interactions rated like_threshold or more
    lorenz          share of the interactions that the most popular 0, 1, … 100% of the items have
    gini            inequality of the items' popularity: 0 all alike, 1 all interactions with one
    genres          interactions by genre, the most frequent first; an item with two genres counts for both
    without_title   items with interactions and without a title
    untitled_rows   interactions with such items
    known_items     items that have a row in the table of items, with interactions or without
    effective       what -> how many independent interactions would vary by chance as much as these do, which come in
                    bundles from few users
    """

    dataset: str
    source: str
    digest: str
    interactions: int
    users: int
    items: int
    duplicates: int
    first: int | None
    last: int | None
    months: dict[str, int]
    ratings: list[float] | None
    rating_counts: list[int]
    like_threshold: float
    liked: int
    users_without_likes: int
    per_user: Activity
    per_item: Activity
    lorenz: list[float]
    gini: float
    genres: dict[str, int]
    described_items: int
    known_items: int
    without_title: int
    untitled_rows: int
    user_attributes: list[str]
    effective: dict[str, float]

    @property
    def density(self) -> float:
        return self.interactions / (self.users * self.items)

    @property
    def top_share(self) -> float:
        """Of the interactions, what the most popular 1% of the items have."""
        return self.lorenz[1]

    def liked_share(self, threshold: float) -> float:
        """Of the interactions, what is rated `threshold` or more; everything without ratings."""
        if self.ratings is None:
            return 1.0
        counts = np.array(self.rating_counts)
        return float(counts[np.array(self.ratings) >= np.float32(threshold)].sum() / counts.sum())

    def to_dict(self) -> dict[str, Any]:
        return {"version": VERSION, "density": self.density, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Profile:
        """Raises  DataError: not what to_dict made"""
        try:
            if values["version"] != VERSION:
                raise DataError(
                    f"The profile is of version {values['version']}, this widedeep reads version {VERSION}."
                )
            found = {field.name: values[field.name] for field in dataclasses.fields(cls)}
            activities = {name: Activity(**found[name]) for name in ("per_user", "per_item")}
            return cls(**(found | activities))
        except (KeyError, TypeError) as error:
            raise DataError(f"This is no profile of a data set: {error!r}.") from error

    def rows(self) -> list[tuple[str, str]]:
        """(what, value) for people."""
        per_item = self.per_item
        return [
            ("source", self.source),
            ("digest", self.digest[:16]),
            ("interactions", f"{self.interactions:,}"),
            ("users", f"{self.users:,}"),
            ("items", f"{self.items:,}"),
            ("density", f"{self.density:.3%}"),
            ("pairs seen more than once", f"{self.duplicates:,}"),
            ("interactions per user", _range(self.per_user)),
            ("interactions per item", _range(per_item)),
            ("items with one interaction", f"{per_item.once / self.items:.1%}"),
            ("share of the top 1% of items", f"{self.top_share:.1%} (Gini {self.gini:.2f})"),
            (
                "liked",
                f"{self.liked:,} ({self.liked / self.interactions:.1%}), "
                + (
                    "everything: no ratings" if self.ratings is None else f"rating >= {self.like_threshold:g}"
                ),
            ),
            ("users without a like", f"{self.users_without_likes:,}"),
            *_rating_rows(self.ratings, self.rating_counts),
            ("times", f"{day(self.first)} to {day(self.last)} (UTC)" if self.first is not None else "none"),
            (
                "items with a title row",
                f"{self.described_items:,} of {self.items:,}; "
                f"{self.known_items - self.described_items:,} more are known",
            ),
            ("items without a title", f"{self.without_title:,}"),
            ("user attributes", ", ".join(self.user_attributes) or "none"),
        ]


def day(seconds: int | None) -> str:
    """2018-09-24, in UTC; a dash for None."""
    return "–" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def _range(activity: Activity) -> str:
    low, middle, high = (activity.quantiles[key] for key in ("0", "50", "100"))
    return f"{low:,.0f} to {high:,.0f}, half have {middle:,.0f} or more"


def _rating_rows(values: Sequence[float] | None, counts: Sequence[int]) -> list[tuple[str, str]]:
    if values is None:
        return [("ratings", "none")]
    weights = np.array(counts)
    mean = float(np.dot(values, weights) / weights.sum())
    found = [("ratings", f"{values[0]:g} to {values[-1]:g}, mean {mean:.3f}")]
    if len(values) <= RATINGS_SHOWN:
        shares = weights / weights.sum()
        found.append(
            ("", "  ".join(f"{value:g}: {share:.1%}" for value, share in zip(values, shares, strict=True)))
        )
    return found
