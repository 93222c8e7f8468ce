"""May the figures of a split be trusted? What its rows say, looked up and not assumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from widedeep.interactions import Interactions, duplicate_pairs
from widedeep.split import Split

IN_ORDER = ("user-time", "leave-last-out", "time")  # splits whose test rows come after what is trained on


@dataclass(frozen=True)
class Trust:
    """What was found in the rows of a split.

    rows_match   the parts together have as many rows as the data set
    shared       pairs of a user and an item that are in two parts
    out_of_time  users of whom a row that is withheld is earlier than one that it is predicted from; with `time` the
                 test part counts as one user. None where there are no times, or the split does not go by them
    later        share of the rows before the test part that are later than the middle one of the test part: other
                 users' future; None as above
    """

    rows_match: bool
    shared: int
    out_of_time: int | None
    later: float | None

    @property
    def clean(self) -> bool:
        return self.rows_match and not self.shared and not self.out_of_time

    @property
    def word(self) -> str:
        """For a tag."""
        return "none" if self.clean else str(self)

    def __str__(self) -> str:
        if not self.rows_match:
            return "Leak: the parts together do not have as many rows as the data set"
        if self.shared:
            return f"Leak: {self.shared:,} pairs of a user and an item are in two parts"
        if self.out_of_time:
            return f"Leak: withheld rows of {self.out_of_time:,} users are earlier than rows they are predicted from"
        found = "Leaks, looked for in the rows: none. Every row is in one part, no pair of a user and an item in two"
        if self.out_of_time is None:
            return f"{found}; time was not looked at, as this split does not go by it"
        return f"{found}, and no withheld row is earlier than one that it is predicted from"

    @property
    def caution(self) -> str:
        """What is no mistake and yet flatters; empty where nothing does."""
        if self.later is None or self.later < 0.005:
            return ""
        return (
            f"{self.later:.0%} of the rows before the test part are later than the middle one of it: what other users "
            "did afterwards was there to learn from, as it is not in service. `--split time` is stricter"
        )


def look(split: Split, rows: int) -> Trust:
    """Look through the rows.  rows: of the whole data set"""
    parts = (split.train, split.validation, split.test)
    timed = split.method in IN_ORDER and all(part.timestamp is not None for part in parts)
    return Trust(
        rows_match=sum(map(len, parts)) == rows,
        shared=_shared(parts),
        out_of_time=_out_of_time(split) if timed else None,
        later=_later(split) if timed and len(split.test) else None,
    )


def _shared(parts: Sequence[Interactions]) -> int:
    """Pairs that are in more than one part."""
    user = np.concatenate([part.user_id for part in parts])
    item = np.concatenate([part.item_id for part in parts])
    return duplicate_pairs(user, item) - sum(duplicate_pairs(part.user_id, part.item_id) for part in parts)


def _out_of_time(split: Split) -> int:
    train, validation, test = split.train, split.validation, split.test
    before = _by_user(train, "max")
    late = _earlier(_by_user(validation, "min"), before)
    before = pd.concat([before, _by_user(validation, "max")]).groupby(level=0).max()
    if split.method == "time":
        return late + int(len(test) > 0 and test.timestamp.min() < before.max())  # type: ignore[union-attr]
    return late + _earlier(_by_user(test, "min"), before)


def _by_user(rows: Interactions, how: str) -> pd.Series:
    """The first or last time of each user."""
    return pd.Series(rows.timestamp).groupby(rows.user_id).agg(how)


def _earlier(first: pd.Series, last: pd.Series) -> int:
    return int((first < last.reindex(first.index)).sum())


def _later(split: Split) -> float:
    assert split.test.timestamp is not None
    middle = np.median(split.test.timestamp)
    before = [part.timestamp for part in (split.train, split.validation) if part.timestamp is not None]
    return float((np.concatenate(before) > middle).mean())
