"""What two data sets are compared by, each with the limits that it is held to.

A value of 0 is no change. What chance gives in two samples of the same data is taken off before a value is held to
its limits: otherwise small data sets would seem to drift.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from experiments import psi
from experiments.profile import Profile, day
from experiments.profiling import Examined
from experiments.tally import RANKED, Tally

NONE, SOME, SIGNIFICANT = "none", "some", "significant"
OTHER = "other_dataset"
GENRE_SHARE = 0.02  # rarer genres share a bin
LIKES = (0.05, 0.15)  # by which the share of likes may move


@dataclass(frozen=True)
class Measure:
    """One thing that was compared.

    name               for metrics: rating_psi
    what               for people
    value              as measured
    some, significant  limits: what is above them, beyond chance, is that much drift
    chance             what two samples of the same data give on average, taken off the value
    usual              what they may well give: a value up to here is no drift
    share              whether the value is a share, to be shown in per cent
    note               what is behind the value
    """

    name: str
    what: str
    value: float
    some: float
    significant: float
    chance: float = 0.0
    usual: float = 0.0
    share: bool = True
    note: str = ""

    @property
    def verdict(self) -> str:
        beyond = self.value - self.chance
        if self.value <= self.usual or beyond <= self.some:
            return NONE
        return SIGNIFICANT if beyond > self.significant else SOME

    def cells(self) -> list[str]:
        """what, value, by chance, some above, significant above, verdict, note"""
        figures = (self.value, self.chance, self.some, self.significant)
        return [self.what, *map(self._shown, figures), self.verdict, self.note or "–"]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"verdict": self.verdict}

    def _shown(self, value: float) -> str:
        if not self.share and value == int(value):  # a count
            return f"{value:.0f}"
        return f"{value:.1%}" if self.share else f"{value:.3g}" if value >= 1 else f"{value:.3f}"

    def __str__(self) -> str:
        note = f", {self.note}" if self.note else ""
        limit = self.significant if self.verdict == SIGNIFICANT else self.some
        return f"{self.what} {self._shown(self.value)} (limit {self._shown(limit)}{note})"


def name(before: Profile, now: Profile) -> Measure:
    same = before.dataset == now.dataset
    note = "" if same else f"{now.dataset}, not {before.dataset}"
    return Measure(OTHER, "another data set", float(not same), 0, 0, share=False, note=note)


def kinds(before: Profile, now: Profile) -> Measure:
    """Ratings, times and genres that are gone, and ratings that were not there."""

    def there(profile: Profile) -> tuple[bool, bool, bool]:
        return profile.ratings is not None, profile.first is not None, bool(profile.genres)

    notes = [
        f"no {what} any more"
        for what, had, has in zip(("ratings", "times", "genres"), there(before), there(now), strict=True)
        if had and not has
    ]
    if before.ratings is None and now.ratings is not None:
        notes.append("ratings, which there were none of")
    return Measure(
        "kinds", "kinds of data that changed", len(notes), 0, 0, share=False, note="; ".join(notes)
    )


def rows(before: Profile, now: Profile, lost: float) -> Measure:
    value = max(0.0, 1 - now.interactions / before.interactions)
    note = f"{before.interactions:,} to {now.interactions:,}"
    return Measure("lost_rows", "interactions lost", value, lost / 5, lost, note=note)


def times(before: Profile, now: Profile, lost: float) -> Iterator[Measure]:
    """Where the data end, and a hole between the two; both as shares of the time that the reference covers."""
    if before.first is None or before.last is None or now.first is None or now.last is None:
        return
    span = max(1, before.last - before.first)
    earlier, hole = max(0.0, (before.last - now.last) / span), max(0.0, (now.first - before.last) / span)
    note = f"the latest interaction: {day(before.last)} to {day(now.last)}"
    yield Measure("lost_time", "time lost at the end", earlier, lost / 5, lost, note=note)
    note = "" if not hole else f"nothing from {day(before.last)} to {day(now.first)}"
    yield Measure("hole_in_time", "hole in time", hole, 0, 1, note=note)


def ids(what: str, before: Tally, now: Tally, new: float, lost: float) -> Iterator[Measure]:
    """The shares of ids, and of interactions with ids, that are new or gone.

    Chance is by what occurs once on the other side: of the next draw, that share is of ids not seen there (Good 1953,
    "The population frequencies of species").
    """
    sides = (
        ("new", ~(places(now.ids, before.ids) >= 0), now, before, (new / 2, new), (new / 2, new)),
        ("vanished", ~(places(before.ids, now.ids) >= 0), before, now, (lost, 3 * lost), (lost / 5, lost)),
    )
    for word, mask, mine, other, of_ids, of_rows in sides:
        once = int((other.counts == 1).sum())
        note = f"{mask.sum():,} of {len(mask):,}"
        yield Measure(
            f"{word}_{what}",
            f"{word} {what}",
            float(mask.mean()),
            *of_ids,
            chance=min(1.0, once / len(mask)) if mask.any() else 0.0,
            note=note,
        )
        with_them, all_rows = int(mine.counts[mask].sum()), int(mine.counts.sum())
        others = int(other.counts.sum())
        error = math.hypot(
            math.sqrt(once + 2 * int((other.counts == 2).sum())) / others,
            math.sqrt(int((mine.counts[mask] ** 2).sum())) / all_rows,
        )
        yield Measure(
            f"{word}_{what}_interactions",
            f"interactions of {word} {what}",
            with_them / all_rows,
            *of_rows,
            chance=once / others if with_them else 0.0,
            usual=once / others + psi.Z99 * error,
            note=f"{with_them:,} of {all_rows:,}",
        )


def places(mine: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n,) where each id is among the others, -1 where it is not; between numbers and text as text."""
    if (mine.dtype == object) != (others.dtype == object):
        mine, others = (np.array([str(value) for value in side], dtype=object) for side in (mine, others))
    return np.asarray(pd.Index(others).get_indexer(pd.Index(mine)))


