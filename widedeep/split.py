"""Cut interactions into train, validation and test.

Every row goes to exactly one part and keeps its place in the file's order. The cut depends on the rows and
the settings alone; of rows with equal times the one with the smaller item id is the earlier.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from widedeep import ordering
from widedeep.config import DataConfig
from widedeep.errors import ConfigError, EmptyDataError
from widedeep.interactions import Interactions, id_codes

Rule = Callable[[np.ndarray], np.ndarray]  # rows of each user -> how many of them to withhold


@dataclass(frozen=True)
class Split:
    """The three parts, and in words how they were made."""

    train: Interactions
    validation: Interactions
    test: Interactions
    method: str
    description: str


def split(interactions: Interactions, config: DataConfig) -> Split:
    """Cut by config.split, the test first, then the validation out of what is left.

    user-time       of each user's n rows by (time, item) the last ceil(fraction * n), one stays at least
    time            the last ceil(fraction * rows) of all rows by (time, item, user)
    leave-last-out  each user's last row, where the user has two
    random          ceil(fraction * rows) of all rows, drawn by config.data_seed
    none            no test; the validation is cut by user-time, or at random where there are no times

    The validation is cut out of the rest in the same way, but for `time`, where it is cut by user-time: a second
    cut through all rows would leave hardly any user with a history to choose by.
    Raises  EmptyDataError: a step left no training rows, no liked ones, or a test without liked rows;
            ConfigError: time without timestamps
    """
    if not len(interactions):
        raise EmptyDataError("There are no interactions to split.")
    timed = interactions.timestamp is not None
    method = config.split
    if method == "time" and not timed:
        raise ConfigError(
            "split=time needs a timestamp for every interaction and the data has none. Name the column with "
            "--timestamp-col NAME, or use --split user-time (the file's order), leave-last-out or random."
        )
    inner = _validation_method(method, timed)

    in_test, in_validation = _withheld(interactions, method, inner, config)
    test = interactions.take(in_test)
    if method != "none":
        _check_left(interactions, ~in_test, f"the test cut (split={method})", config)
        _check_test(test, method, config)
    in_train = ~(in_test | in_validation)
    _check_left(interactions, in_train, f"the validation cut ({inner})", config)
    train, validation = interactions.take(in_train), interactions.take(in_validation)
    description = _describe(method, inner, timed, (train, validation, test), config)
    return Split(train, validation, test, method, description)


def _withheld(
    rows: Interactions, method: str, inner: str, config: DataConfig
) -> tuple[np.ndarray, np.ndarray]:
    """(rows,) bool twice: the test by `method`, and of what it leaves the validation by `inner`."""
    if method == inner and method in _PER_USER:  # one sort for both
        rule = _PER_USER[method]
        test, validation = _last_of_users(
            rows,
            [
                lambda sizes: rule(sizes, config.test_fraction),
                lambda sizes: rule(sizes, config.validation_fraction),
            ],
        )
        return test, validation
    test = np.zeros(len(rows), dtype=bool)
    if method != "none":
        test = _cut(rows, method, config.test_fraction, config.data_seed)
    left = np.flatnonzero(~test)
    chosen = _cut(rows.take(left), inner, config.validation_fraction, config.data_seed + 1)
    return test, _mask(len(rows), left[chosen])


def _cut(rows: Interactions, method: str, fraction: float, seed: int) -> np.ndarray:
    if method in _PER_USER:
        return _last_of_users(rows, [lambda sizes: _PER_USER[method](sizes, fraction)])[0]
    return _time(rows, fraction) if method == "time" else _random(rows, fraction, seed)


def _validation_method(method: str, timed: bool) -> str:
    if method == "none":
        return "user-time" if timed else "random"
    return "user-time" if method == "time" else method


def _last_of_users(rows: Interactions, rules: Sequence[Rule]) -> list[np.ndarray]:
    """One mask (rows,) bool for each rule: the last rule(n) of each user's n rows that the rules before it left.

    One row at least stays in the end.
    """
    users, user_count = id_codes(rows.user_id)
    if user_count > 4 * len(rows):  # ids with wide gaps
        users, user_count = np.unique(users, return_inverse=True)[1], len(rows)
    order, sizes = ordering.by_user(users, user_count, rows.timestamp, id_codes(rows.item_id)[0])
    ends = np.cumsum(sizes)
    masks = []
    for rule in rules:
        taken = np.minimum(rule(sizes), np.maximum(sizes - 1, 0))
        places = np.repeat(ends - np.cumsum(taken), taken) + np.arange(int(taken.sum()))
        masks.append(_mask(len(rows), order[places]))
        ends, sizes = ends - taken, sizes - taken
    return masks


def _time(rows: Interactions, fraction: float) -> np.ndarray:
    assert rows.timestamp is not None  # split() has refused it before
    columns = (rows.timestamp, rows.item_id, rows.user_id)
    order = ordering.stable_order(*(id_codes(column)[0] for column in columns))
    return _mask(len(rows), order[len(rows) - int(_share(np.array(len(rows)), fraction)) :])


def _random(rows: Interactions, fraction: float, seed: int) -> np.ndarray:
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(rows))
    return _mask(len(rows), order[: int(_share(np.array(len(rows)), fraction))])


def _share(sizes: np.ndarray, fraction: float) -> np.ndarray:
    """ceil(fraction * sizes); 0.28 * 25 is 7 although its floating point product is a hair above."""
    return np.ceil(sizes * fraction - 1e-9).astype(np.int64)


_PER_USER: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "user-time": _share,
    "leave-last-out": lambda sizes, _fraction: np.minimum(sizes, 1),
}


def _mask(size: int, rows: np.ndarray) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    mask[rows] = True
    return mask


def _check_left(rows: Interactions, left: np.ndarray, step: str, config: DataConfig) -> None:
    if not left.any():
        raise EmptyDataError(
            f"After {step} no rows are left to train on. Lower the fractions, or use more data."
        )
    if not (rows.liked(config.like_threshold) & left).any():
        raise EmptyDataError(
            f"After {step} none of the {int(left.sum()):,} rows left to train on is liked (rating >= "
            f"{config.like_threshold:g}). Lower --like-threshold, or use more data."
        )


def _check_test(test: Interactions, method: str, config: DataConfig) -> None:
    if not len(test):
        raise EmptyDataError(
            f"The test cut (split={method}, test_fraction={config.test_fraction:g}) left the test empty: "
            "every user has a single row, or the fraction is 0. Use --split random, more data, or --split none."
        )
    if not test.liked(config.like_threshold).any():
        raise EmptyDataError(
            f"The test cut (split={method}) left no liked row (rating >= {config.like_threshold:g}) among "
            f"the test's {len(test):,}: nothing to judge by. Lower --like-threshold, or raise --test-fraction."
        )


def _describe(
    method: str,
    inner: str,
    timed: bool,
    parts: tuple[Interactions, Interactions, Interactions],
    config: DataConfig,
) -> str:
    order = "(time, item)" if timed else "the file's order, as there are no times"
    test, validation = f"{config.test_fraction:.0%}", f"{config.validation_fraction:.0%}"
    how = {
        "user-time": f"of each user's rows by {order}, the last {test} are the test, and the last "
        f"{validation} of the rest the validation",
        "time": f"of all rows by (time, item, user), the last {test} are the test, and of each user's other rows "
        f"the last {validation} the validation",
        "leave-last-out": f"each user's last row by {order} is the test, and the last but one the validation",
        "random": f"{test} of all rows, at random (seed {config.data_seed}), are the test, and {validation} "
        "of the rest the validation",
        "none": f"no test; the validation is {validation} of "
        + ("each user's rows, the last by (time, item)" if inner == "user-time" else "all rows, at random"),
    }[method]
    train, valid, held = (f"{len(part):,}" for part in parts)
    return f"{method}: {how}: {train} rows to train, {valid} to validate, {held} to test"
