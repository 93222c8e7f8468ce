"""Counts the columns of a data set once, in blocks, into its Profile and how often each id occurs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments.profile import Activity, Profile
from experiments.tally import HEAD, Tally
from widedeep.config import DataConfig
from widedeep.datasets import Dataset
from widedeep.interactions import Interactions, duplicate_pairs, id_codes

BLOCK = 1 << 22  # rows counted at once
SAMPLE = 500_000  # rows, of whole users, from which it is estimated how much users differ
PERCENT = (0, 1, 5, 10, 25, 50, 75, 90, 95, 99, 100)
RATING_POINTS = 1000  # more different ratings than that are kept as their quantiles
RELATIVE = 12  # half doublings on either side of the mean
DAY = 86_400


@dataclass(frozen=True)
class Examined:
    """A data set's profile, and its ids with their interactions."""

    profile: Profile
    users: Tally
    items: Tally


@dataclass(frozen=True)
class _Coded:
    """A column of ids as integers from 0.

    codes    (rows,) integers; some values below `size` may not occur
    present  (n,) the codes that occur, rising; `tally` has their ids
    """

    codes: np.ndarray
    size: int
    present: np.ndarray
    tally: Tally

    @classmethod
    def of(cls, ids: np.ndarray) -> _Coded:
        if ids.dtype != object:
            codes, size = id_codes(ids)
            if size <= 4 * len(ids) + BLOCK:
                counts = _count(codes, size)
                present = np.flatnonzero(counts)
                return cls(codes, size, present, Tally(present + int(ids.min()), counts[present]))
        codes, known = pd.factorize(ids, sort=True)  # text, or numbers with wide gaps
        return cls(codes, len(known), np.arange(len(known)), Tally(known, _count(codes, len(known))))

    def spread(self, values: np.ndarray) -> np.ndarray:
        """(n,) values of the ids as (size,) by code."""
        found = np.zeros(self.size, dtype=values.dtype)
        found[self.present] = values
        return found


def examine(dataset: Dataset, config: DataConfig) -> Examined:
    """Count everything.  config: from when on a rating counts as liked"""
    rows = dataset.interactions
    users, items = _Coded.of(rows.user_id), _Coded.of(rows.item_id)
    liked, without = _likes(rows, users, config.like_threshold)
    values, counts = _ratings(rows.rating)
    titles = _titles(dataset.items, items.tally.ids)
    names, member = _genres(dataset.items, items.tally.ids)
    per_genre = items.tally.counts @ member
    order = np.argsort(-per_genre, kind="stable")
    first, last, months = _times(rows.timestamp)
    lorenz, gini = _inequality(items.tally.counts)
    profile = Profile(
        dataset=dataset.name,
        source=dataset.source,
        digest=dataset.digest,
        interactions=len(rows),
        users=len(users.tally.ids),
        items=len(items.tally.ids),
        duplicates=duplicate_pairs(rows.user_id, rows.item_id),
        first=first,
        last=last,
        months=months,
        ratings=values,
        rating_counts=counts,
        like_threshold=config.like_threshold,
        liked=liked,
        users_without_likes=without,
        per_user=_activity(users.tally.counts),
        per_item=_activity(items.tally.counts),
        lorenz=lorenz,
        gini=gini,
        genres={names[place]: int(per_genre[place]) for place in order if per_genre[place]},
        described_items=int((titles >= 0).sum()),
        known_items=dataset.items["item_id"].nunique(),
        without_title=int((titles < 1).sum()),
        untitled_rows=int(items.tally.counts[titles < 1].sum()),
        user_attributes=[str(name) for name in dataset.users.columns if name != "user_id"],
        effective=_effective(rows, users, items, values, member[:, order[:20]]),
    )
    return Examined(profile, users.tally, items.tally)


def _count(codes: np.ndarray, size: int) -> np.ndarray:
    found = np.zeros(size, dtype=np.int64)
    for start in range(0, len(codes), BLOCK):  # bincount makes int64 of what it is given
        found += np.bincount(codes[start : start + BLOCK], minlength=size)
    return found


