"""Intervals by resampling users: users are the independent units, the rows of one user are not.

A resample is kept as counts, how often each user was drawn, so that sums over a resample are products with a
matrix and nothing is sorted or gathered again.
Source: Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapters 6 and 13 (percentile intervals).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from widedeep.errors import DataError

LEVEL = 0.95
CHUNK_ENTRIES = 2**22  # of float64: 32 MB held at once
ALWAYS_DRAWN = (
    25  # an item in the lists of more users than this is in every resample but for a chance of e^-25
)


@dataclass(frozen=True)
class Interval:
    """A figure and its 95% interval; all NaN where the figure does not apply."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float | None]:
        """JSON has no NaN and no infinity: None stands for them."""
        return {"value": _plain(self.value), "low": _plain(self.low), "high": _plain(self.high)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Interval:
        return cls(*(_number(values[name]) for name in ("value", "low", "high")))

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


NOT_APPLICABLE = Interval(math.nan, math.nan, math.nan)


def interval(value: float, draws: np.ndarray, *, centred: bool = False) -> Interval:
    """The percentile interval of a figure.

    draws    (samples,) the figure in each resample; NaN where it is not defined there
    centred  shift the interval by the draws' bias. Needed where resampling itself moves the figure: a
             resample has fewer distinct users, so it covers fewer items.
    """
    draws = draws[~np.isnan(draws)]
    if not len(draws) or math.isnan(value):
        return Interval(value, math.nan, math.nan)
    shift = value - draws.mean() if centred else 0.0
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) + shift
    return Interval(value, float(low), float(high))


def resample_counts(units: int, samples: int, seed: int, width: int = 0) -> Iterator[np.ndarray]:
    """How often each unit is drawn in each resample, some resamples at a time.

    width    values that the caller makes per resample, where that is more than the units
    Yields   (some, units) float64, until there were `samples` rows; each row sums to units
    """
    generator = np.random.default_rng(seed)
    chunk = max(1, CHUNK_ENTRIES // max(units, width, 1))
    for start in range(0, samples, chunk):
        rows = min(chunk, samples - start)
        drawn = generator.integers(units, size=(rows, units)) + np.arange(rows)[:, None] * units
        yield np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units).astype(np.float64)


