"""Interactions: who did what, when, and how they rated it, as columns with the caller's own ids."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from widedeep import validation
from widedeep.errors import EmptyDataError, InvalidRowsError
from widedeep.ordering import BLOCK


@dataclass(frozen=True)
class Interactions:
    """One row an interaction, in the order of the file.

    user_id    (rows,) int32, int64 where those are too narrow, or object array of str
    item_id    (rows,) likewise
    rating     (rows,) float32, or None where the data has no ratings
    timestamp  (rows,) int32 or int64 seconds since 1970, or None where the data has no times

    The columns may be mapped from a file, and so not be written to.
    """

    user_id: np.ndarray
    item_id: np.ndarray
    rating: np.ndarray | None = None
    timestamp: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.user_id)

    def take(self, rows: np.ndarray) -> Interactions:
        """The rows that a mask (rows,) bool or an index (n,) selects."""
        index = np.flatnonzero(rows) if rows.dtype == bool else rows  # once for all columns
        return Interactions(
            self.user_id[index],
            self.item_id[index],
            None if self.rating is None else self.rating[index],
            None if self.timestamp is None else self.timestamp[index],
        )

    def liked(self, threshold: float) -> np.ndarray:
        """(rows,) bool: rated `threshold` or more; True everywhere where there are no ratings."""
        if self.rating is None:
            return np.ones(len(self), dtype=bool)
        return np.asarray(self.rating >= np.float32(threshold))

    def digest(self) -> str:
        """SHA-256 of the rows in their order, as 64 hex digits; the same on every machine. Taken once."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        state = hashlib.sha256(f"interactions 1 {len(self)}\n".encode())
        for column in (self.user_id, self.item_id, self.rating, self.timestamp):
            if column is None:
                state.update(b"none\n")
            elif column.dtype == object:
                state.update(b"text\n")
                _update_text(state, column)
            elif column.dtype.kind == "f":
                state.update(b"float32\n")
                _update(state, column, "<f4")
            else:
                narrow = not len(column) or (column.min() >= -(2**31) and column.max() < 2**31)
                state.update(b"int32\n" if narrow else b"int64\n")
                _update(state, column, "<i4" if narrow else "<i8")
        return state.hexdigest()

    def to_frame(self) -> pd.DataFrame:
        """Columns user_id, item_id, and rating and timestamp where there are any."""
        columns = {"user_id": self.user_id, "item_id": self.item_id}
        if self.rating is not None:
            columns["rating"] = self.rating
        if self.timestamp is not None:
            columns["timestamp"] = self.timestamp
        return pd.DataFrame(columns)

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        user_col: str = "user_id",
        item_col: str = "item_id",
        rating_col: str | None = "auto",
        timestamp_col: str | None = "auto",
        source: str = "the data frame",
        on_bad_rows: str = "error",
        first_line: int = 2,
        place: Callable[[int], str] | None = None,
        whole_ids: bool = False,
    ) -> tuple[Interactions, list[str]]:
        """Check a frame's rows and turn them into Interactions.

        Ids: integers stay integers, everything else becomes str. Times: seconds since 1970, or ISO 8601 dates.
        rating_col, timestamp_col  "auto": 'rating' and 'timestamp' where there are such columns; None, "" or
                     "none": not read
        on_bad_rows  error: raise; repair: drop them, and of duplicates all but the latest (or last)
        first_line   line of the file that the first row stands on
        place        how row r (from 0) is called in messages, where that is not "line r + first_line"
        whole_ids    ids that are not whole numbers are bad rows
        Returns      the interactions, and a sentence for each repair made
        Raises       DataNotFoundError: a column is missing; EmptyDataError: no rows;
                     InvalidRowsError: ids missing, ratings or times that are none, duplicates
        """
        found = [str(name) for name in frame.columns]
        rating_col = validation.optional_column(found, rating_col, "rating")
        timestamp_col = validation.optional_column(found, timestamp_col, "timestamp")
        validation.require_columns(found, user_col, item_col, rating_col, timestamp_col, source)
        if not len(frame):
            raise EmptyDataError(f"{source} has its columns but no rows: nothing to learn from.")

        call = place or (lambda row: f"line {row + first_line}")
        bad: list[validation.BadRows] = []
        user_id = narrow(validation.ids(frame[user_col], user_col, bad, whole_only=whole_ids))
        item_id = narrow(validation.ids(frame[item_col], item_col, bad, whole_only=whole_ids))
        rating = None if rating_col is None else validation.ratings(frame[rating_col], bad)
        timestamp = (
            None if timestamp_col is None else narrow(validation.timestamps(frame[timestamp_col], bad))
        )
        rows = cls(user_id, item_id, rating, timestamp)
        if bad or duplicate_pairs(user_id, item_id):
            keep = np.ones(len(rows), dtype=bool)
            for problem in bad:
                keep[problem.rows] = False
            bad.extend(_duplicates(rows, keep, call))
        if not bad:
            return rows, []

        for problem in bad:
            keep[problem.rows] = False
        if on_bad_rows == "error" or not keep.any():
            raise InvalidRowsError(validation.complaint(bad, keep, source, call, on_bad_rows))
        return rows.take(keep), [validation.repair_note(problem, source, call) for problem in bad]


