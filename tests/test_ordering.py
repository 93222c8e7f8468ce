"""Orders of rows: those of a plain sort, whatever the rows come like."""

from __future__ import annotations

import numpy as np
import pytest

from widedeep import ordering


def plain(users: np.ndarray, times: np.ndarray | None, items: np.ndarray) -> list[int]:
    rows = range(len(users))
    if times is None:
        return sorted(rows, key=lambda row: int(users[row]))
    return sorted(rows, key=lambda row: (int(users[row]), int(times[row]), int(items[row])))


def some(seed: int, rows: int, times: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows in any order with many equal times, and pairs that come again."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 40, rows), rng.integers(-times, times, rows), rng.integers(0, 70_000, rows)


@pytest.mark.parametrize("rows", [0, 1, 2, 3000])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("arranged", ["anyhow", "by user", "by user and item", "by time"])
@pytest.mark.parametrize("block", [7, ordering.BLOCK])
def test_by_user_is_the_order_of_a_plain_sort(
    rows: int, dtype: type, arranged: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordering, "BLOCK", block)
    for times_apart in (1, 3, 10**9):
        users, times, items = (column.astype(dtype) for column in some(rows, rows, times_apart))
        keys = {"anyhow": (), "by user": (users,), "by user and item": (items, users), "by time": (times,)}
        if keys[arranged]:
            chosen = np.lexsort(keys[arranged])
            users, times, items = users[chosen], times[chosen], items[chosen]
        order, sizes = ordering.by_user(users, 45, times, items)
        assert order.tolist() == plain(users, times, items)
        assert sizes.tolist() == [int((users == user).sum()) for user in range(45)]
        order, _ = ordering.by_user(users, 45, None, items)
        assert order.tolist() == plain(users, None, items)


def test_times_too_far_apart_to_be_packed() -> None:
    users, _, items = some(5, 500, 1)
    times = np.random.default_rng(6).choice(np.array([-(2**63), -5, 0, 2**62, 2**63 - 1]), 500)
    assert ordering.by_user(users, 40, times, items)[0].tolist() == plain(users, times, items)


@pytest.mark.parametrize("largest", [0, 200, 65_535, 65_536, 2**31 - 1, 2**40])
def test_stable_order_is_that_of_a_stable_sort(largest: int) -> None:
    rng = np.random.default_rng(largest)
    first, second = (
        rng.integers(0, 9, 2000),
        rng.choice(np.r_[0, largest, rng.integers(0, largest + 1, 50)], 2000),
    )
    assert ordering.stable_order(second).tolist() == np.argsort(second, kind="stable").tolist()
    assert ordering.stable_order(first, second).tolist() == np.lexsort((second, first)).tolist()
    risen = np.sort(second)
    assert ordering.stable_order(risen).tolist() == list(range(2000))
    assert ordering.stable_order(first, risen).tolist() == np.lexsort((risen, first)).tolist()
