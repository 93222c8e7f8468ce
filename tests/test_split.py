"""Splits: disjoint, complete, deterministic, and cut where the rule says."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from widedeep.config import DataConfig
from widedeep.errors import ConfigError, EmptyDataError
from widedeep.interactions import Interactions, concatenate
from widedeep.split import Split, split

METHODS = ("user-time", "time", "leave-last-out", "random", "none")


def some(
    seed: int, users: int = 30, items: int = 40, rows: int = 500, times: int = 50, text: bool = False
) -> Interactions:
    """Random rows without duplicates, with many equal times."""
    rng = np.random.default_rng(seed)
    pairs = rng.permutation(users * items)[:rows]
    user, item = (pairs // items) * 7 - 50, (pairs % items) * 3
    ids = [
        np.array([f"id {value}" for value in column], dtype=object) if text else column
        for column in (user, item)
    ]
    rating = (rng.integers(1, 11, rows) / 2).astype(np.float32)
    return Interactions(ids[0], ids[1], rating, rng.integers(0, times, rows))


def rows_of(part: Interactions) -> set[tuple[object, object]]:
    return set(zip(part.user_id.tolist(), part.item_id.tolist(), strict=True))


def parts_of(result: Split) -> tuple[Interactions, Interactions, Interactions]:
    return result.train, result.validation, result.test


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_every_row_goes_to_exactly_one_part_in_its_order(method: str, text: bool, seed: int) -> None:
    rows = some(seed, text=text)
    result = split(rows, DataConfig(split=method))
    parts = [rows_of(part) for part in parts_of(result)]
    assert sum(len(part) for part in parts_of(result)) == len(rows)
    assert set.union(*parts) == rows_of(rows)
    place = {pair: n for n, pair in enumerate(zip(rows.user_id.tolist(), rows.item_id.tolist(), strict=True))}
    for part in parts_of(result):
        places = [place[pair] for pair in zip(part.user_id.tolist(), part.item_id.tolist(), strict=True)]
        assert places == sorted(places)
    again = split(rows, DataConfig(split=method))
    assert [part.digest() for part in parts_of(again)] == [part.digest() for part in parts_of(result)]
    assert result.method == method


def by_hand(frame: pd.DataFrame, fraction: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """user-time, written as plainly as can be: (what stays, what is withheld)."""
    stays, held = [], []
    for _, rows in frame.groupby("user_id"):
        ordered = rows.sort_values(["timestamp", "item_id"])
        count = min(math.ceil(round(fraction * len(rows), 9)), len(rows) - 1)
        stays.append(ordered.iloc[: len(rows) - count])
        held.append(ordered.iloc[len(rows) - count :])
    return pd.concat(stays), pd.concat(held)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("test", "validation"), [(0.2, 0.1), (0.5, 0.5), (0.05, 0.9), (0.7, 0.0)])
def test_user_time_is_each_users_last_part(seed: int, test: float, validation: float) -> None:
    rows = some(seed)
    result = split(rows, DataConfig(test_fraction=test, validation_fraction=validation))
    rest, held = by_hand(rows.to_frame(), test)
    train, valid = by_hand(rest, validation)
    for part, expected in zip(parts_of(result), (train, valid, held), strict=True):
        assert rows_of(part) == set(zip(expected.user_id, expected.item_id, strict=True))


def test_ties_are_cut_by_item_where_nothing_fits_into_one_integer() -> None:
    far = 2**40
    rows = Interactions(
        np.repeat(np.array([5, far], dtype=np.int64), 4),
        np.array([far, 3, 2, 9, 1, far, 7, 8], dtype=np.int64),
        None,
        np.array([0, 0, 0, 4_000_000_000, 6, 6, 6, 6], dtype=np.int64),
    )
    result = split(rows, DataConfig(test_fraction=0.5, validation_fraction=0.5))
    assert rows_of(result.test) == {(5, far), (5, 9), (far, 8), (far, far)}
    assert rows_of(result.validation) == {(5, 3), (far, 7)}


def test_fractions_are_not_moved_by_floating_point() -> None:
    assert 0.28 * 25 > 7
    rows = Interactions(np.repeat([1, 2], 25), np.tile(np.arange(25), 2), None, np.tile(np.arange(25), 2))
    assert len(split(rows, DataConfig(test_fraction=0.28, validation_fraction=0.0)).test) == 14


def test_time_cuts_all_rows_at_once_and_the_validation_user_by_user() -> None:
    rows = some(3, times=10_000)
    result = split(rows, DataConfig(split="time"))
    rest = concatenate([result.train, result.validation])
    assert rest.timestamp is not None
    assert result.test.timestamp is not None
    assert rest.timestamp.max() <= result.test.timestamp.min()
    assert (len(rest), len(result.test)) == (400, 100)
    _, valid = by_hand(rest.to_frame(), 0.1)
    assert rows_of(result.validation) == set(zip(valid.user_id, valid.item_id, strict=True))


def test_time_breaks_ties_by_item_then_user() -> None:
    rows = Interactions(np.array([3, 2, 1, 1]), np.array([1, 2, 2, 1]), None, np.array([5, 5, 5, 5]))
    result = split(rows, DataConfig(split="time", test_fraction=0.25, validation_fraction=0.25))
    assert rows_of(result.test) == {(2, 2)}
    assert rows_of(result.validation) == {(1, 2)}


def test_leave_last_out_takes_one_row_of_each_user_that_has_two() -> None:
    rows = some(1)
    lonely = Interactions(np.array([999]), np.array([0]), np.ones(1, np.float32), np.array([7]))
    rows = Interactions(
        *(np.r_[getattr(rows, n), getattr(lonely, n)] for n in ("user_id", "item_id", "rating", "timestamp"))
    )
    result = split(rows, DataConfig(split="leave-last-out"))
    frame = rows.to_frame().sort_values(["timestamp", "item_id"])
    frame = frame[frame.user_id != 999]
    last = frame.groupby("user_id").tail(1)
    assert rows_of(result.test) == set(zip(last.user_id, last.item_id, strict=True))
    before = frame.drop(last.index).groupby("user_id").tail(1)
    assert rows_of(result.validation) == set(zip(before.user_id, before.item_id, strict=True))
    assert (999, 0) in rows_of(result.train)


def test_without_times_the_files_order_counts() -> None:
    rows = dataclasses.replace(some(2), timestamp=None)
    result = split(rows, DataConfig(split="leave-last-out"))
    last = rows.to_frame().groupby("user_id").tail(1)
    assert rows_of(result.test) == set(zip(last.user_id, last.item_id, strict=True))
    assert "file's order" in result.description
    assert "file's order" in split(rows, DataConfig()).description
    with pytest.raises(ConfigError, match="--timestamp-col NAME"):
        split(rows, DataConfig(split="time"))
    assert "at random" in split(rows, DataConfig(split="none")).description


def test_random_follows_the_seed_and_has_the_size() -> None:
    rows = some(4)
    one, two = (split(rows, DataConfig(split="random", data_seed=seed)) for seed in (1, 2))
    assert len(one.test) == len(two.test) == 100
    assert len(one.validation) == 40
    assert rows_of(one.test) != rows_of(two.test)


def test_none_has_no_test_and_cuts_the_validation_by_user_time() -> None:
    rows = some(5)
    result = split(rows, DataConfig(split="none"))
    assert len(result.test) == 0
    _, valid = by_hand(rows.to_frame(), 0.1)
    assert rows_of(result.validation) == set(zip(valid.user_id, valid.item_id, strict=True))


def tiny(rating: list[float]) -> Interactions:
    return Interactions(
        np.array([1, 1, 2, 2]), np.array([1, 2, 1, 2]), np.array(rating, np.float32), np.array([1, 2, 1, 2])
    )


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        (tiny([5, 1, 5, 1]), {}, "test cut .split=user-time. left no liked row"),
        (tiny([1, 5, 1, 5]), {}, "After the test cut .split=user-time. none of the 2 rows left to train on"),
        (tiny([5, 5, 5, 5]), {"test_fraction": 0.0}, "left the test empty"),
        (tiny([5, 5, 5, 5]).take(np.array([0, 2])), {}, "left the test empty"),
        (tiny([5, 5, 5, 5]).take(np.array([0])), {"split": "random"}, "After the test cut .* no rows are left"),
        (tiny([5, 5, 5, 5]).take(np.array([], dtype=int)), {"split": "none"}, "no interactions to split"),
        (tiny([1, 5, 1, 5]), {"split": "time", "test_fraction": 0.25, "validation_fraction": 0.5},
         "After the validation cut .user-time. none"),
    ],
)  # fmt: skip
def test_a_step_that_leaves_too_little_is_named(
    rows: Interactions, options: dict[str, object], words: str
) -> None:
    with pytest.raises(EmptyDataError, match=words):
        split(rows, DataConfig(**options))  # type: ignore[arg-type]


def test_the_description_counts_the_parts() -> None:
    result = split(some(0), DataConfig())
    sizes = [f"{len(part):,} " for part in parts_of(result)]
    assert all(size in result.description for size in sizes)