def _likes(rows: Interactions, users: _Coded, threshold: float) -> tuple[int, int]:
    """Interactions that are liked, and users without any."""
    if rows.rating is None:
        return len(rows), 0
    liked = np.zeros(users.size, dtype=bool)
    total = 0
    for start in range(0, len(rows), BLOCK):
        there = rows.rating[start : start + BLOCK] >= np.float32(threshold)
        total += int(there.sum())
        liked[users.codes[start : start + BLOCK][there]] = True
    return total, int((~liked[users.present]).sum())


def _ratings(ratings: np.ndarray | None) -> tuple[list[float] | None, list[int]]:
    if ratings is None:
        return None, []
    found: dict[float, int] = {}
    for start in range(0, len(ratings), BLOCK):
        values, counts = np.unique(ratings[start : start + BLOCK], return_counts=True)
        if len(values) > RATING_POINTS:
            break
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            found[value] = found.get(value, 0) + count
    else:
        if len(found) <= RATING_POINTS:
            return sorted(found), [found[value] for value in sorted(found)]
    ends = np.linspace(0, len(ratings), RATING_POINTS + 1).astype(np.int64)
    places = (ends[:-1] + ends[1:]) // 2
    middles = np.sort(ratings)[places].astype(float)
    values, inverse = np.unique(middles, return_inverse=True)
    weights = np.bincount(inverse, weights=np.diff(ends))
    return values.tolist(), [int(weight) for weight in weights]


