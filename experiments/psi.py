"""The population stability index: how far two distributions over the same bins are apart.

Sources: Siddiqi 2006, "Credit Risk Scorecards" (the index and its rule: below 0.1 no change, up to 0.25 some, above
a significant one); Yurdakul & Naranjo 2020, "Statistical properties of the population stability index", Journal of
Risk Model Validation 14(4) (what chance alone gives)
"""

from __future__ import annotations

import math

import numpy as np

SOME, SIGNIFICANT = 0.1, 0.25  # Siddiqi's rule
EMPTY = 0.5  # what an empty bin counts as: half an observation
BIN_SHARE = 0.05  # of the reference, in every bin at least
Z99 = 2.326  # of the normal distribution, 1% lies above


def psi(reference: np.ndarray, current: np.ndarray) -> float:
    """The sum of (q - p) ln(q / p) over the bins' shares p and q.

    reference, current  (bins,) counts

    Bins that are empty in both are left out; one that is empty in one counts as half an observation there.
    """
    there = (reference > 0) | (current > 0)
    before, now = (np.maximum(counts[there].astype(float), EMPTY) for counts in (reference, current))
    before, now = before / before.sum(), now / now.sum()
    return float(((now - before) * np.log(now / before)).sum())


def by_chance(bins: int, reference: float, current: float) -> tuple[float, float]:
    """The PSI of two samples of one distribution: what it is on average, and what 1% of them exceed.

    reference, current  independent observations in each

    It is about (1/n + 1/m) times chi-square with bins - 1 degrees of freedom (Yurdakul & Naranjo); the quantile is by
    Wilson & Hilferty 1931.
    """
    freedom = bins - 1
    if freedom < 1:
        return 0.0, 0.0
    mean = freedom * (1 / reference + 1 / current)
    spread = 2 / (9 * freedom)
    return mean, mean * (1 - spread + Z99 * math.sqrt(spread)) ** 3


def together(counts: np.ndarray) -> np.ndarray:
    """(n,) the bin of each of n neighbouring values: as many bins as there can be with BIN_SHARE in each."""
    found = np.zeros(len(counts), dtype=np.int64)
    needed, gathered, place, left = BIN_SHARE * counts.sum(), 0.0, 0, float(counts.sum())
    for number, count in enumerate(counts.tolist()):
        found[number] = place
        gathered, left = gathered + count, left - count
        if gathered >= needed and left >= needed:
            gathered, place = 0, place + 1
    return found