def concatenate(parts: Sequence[Interactions]) -> Interactions:
    """The rows of all parts, one part after the other.

    Raises  ValueError: no parts, or only some of them have ratings or times
    """
    columns = [[getattr(part, name) for part in parts] for name in Interactions.__dataclass_fields__]
    for column in columns[2:]:
        if any(value is None for value in column) and not all(value is None for value in column):
            raise ValueError("only some of the parts have ratings or timestamps")
    user_id, item_id, rating, timestamp = columns
    return Interactions(
        np.concatenate(user_id),
        np.concatenate(item_id),
        None if rating[0] is None else np.concatenate(rating),
        None if timestamp[0] is None else np.concatenate(timestamp),
    )


def narrow(column: np.ndarray) -> np.ndarray:
    """Integers as int32 where it holds them all; everything else as it is."""
    if column.dtype.kind != "i" or column.dtype.itemsize <= 4 or not len(column):
        return column
    return column.astype(np.int32) if column.min() >= -(2**31) and column.max() < 2**31 else column


def id_codes(ids: np.ndarray) -> tuple[np.ndarray, int]:
    """Ids as integers of the same order, smallest 0, and one more than the largest of them.

    Numbers are only shifted, so gaps stay; text is numbered in its sorted order.
    """
    if not len(ids):
        return np.empty(0, dtype=np.int64), 0
    low, high = (0, 2**62) if ids.dtype == object else (int(ids.min()), int(ids.max()))
    if high - low >= 2**62:
        codes, uniques = pd.factorize(ids, sort=True)
        return codes.astype(np.int64, copy=False), len(uniques)
    return np.subtract(ids, low, dtype=ids.dtype if high - low < 2**31 else np.int64), high - low + 1


def distinct(ids: np.ndarray) -> np.ndarray:
    """The ids that occur, in rising order: int64, or object array of str."""
    if ids.dtype == object or not len(ids):
        return np.sort(pd.unique(ids))
    low, high = int(ids.min()), int(ids.max())
    if high - low > 4 * len(ids) + BLOCK:  # ids with wide gaps
        return np.unique(ids).astype(np.int64)
    there = np.zeros(high - low + 1, dtype=bool)
    there[id_codes(ids)[0]] = True
    return np.flatnonzero(there) + low


def _update(state: hashlib._Hash, column: np.ndarray, dtype: str) -> None:
    for start in range(0, len(column), BLOCK):
        state.update(np.ascontiguousarray(column[start : start + BLOCK], dtype=dtype).data)


def _update_text(state: hashlib._Hash, column: np.ndarray) -> None:
    """The length in bytes of each text, then all of the bytes, as UTF-8."""
    import pyarrow as pa  # only here: ids that are numbers need none
    import pyarrow.compute as pc

    try:
        text = pa.array(column, pa.large_string())
    except UnicodeEncodeError:  # halves of surrogate pairs, which Arrow does not take
        encoded = [value.encode("utf-8", "surrogatepass") for value in column]
        text = pa.array(encoded, pa.large_binary())
    lengths = pc.binary_length(text).to_numpy()
    _update(state, lengths, "<u4")
    data = text.buffers()[2]
    if data is not None:
        state.update(memoryview(data)[: int(lengths.sum())])


def pair_keys(user_id: np.ndarray, item_id: np.ndarray) -> np.ndarray:
    """(rows,) int64: equal where user and item are, ordered by user, then item."""
    users, user_count = id_codes(user_id)
    items, item_count = id_codes(item_id)
    if user_count * item_count >= 2**63:  # gaps too wide: number the ids without them
        users = np.unique(users, return_inverse=True)[1]
        items, item_count = np.unique(items, return_inverse=True)[1], len(items)
    keys = users.astype(np.int64)
    keys *= item_count
    keys += items
    return keys


def duplicate_pairs(user_id: np.ndarray, item_id: np.ndarray) -> int:
    """How many rows have the user and the item of an earlier row."""
    if _sorted_pairs(user_id, item_id):
        return 0
    keys = pair_keys(user_id, item_id)
    keys.sort()
    return int((keys[1:] == keys[:-1]).sum())


def _sorted_pairs(user_id: np.ndarray, item_id: np.ndarray) -> bool:
    """Whether the rows rise strictly by user and item, as most files do."""
    if user_id.dtype == object or item_id.dtype == object:
        return False
    for start in range(0, len(user_id) - 1, BLOCK):
        users, items = user_id[start : start + BLOCK + 1], item_id[start : start + BLOCK + 1]
        rising = (users[1:] > users[:-1]) | ((users[1:] == users[:-1]) & (items[1:] > items[:-1]))
        if not rising.all():
            return False
    return True


def _duplicates(
    rows: Interactions, usable: np.ndarray, call: Callable[[int], str]
) -> list[validation.BadRows]:
    """The rows among `usable` whose user and item come again later."""
    index = np.flatnonzero(usable)
    keys = pair_keys(rows.user_id[index], rows.item_id[index]) if len(index) else index
    time = np.zeros(len(index), dtype=np.int64) if rows.timestamp is None else rows.timestamp[index]
    order = np.lexsort((time, keys))  # stable: equal times stay in the file's order
    again = np.flatnonzero(keys[order][1:] == keys[order][:-1])
    if not len(again):
        return []
    dropped, kept = index[order[again]], index[order[again + 1]]
    shown = np.argsort(dropped)[: validation.SHOWN]
    partner = dict(zip(dropped[shown].tolist(), kept[shown].tolist(), strict=True))

    def say(row: int) -> str:
        return f"user {rows.user_id[row]} and item {rows.item_id[row]} are also on {call(partner[row])}"

    return [validation.BadRows("the user and item of another row", np.sort(dropped), say)]