def distributions(reference: Examined, current: Examined, limit: float) -> Iterator[Measure]:
    """Population stability indices; those for which one side has nothing are left out."""
    before, now = reference.profile, current.profile
    by_user = (float(before.users), float(now.users))

    def effective(what: str) -> tuple[float, float]:
        return before.effective.get(what, math.nan), now.effective.get(what, math.nan)

    for what, label, counts, sizes, curse in (
        ("rating", "ratings", _ratings(before, now), effective("ratings"), 0.0),
        ("activity", "users' activity", _relative(before, now), by_user, 0.0),
        (
            "user",
            "who is active",
            _known(reference.users, current.users),
            by_user,
            _curse(reference.users),
        ),
        (
            "popularity",
            "items' popularity",
            _known(reference.items, current.items),
            effective("popularity"),
            _curse(reference.items),
        ),
        ("genre", "genres", _genres(before, now), effective("genres"), 0.0),
    ):
        if not counts[0].sum() or not counts[1].sum():
            continue
        bins = int(((counts[0] > 0) | (counts[1] > 0)).sum())
        chance, usual = psi.by_chance(bins, *sizes)
        yield Measure(
            f"{what}_psi",
            f"{label}, PSI",
            psi.psi(*counts),
            min(psi.SOME, limit),
            limit,
            chance=chance + curse,
            usual=usual + 2 * curse,  # it is an estimate itself
            share=False,
            note=f"{bins} bins",
        )


def _ratings(before: Profile, now: Profile) -> tuple[np.ndarray, np.ndarray]:
    """Counts by rating; one that the reference has not counts with the nearest that it has."""
    if before.ratings is None or now.ratings is None:
        return np.zeros(1), np.zeros(1)
    values, counts = np.array(before.ratings), np.array(before.rating_counts)
    bins = psi.together(counts)
    nearest = np.searchsorted((values[1:] + values[:-1]) / 2, now.ratings, side="right")
    return np.bincount(bins, counts), np.bincount(bins[nearest], now.rating_counts, minlength=bins[-1] + 1)


def _relative(before: Profile, now: Profile) -> tuple[np.ndarray, np.ndarray]:
    """Users by their interactions over the mean, so that longer histories all round are no drift."""
    counts = np.array(before.per_user.relative)
    bins = psi.together(counts)
    return np.bincount(bins, counts), np.bincount(bins, now.per_user.relative)


def _known(before: Tally, now: Tally) -> tuple[np.ndarray, np.ndarray]:
    """Interactions of the ids by their rank in the reference: the first 1%, up to 5%, 20%, 50%, and the others.

    Ids that the reference has not are left out: they are counted as new.
    """
    place = places(before.ids, now.ids)
    counts = np.where(place >= 0, now.counts[place], 0)
    groups = before.groups()
    return np.bincount(groups, before.counts), np.bincount(groups, counts)


def _curse(before: Tally, seed: int = 0) -> float:
    """The PSI of `_known` that comes of ranking by the reference itself: who was first was partly lucky.

    The interactions of each id are drawn into two halves; half of the PSI between the one, which ranks, and the other
    is what luck gives in twice as many interactions.
    """
    one = np.random.default_rng(seed).binomial(before.counts, 0.5)
    drawn = one > 0
    groups = Tally(before.ids[drawn], one[drawn]).groups(RANKED / 2)
    other = np.bincount(groups, (before.counts - one)[drawn])
    return psi.psi(np.bincount(groups, one[drawn]), other) / 2 if other.sum() else 0.0


def _genres(before: Profile, now: Profile) -> tuple[np.ndarray, np.ndarray]:
    """Interactions by genre, rare and new ones together."""
    total = sum(before.genres.values())
    frequent = [genre for genre, count in before.genres.items() if count >= GENRE_SHARE * total]
    found = []
    for genres in (before.genres, now.genres):
        counts = [genres.get(genre, 0) for genre in frequent]
        found.append(np.array([*counts, sum(genres.values()) - sum(counts)]))
    return found[0], found[1]


def likes(before: Profile, now: Profile) -> Measure:
    """By how much the share that is liked has moved; by chance, two standard errors."""
    shares = [profile.liked_share(now.like_threshold) for profile in (before, now)]
    variances = [
        share * (1 - share) / profile.effective.get("ratings", math.inf)
        for share, profile in zip(shares, (before, now), strict=True)
    ]
    moved, note = abs(shares[1] - shares[0]), f"{shares[0]:.1%} to {shares[1]:.1%}"
    chance = 2 * math.sqrt(sum(variances)) if moved else 0.0
    return Measure("like_share", "share of likes moved", moved, *LIKES, chance=chance, note=note)


def titles(before: Profile, now: Profile, lost: float) -> Measure:
    shares = [profile.untitled_rows / profile.interactions for profile in (before, now)]
    note = f"without a title: {shares[0]:.1%} to {shares[1]:.1%}"
    value = max(0.0, shares[1] - shares[0])
    return Measure("lost_titles", "interactions whose item lost its title", value, lost / 5, lost, note=note)
