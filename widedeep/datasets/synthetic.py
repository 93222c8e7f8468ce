"""Made-up interactions with planted preferences, so that the best that can be reached is known.

Users and items are points in a small space of taste; genres are directions in it. Which items a user comes
to, and how much the user likes them, both follow from taste, an item's pull and its quality. The same seed
and sizes give the same data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from widedeep.errors import ConfigError
from widedeep.interactions import Interactions, narrow

TASTES = 10  # dimensions of taste
SHARPNESS = 1.7  # how strongly taste decides what a user comes to
PULL = 1.3  # spread of the items' logarithmic popularity
ACTIVITY = 0.9  # spread of the logarithmic number of interactions a user has
LIKED = 3.75  # an unrounded rating from here on is 4 stars or more
NOISE = 0.7  # spread of a rating around what taste and quality say
DENSE_PAIRS = 2 * 10**9  # up to here every user has a taste of their own; beyond, users are of fewer kinds
KIND_PAIRS = 4 * 10**8  # kinds times items, beyond DENSE_PAIRS
BLOCK = 1 << 22  # pairs weighed at once

GENRES = (
    "Action",
    "Adventure",
    "Animation",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Horror",
    "Musical",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
)
REGIONS = ("north", "east", "south", "west")


@dataclass(frozen=True)
class Truth:
    """What the data was made from. Users are 1..users and items 1..items.

    user_taste  (users, TASTES) float32
    item_taste  (items, TASTES) float32
    pull        (items,) float32: log of how often an item is come to, taste apart
    quality     (items,) float32: stars above or below the mean
    kindness    (users,) float32: stars that a user gives above or below the mean
    """

    user_taste: np.ndarray
    item_taste: np.ndarray
    pull: np.ndarray
    quality: np.ndarray
    kindness: np.ndarray

    def like_probability(self, user_id: np.ndarray, item_id: np.ndarray) -> np.ndarray:
        """(rows,) float64: probability that this user, having come to this item, gives it 4 stars or more."""
        users, items = user_id - 1, item_id - 1
        taste = np.einsum("rd,rd->r", self.user_taste[users], self.item_taste[items])
        return _above((_stars(taste) + self.quality[items] + self.kindness[users] - LIKED) / NOISE)

    def ranking_scores(self, user_id: np.ndarray) -> np.ndarray:
        """(rows, items) float64: log of how likely the user's next liked item is this one, plus a constant.

        Column i is item i + 1. Ranked by it, with the items seen left out, a list is the best there can be.
        """
        users = user_id - 1
        taste = self.user_taste[users] @ self.item_taste.T
        liked = _above((_stars(taste) + self.quality + self.kindness[users, None] - LIKED) / NOISE)
        return np.asarray(SHARPNESS * taste + self.pull + np.log(liked.clip(1e-12)))


def generate(
    users: int, items: int, interactions: int, seed: int
) -> tuple[Interactions, pd.DataFrame, pd.DataFrame, Truth]:
    """Interactions without duplicates, items (title, genres, year), users (age, region) and the truth.

    Raises  ConfigError: more interactions than there are pairs
    """
    if interactions > users * items:
        raise ConfigError(
            f"{interactions:,} interactions of {users:,} users and {items:,} items are more than the "
            f"{users * items:,} pairs there are. Lower --interactions, or raise --users or --items."
        )
    rng = np.random.Generator(np.random.SFC64(seed))
    item_frame, item_taste = _items(items, rng)
    kinds = users if users * items <= DENSE_PAIRS else min(users, max(64, KIND_PAIRS // items))
    user_frame, user_taste, kind = _users(users, kinds, rng)
    pull = (PULL * rng.standard_normal(items) + 0.01 * (item_frame["year"].to_numpy() - 1990)).astype(
        np.float32
    )
    quality = (0.25 * rng.standard_normal(items) + 0.1 * pull).astype(np.float32)
    kindness = (0.3 * rng.standard_normal(users)).astype(np.float32)
    truth = Truth(user_taste, item_taste, pull, quality, kindness)

    counts = _activity(users, items, interactions, rng)
    user = np.repeat(np.arange(users, dtype=np.int64), counts)
    item = np.empty(interactions, dtype=np.int64)
    starts = np.cumsum(counts) - counts
    own = kinds == users
    blocks = _choose_dense(truth, counts, rng) if own else _choose_by_kind(truth, counts, rng, kind)
    for chosen, index in blocks:
        sizes = counts[chosen]
        place = np.repeat(starts[chosen] - np.cumsum(sizes) + sizes, sizes) + np.arange(int(sizes.sum()))
        item[place] = index
    rating = _ratings(truth, user, item, rng)
    rows = Interactions(narrow(user + 1), narrow(item + 1), rating, narrow(_times(counts, rng)))
    pairs = user * items + item
    order = np.argsort(pairs)
    assert (np.diff(pairs[order]) > 0).all(), "a user was given the same item twice"
    return rows.take(order), item_frame, user_frame, truth


def _items(items: int, rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray]:
    directions = rng.standard_normal((len(GENRES), TASTES))
    count = rng.choice([1, 2, 3], size=items, p=[0.4, 0.4, 0.2])
    rank = rng.random((items, len(GENRES))).argsort(axis=1).argsort(axis=1)
    has = rank < count[:, None]
    taste = (has @ directions) / np.sqrt(count)[:, None]
    taste = 0.75 * taste + 0.66 * rng.standard_normal((items, TASTES))
    year = 2023 - np.minimum(rng.exponential(18.0, items), 90).astype(np.int32)
    numbers = np.arange(1, items + 1)
    patterns, which = np.unique(has, axis=0, return_inverse=True)
    names = ["|".join(name for name, flag in zip(GENRES, row, strict=True) if flag) for row in patterns]
    frame = pd.DataFrame({"item_id": numbers.astype(np.int64)})
    frame["title"] = pd.Series([f"Item {n} ({y})" for n, y in zip(numbers, year, strict=True)], dtype="str")
    frame["genres"] = pd.Series(np.array(names, dtype=object)[which.reshape(-1)], dtype="str")
    frame["year"] = year.astype(np.int32)
    return frame, taste.astype(np.float32)


def _users(users: int, kinds: int, rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    taste = rng.standard_normal((kinds, TASTES)) / math.sqrt(TASTES)
    kind = np.arange(users) if kinds == users else rng.integers(0, kinds, users)
    taste = taste[kind]
    age = (38 + 12 * (0.7 * taste[:, 0] * math.sqrt(TASTES) + 0.7 * rng.standard_normal(users))).clip(16, 90)
    region = (2 * (taste[:, 1] > 0) + (taste[:, 2] > 0)).astype(np.int64)
    moved = rng.random(users) < 0.3
    region[moved] = rng.integers(0, len(REGIONS), int(moved.sum()))
    frame = pd.DataFrame({"user_id": np.arange(1, users + 1, dtype=np.int64), "age": age.round()})
    frame["region"] = pd.Series(np.array(REGIONS, dtype=object)[region], dtype="str")
    return frame, taste.astype(np.float32), kind


def _activity(users: int, items: int, interactions: int, rng: np.random.Generator) -> np.ndarray:
    """(users,) int64, as skewed as people are, none above half the catalogue where that is possible."""
    weight = np.exp(ACTIVITY * rng.standard_normal(users))
    mean = interactions / users
    most = max(items // 2, min(items, math.ceil(2 * mean)))
    least = min(5.0, mean / 2)
    low, high = 0.0, 1.0
    while (weight * high).clip(least, most).sum() < interactions and high < 1e30:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if (weight * middle).clip(least, most).sum() < interactions else (low, middle)
        )
    wanted = (weight * high).clip(least, most)
    counts = np.floor(wanted).astype(np.int64)
    by_remainder = np.argsort(counts - wanted, kind="stable")
    while (left := interactions - int(counts.sum())) != 0:
        sorted_counts = counts[by_remainder]
        able = by_remainder[(sorted_counts < items) if left > 0 else (sorted_counts > 0)][: abs(left)]
        counts[able] += 1 if left > 0 else -1
    return np.asarray(counts)


def _choose_dense(
    truth: Truth, counts: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of (users, their items one user after the other), drawn without replacement by weight.

    The n smallest of Exponential(1) / weight are such a draw (Efraimidis and Spirakis 2006).
    """
    items = len(truth.pull)
    by_count = np.argsort(counts, kind="stable")  # users of a block want about as many items
    step = max(1, BLOCK // items)
    for start in range(0, len(counts), step):
        chosen = by_count[start : start + step]
        keys = rng.standard_exponential((len(chosen), items), dtype=np.float32)
        weight = (SHARPNESS * truth.user_taste[chosen]) @ truth.item_taste.T
        weight += truth.pull
        keys *= np.exp(-weight, out=weight)
        yield chosen, _smallest(keys, counts[chosen])


def _smallest(keys: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The columns of each row's counts[row] smallest keys, row after row."""
    most = int(counts.max())
    columns = keys.shape[1]
    if most < columns:
        near = (
            np.argpartition(keys, most, axis=1)[:, :most]
            if most
            else np.empty((len(keys), 0), dtype=np.int64)
        )
    else:
        near = np.broadcast_to(np.arange(columns), keys.shape)
    if counts.min() < most:
        order = np.argsort(np.take_along_axis(keys, near, axis=1), axis=1)
        near = np.take_along_axis(near, order, axis=1)
    return near[np.arange(near.shape[1]) < counts[:, None]]


def _choose_by_kind(
    truth: Truth, counts: np.ndarray, rng: np.random.Generator, kind: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Like _choose_dense where users are of one of few kinds (users,): one distribution over the items for each."""
    items = len(truth.pull)
    by_kind = np.argsort(kind, kind="stable")
    for users in np.split(by_kind, np.flatnonzero(np.diff(kind[by_kind])) + 1):
        taste = truth.item_taste @ truth.user_taste[users[0]]
        weight = np.exp((SHARPNESS * taste + truth.pull).astype(np.float64))
        edges = np.cumsum(weight / weight.sum())
        few = users[counts[users] <= items // 8]
        yield few, _distinct_draws(edges, counts[few], rng)
        for user in users[counts[users] > items // 8]:  # would draw mostly what they have
            keys = rng.standard_exponential((1, items)) / weight
            yield np.array([user]), _smallest(keys, counts[[user]])


def _distinct_draws(edges: np.ndarray, counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """counts[row] distinct indices for each row, row after row, drawn one by one with repeats passed over."""
    who, what = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    missing = counts
    while (lacking := np.flatnonzero(missing > 0)).size:
        tries = missing[lacking] * 3 // 2 + 8
        drawn = np.searchsorted(edges, rng.random(int(tries.sum())))
        who = np.concatenate([who, np.repeat(lacking, tries)])
        what = np.concatenate([what, np.minimum(drawn, len(edges) - 1)])
        draws = len(who)
        keys = np.sort((who * len(edges) + what) * draws + np.arange(draws))  # its sort beats np.unique's
        first = np.sort(keys[np.r_[True, np.diff(keys // draws) > 0]] % draws)
        who, what = who[first], what[first]
        missing = counts - np.bincount(who, minlength=len(counts))
    order = np.argsort(who, kind="stable")
    who, what = who[order], what[order]
    starts = np.searchsorted(who, np.arange(len(counts)))
    return np.asarray(what[np.arange(len(who)) - starts[who] < counts[who]])


def _ratings(truth: Truth, user: np.ndarray, item: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    rating = np.empty(len(user), dtype=np.float32)
    for start in range(0, len(user), BLOCK):
        rows = slice(start, start + BLOCK)
        users, items = user[rows], item[rows]
        taste = np.einsum("rd,rd->r", truth.user_taste[users], truth.item_taste[items])
        stars = _stars(taste) + truth.quality[items] + truth.kindness[users]
        stars += np.float32(NOISE) * rng.standard_normal(len(users), dtype=np.float32)
        rating[rows] = (np.floor(stars * 2 + 0.5) / 2).clip(0.5, 5.0)
    return rating


def _stars(taste: np.ndarray) -> np.ndarray:
    return np.asarray(3.3 + 0.45 * taste)


def _times(counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(rows,) int64: each user is there for some while between 2010 and 2024, in no order of preference."""
    first, last = 1_262_304_000, 1_704_067_200
    span = np.exp(rng.normal(math.log(60 * 86_400), 1.5, len(counts))).clip(3_600, (last - first) / 2)
    start = first + rng.random(len(counts)) * (last - first - span)
    rows = int(counts.sum())
    return np.asarray(
        (np.repeat(start, counts) + rng.random(rows) * np.repeat(span, counts)).astype(np.int64)
    )


def _above(z: np.ndarray) -> np.ndarray:
    """The normal distribution function, to 1.2e-7 (Press et al. 1992, Numerical Recipes, erfcc)."""
    x = np.abs(np.asarray(z, dtype=np.float64)) / math.sqrt(2)
    t = 1 / (1 + 0.5 * x)
    terms = (
        -1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806,
        0.27886807, -1.13520398, 1.48851587, -0.82215223, 0.17087277,
    )  # fmt: skip
    tail = 0.5 * t * np.exp(-x * x + np.polynomial.polynomial.polyval(t, terms))
    return np.asarray(np.where(np.asarray(z) > 0, 1 - tail, tail))
