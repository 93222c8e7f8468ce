"""What becomes of the like-probability where it is cut into yes and no, at every threshold at once.

The rows are counted by their probability, so what is kept does not grow with their number.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from widedeep.metrics import calibration_bin

BINS = 1000
BLOCK_ROWS = 2**20  # counted at once


@dataclass(frozen=True)
class Thresholds:
    """Test rows by probability, in bins of equal width.

    positive, negative  (bins,) float64 rows that were liked, and that were not. Bin b is b / bins <= probability
                        < (b + 1) / bins, the last one takes 1 as well.

    At threshold number t, which is t / bins, a like is predicted where the probability is t / bins or more.
    """

    positive: Tensor
    negative: Tensor

    @classmethod
    def of(cls, probability: Tensor, positive: Tensor, bins: int = BINS) -> Thresholds:
        """probability  (rows,) float in [0, 1];  positive  (rows,) bool"""
        counts = torch.zeros(2 * bins, dtype=torch.int64)
        for start in range(0, len(probability), BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            code = calibration_bin(probability[rows], bins) + bins * positive[rows].long()
            counts += torch.bincount(code, minlength=2 * bins)
        return cls(counts[bins:].double(), counts[:bins].double())

    @classmethod
    def from_curve(cls, curve: dict[str, list[float | None]]) -> Thresholds:
        """From what `to_curve` gave."""
        counts = [[value or 0.0 for value in curve[name]] for name in ("liked", "not_liked")]
        return cls(*torch.tensor(counts, dtype=torch.float64))

    def to_curve(self) -> dict[str, list[float | None]]:
        """For `Report.curves`."""
        return {"liked": _whole(self.positive), "not_liked": _whole(self.negative)}

    @property
    def rows(self) -> float:
        return float(self.positive.sum() + self.negative.sum())

    @property
    def base_rate(self) -> float:
        """Share of the rows that are liked: the precision of predicting a like for all."""
        return float(self.positive.sum()) / self.rows

    @property
    def threshold(self) -> Tensor:
        """(bins,) float64"""
        return torch.arange(len(self.positive), dtype=torch.float64) / len(self.positive)

    @property
    def true_positive(self) -> Tensor:
        """(bins,) liked rows for which a like is predicted, at each threshold."""
        return _from_here_on(self.positive)

    @property
    def false_positive(self) -> Tensor:
        """(bins,) rows that were not liked and for which a like is predicted, at each threshold."""
        return _from_here_on(self.negative)

    @property
    def precision(self) -> Tensor:
        """(bins,) share of the predicted likes that are likes; NaN where none is predicted."""
        return self.true_positive / (self.true_positive + self.false_positive)

    @property
    def recall(self) -> Tensor:
        """(bins,) share of the likes that are predicted; NaN without likes."""
        return self.true_positive / self.positive.sum()

    @property
    def f1(self) -> Tensor:
        """(bins,) harmonic mean of precision and recall; 0 where no like is predicted."""
        predicted = self.true_positive + self.false_positive
        return 2 * self.true_positive / (predicted + self.positive.sum())

    @property
    def predicted_share(self) -> Tensor:
        """(bins,) share of the rows for which a like is predicted."""
        return (self.true_positive + self.false_positive) / self.rows

    @property
    def average_precision(self) -> float:
        """Mean precision over the likes, from the most probable on: the area under precision and recall.

        Rows of one bin count as equally probable. NaN without likes.
        Source  Manning, Raghavan & Schütze 2008, Introduction to Information Retrieval, section 8.4
        """
        gained = self.positive / self.positive.sum()
        return float((gained * self.precision.nan_to_num(0.0)).sum())


def _from_here_on(counts: Tensor) -> Tensor:
    """(bins,) the sum of each bin and those above."""
    return counts.flip(0).cumsum(0).flip(0)


def _whole(counts: Tensor) -> list[float | None]:
    return [int(count) for count in counts.tolist()]
