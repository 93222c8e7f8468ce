"""Orders of many rows, by counting and packing: what the split and the histories are cut by."""

from __future__ import annotations

import numpy as np

BLOCK = 1 << 18  # rows worked on at once, so that what is temporary stays in the cache
DIGIT = 16  # bits: numpy sorts integers of 16 bits by counting, in linear time and stably


def by_user(
    users: np.ndarray, user_count: int, times: np.ndarray | None, items: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The rows by user, of one user by time, at one time by item; of equal rows the earlier first.

    users    (rows,) integers from 0 to user_count - 1
    times    (rows,) integers; None: a user's rows stay in their order, whatever their items
    items    (rows,) integers from 0
    Returns  order (rows,) int64, and the rows of each user (user_count,) int64

    Where user, time and the place among the user's rows by item fit into 63 bits together, only plain integers
    are sorted, which is several times faster than sorting row numbers by them.
    """
    sizes = np.bincount(users, minlength=user_count)
    if not len(users):
        return np.empty(0, dtype=np.int64), sizes
    if times is None:
        return stable_order(users), sizes
    low = int(times.min())
    time_bits = (int(times.max()) - low).bit_length()
    place_bits = (int(sizes.max()) - 1).bit_length()
    if time_bits + place_bits + (user_count - 1).bit_length() > 63:
        return np.lexsort((items, times, users)), sizes
    grouped = None if _rising(users, items) else stable_order(users, items)
    starts = np.cumsum(sizes) - sizes
    keys = np.empty(len(users), dtype=np.int64)
    for start in range(0, len(keys), BLOCK):
        places = np.arange(start, min(start + BLOCK, len(keys)))
        rows = slice(start, start + BLOCK) if grouped is None else grouped[start : start + BLOCK]
        user = users[rows]
        key = (user.astype(np.int64) << time_bits) + (times[rows].astype(np.int64) - low)
        keys[start : start + BLOCK] = (key << place_bits) + (places - starts[user])
    keys.sort()
    for start in range(0, len(keys), BLOCK):  # in place: keys become the rows that they stand for
        key = keys[start : start + BLOCK]
        places = (key & ((1 << place_bits) - 1)) + starts[key >> (time_bits + place_bits)]
        keys[start : start + BLOCK] = places if grouped is None else grouped[places]
    return keys, sizes


def stable_order(*columns: np.ndarray) -> np.ndarray:
    """(rows,) int64: the rows by columns of integers from 0, the first the weightiest; equal rows keep their order."""
    order: np.ndarray | None = None
    for column in columns[::-1]:
        if order is None and (column[1:] >= column[:-1]).all():
            continue
        for shift in range(0, max(1, int(column.max(initial=0)).bit_length()), DIGIT):
            digit = (column >> shift).astype(np.uint16)
            if order is None:
                order = np.argsort(digit, kind="stable")
            else:
                order = order[np.argsort(digit[order], kind="stable")]
    return np.arange(len(columns[0])) if order is None else order


def _rising(users: np.ndarray, items: np.ndarray) -> bool:
    """Whether the rows are in order by user and item, as most files are."""
    for start in range(0, len(users) - 1, BLOCK):
        user, item = users[start : start + BLOCK + 1], items[start : start + BLOCK + 1]
        if not ((user[1:] > user[:-1]) | ((user[1:] == user[:-1]) & (item[1:] >= item[:-1]))).all():
            return False
    return True