def ratio_intervals(
    numerators: np.ndarray, denominators: np.ndarray, *, samples: int, seed: int
) -> list[Interval]:
    """Intervals of figures that are a sum over units divided by another sum over units.

    A mean over users is one with ones below; a mean over the rows of resampled users has row counts below.
    numerators, denominators  (units, figures) float
    Returns                   one interval a figure; NaN where the denominator is 0
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        values = numerators.sum(0) / denominators.sum(0)
        draws = [
            (counts @ numerators) / (counts @ denominators)
            for counts in resample_counts(len(numerators), samples, seed)
        ]
    stacked = np.concatenate([np.empty((0, len(values))), *draws])
    return [interval(float(value), stacked[:, figure]) for figure, value in enumerate(values)]


def coverage_interval(lists: np.ndarray, candidates: int, *, samples: int, seed: int) -> Interval:
    """Interval of the share of the candidates that is in anyone's list.

    lists  (users, k) int item indices, 0 for an empty place
    """
    user, place = np.nonzero(lists)
    items, item, holders = np.unique(lists[user, place], return_inverse=True, return_counts=True)
    rare = holders[item] <= ALWAYS_DRAWN
    order = np.argsort(item[rare], kind="stable")
    users_by_item = user[rare][order]
    starts = np.flatnonzero(np.diff(item[rare][order], prepend=-1))
    common = len(items) - len(starts)
    draws = [
        common + (np.add.reduceat(counts[:, users_by_item], starts, axis=1) > 0).sum(1)
        if len(starts)
        else np.full(len(counts), common)
        for counts in resample_counts(len(lists), samples, seed, width=len(users_by_item))
    ]
    covered = np.concatenate([np.empty(0), *draws])
    found = interval(len(items), covered, centred=True)
    return _clipped(Interval(found.value / candidates, found.low / candidates, found.high / candidates))


def auc_interval(
    score: np.ndarray, positive: np.ndarray, unit: np.ndarray, value: float, *, samples: int, seed: int
) -> Interval:
    """Interval of the area under the ROC curve with all rows of a unit drawn together.

    The rows are sorted once; a resample only weighs them, in whole numbers.
    score     (rows,) float
    positive  (rows,) bool
    unit      (rows,) int from 0 without gaps: the user of each row
    value     the area over all rows
    """
    order = np.argsort(score, kind="stable")
    score, positive, unit = score[order], positive[order], unit[order]
    lower, of_negatives, of_positives = score[~positive], unit[~positive], unit[positive]
    first = np.searchsorted(lower, score[positive], side="left")
    last = np.searchsorted(lower, score[positive], side="right")
    below = np.zeros(len(lower) + 1, dtype=np.int64)
    draws = []
    for counts in resample_counts(int(unit.max()) + 1, samples, seed):
        for drawn in counts.astype(np.int32):
            np.cumsum(drawn[of_negatives], out=below[1:])
            above = drawn[of_positives].astype(np.float64)
            pairs = above.sum() * below[-1]
            wins = above @ (below[first] + below[last]) / 2
            draws.append(wins / pairs if pairs else math.nan)
    return interval(value, np.array(draws))


def calibration_interval(
    gaps: np.ndarray, rows: np.ndarray, value: float, *, samples: int, seed: int
) -> Interval:
    """Interval of the expected calibration error, with the bins fixed.

    gaps   (units, bins) sum of (probability - positive) over the unit's rows in each bin
    rows   (units,) number of rows
    value  the error over all rows
    """
    draws = [
        np.abs(counts @ gaps).sum(1) / (counts @ rows) for counts in resample_counts(len(gaps), samples, seed)
    ]
    return _clipped(interval(value, np.concatenate([np.empty(0), *draws]), centred=True))


@dataclass(frozen=True)
class PairedDifference:
    """By how much one result is above another, over the same users.

    absolute            difference of the means
    relative            the same as a share of the reference's mean (0.05 = 5% better); NaN if that mean is 0
    probability_better  share of the resamples in which the difference is above zero, ties counting one half
    """

    absolute: Interval
    relative: Interval
    probability_better: float
    mean: float
    reference_mean: float
    users: int
    samples: int

    def to_dict(self) -> dict[str, Any]:
        return {
            "absolute": self.absolute.to_dict(),
            "relative": self.relative.to_dict(),
            "probability_better": _plain(self.probability_better),
            "mean": _plain(self.mean),
            "reference_mean": _plain(self.reference_mean),
            "users": self.users,
            "samples": self.samples,
        }


def paired_difference(
    result: pd.Series, reference: pd.Series, *, samples: int = 10_000, seed: int = 0
) -> PairedDifference:
    """Compare two results user by user.

    result, reference  one value per user, indexed by user, in any order
    Raises             DataError: not the same users, a user twice, no user, or NaN
    """
    for name, series in (("result", result), ("reference", reference)):
        if not len(series):
            raise DataError(f"The {name} has no users, so there is nothing to compare.")
        if series.index.has_duplicates:
            raise DataError(f"The {name} has a user twice: {series.index[series.index.duplicated()][0]!r}.")
        if series.isna().any():
            raise DataError(
                f"The {name} is NaN for {int(series.isna().sum())} users. Leave them out of both."
            )
    missing = len(reference.index.difference(result.index))
    extra = len(result.index.difference(reference.index))
    if missing or extra:
        raise DataError(
            f"The two results are not of the same users: {extra} only in the result, {missing} only in the "
            "reference. Evaluate both on the same split."
        )
    base = reference.to_numpy(float)
    pairs = np.stack([result.reindex(reference.index).to_numpy(float) - base, base], axis=1)
    gain, mean = pairs.mean(0).tolist()
    drawn = [counts @ pairs / len(pairs) for counts in resample_counts(len(pairs), samples, seed)]
    gains, means = np.concatenate([np.empty((0, 2)), *drawn]).T
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = gains / means
    return PairedDifference(
        absolute=interval(gain, gains),
        relative=interval(gain / mean if mean else math.nan, shares),
        probability_better=float((np.sign(gains).mean() + 1) / 2) if samples else math.nan,
        mean=mean + gain,
        reference_mean=mean,
        users=len(pairs),
        samples=samples,
    )


def _clipped(found: Interval) -> Interval:
    """Shares stay within 0 and 1, also after a shift."""
    return Interval(found.value, *np.clip([found.low, found.high], 0.0, 1.0).tolist())


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