def _times(times: np.ndarray | None) -> tuple[int | None, int | None, dict[str, int]]:
    if times is None:
        return None, None, {}
    first, last = int(times.min()), int(times.max())
    origin = first // DAY
    days = np.zeros(last // DAY - origin + 1, dtype=np.int64)
    for start in range(0, len(times), BLOCK):
        days += np.bincount(times[start : start + BLOCK] // DAY - origin, minlength=len(days))
    months = (np.arange(len(days)) + origin).astype("datetime64[D]").astype("datetime64[M]")
    names, where = np.unique(months, return_inverse=True)
    counts = np.bincount(where, weights=days)
    return first, last, {str(name): int(count) for name, count in zip(names, counts, strict=True) if count}


def _activity(counts: np.ndarray) -> Activity:
    most = int(counts.max())
    edges = np.unique(np.ceil(2.0 ** (np.arange(4 * most.bit_length()) / 4)).astype(np.int64))
    edges = edges[edges <= most]
    places = np.searchsorted(edges, counts, side="right") - 1
    return Activity(
        mean=float(counts.mean()),
        quantiles={
            str(percent): float(value)
            for percent, value in zip(PERCENT, np.percentile(counts, PERCENT), strict=True)
        },
        edges=edges.tolist(),
        counts=np.bincount(places, minlength=len(edges)).tolist(),
        relative=_relative(counts),
        once=int((counts == 1).sum()),
    )


def _relative(counts: np.ndarray) -> list[float]:
    """See Activity.relative. A count stands for what lies within a half of it, or a shift of the mean would jump."""
    values, sizes = np.unique(counts, return_counts=True)
    upto = np.cumsum(sizes)
    edges = counts.mean() * 2.0 ** ((np.arange(2 * RELATIVE) - RELATIVE + 0.5) / 2)
    ends = np.stack([values - 0.5, values + 0.5], axis=1).ravel()
    below = np.interp(edges, ends, np.stack([upto - sizes, upto], axis=1).ravel())
    return [float(value) for value in np.diff(below, prepend=0, append=len(counts))]


def _inequality(counts: np.ndarray) -> tuple[list[float], float]:
    """Lorenz curve from the most popular item down, and Gini's coefficient.

    Of the first P% it takes at least one item. Source of the coefficient's form: Damgaard & Weiner 2000, eq. 1
    """
    rising = np.sort(counts)
    size, total = len(rising), int(rising.sum())
    falling = np.concatenate([[0], np.cumsum(rising[::-1])]) / total
    ends = [0] + [max(1, size * percent // 100) for percent in range(1, 101)]
    gini = 2 * float(np.arange(1, size + 1) @ rising) / (size * total) - (size + 1) / size
    return [float(falling[end]) for end in ends], max(0.0, gini)


def _titles(table: pd.DataFrame, ids: np.ndarray) -> np.ndarray:
    """(items,) 1: has a title, 0: has a row without, -1: has no row."""
    known = table.drop_duplicates("item_id")
    place = pd.Index(known["item_id"]).get_indexer(pd.Index(ids))
    titled = np.append((known["title"] != "").to_numpy(), False)  # the last: of items without a row
    return np.where(place < 0, -1, titled[place])


def _genres(table: pd.DataFrame, ids: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The genres' names, and (items, genres) bool."""
    known = table.drop_duplicates("item_id")
    codes, texts = pd.factorize(known["genres"])
    split = [{name for name in str(text).split("|") if name} for text in texts]
    names = sorted(set[str]().union(*split))
    column = {name: place for place, name in enumerate(names)}
    member = np.zeros((len(texts) + 1, len(names)), dtype=bool)  # the last row: of items without one
    for row, found in enumerate(split):
        member[row, [column[name] for name in found]] = True
    place = pd.Index(known["item_id"]).get_indexer(pd.Index(ids))
    return names, member[np.append(codes, len(texts))[place]]


def _effective(
    rows: Interactions, users: _Coded, items: _Coded, ratings: list[float] | None, member: np.ndarray
) -> dict[str, float]:
    """Of ratings, genres and popularity: see Profile.effective.  member: (items, genres) bool, frequent ones"""
    chosen = np.zeros(users.size, dtype=bool)
    chosen[users.present[:: max(1, min(len(rows) // SAMPLE, len(users.present) // 100))]] = True
    kept = np.flatnonzero(chosen[users.codes])
    mine = np.unique(users.codes[kept], return_inverse=True)[1]
    item = items.codes[kept]
    group = items.spread(items.tally.groups())[item]
    tables = {"popularity": _table(mine, [group == place for place in range(len(HEAD) + 1)])}
    if rows.rating is not None and ratings is not None:
        edges = np.unique(np.quantile(rows.rating[kept], np.linspace(0.1, 0.9, 9)))
        bins = np.searchsorted(edges, rows.rating[kept], side="right")
        tables["ratings"] = _table(mine, [bins == place for place in range(len(edges) + 1)])
    if member.shape[1]:
        tables["genres"] = _table(mine, [items.spread(column)[item] for column in member.T])
    return {what: len(rows) / design_effect(table) for what, table in tables.items()}


def _table(users: np.ndarray, masks: list[np.ndarray]) -> np.ndarray:
    """(users, bins) int64: the rows of each user in each bin."""
    size = int(users.max()) + 1
    return np.stack([np.bincount(users[mask], minlength=size) for mask in masks], axis=1)


def design_effect(table: np.ndarray) -> float:
    """By how much the shares of the bins vary more than of independent draws, because draws come in clusters.

    table    (clusters, bins) counts
    Returns  1 or more: the mean over the bins of the ratio of variances, as Rao and Scott weigh them
    Source   Rao & Scott 1981, "The analysis of categorical data from complex sample surveys", section 3
    """
    table = table[:, table.sum(0) > 0].astype(float)
    clusters, bins = table.shape
    if clusters < 2 or bins < 2:
        return 1.0
    sizes = table.sum(1)
    total = sizes.sum()
    shares = table.sum(0) / total
    between = clusters / (clusters - 1) * ((table - sizes[:, None] * shares) ** 2).sum(0) / total**2
    ratios = between / (shares * (1 - shares) / total)
    return max(1.0, float(((1 - shares) * ratios).sum() / (bins - 1)))
