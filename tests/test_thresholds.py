"""Precision, recall and the confusion at every threshold, against scikit-learn and by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, confusion_matrix, f1_score, precision_score, recall_score

from widedeep.thresholds import Thresholds


def _rows(rows: int = 3000, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities with three decimals, which bins tell apart exactly, and what came of them."""
    generator = np.random.default_rng(seed)
    probability = generator.integers(0, 1001, rows) / 1000
    liked = generator.random(rows) < 0.2 + 0.5 * probability
    return torch.from_numpy(probability), torch.from_numpy(liked)


@pytest.mark.parametrize("place", [0, 250, 500, 900])
def test_at_a_threshold_they_are_those_of_scikit_learn(place: int) -> None:
    probability, liked = _rows()
    found = Thresholds.of(probability, liked)
    predicted = (probability >= place / 1000).numpy()
    (_, false_positive), (_, true_positive) = confusion_matrix(liked, predicted)
    assert float(found.threshold[place]) == place / 1000
    assert int(found.true_positive[place]) == true_positive
    assert int(found.false_positive[place]) == false_positive
    assert float(found.precision[place]) == pytest.approx(precision_score(liked, predicted))
    assert float(found.recall[place]) == pytest.approx(recall_score(liked, predicted))
    assert float(found.f1[place]) == pytest.approx(f1_score(liked, predicted))
    assert float(found.predicted_share[place]) == pytest.approx(predicted.mean())


def test_the_average_precision_is_that_of_scikit_learn() -> None:
    probability, liked = _rows()
    binned = np.minimum(probability.numpy(), 0.999)  # the last bin takes 1 as well
    found = Thresholds.of(probability, liked)
    assert found.average_precision == pytest.approx(average_precision_score(liked, binned))
    assert found.base_rate == pytest.approx(float(liked.double().mean()))


def test_a_case_by_hand() -> None:
    """Liked at 0.9 and 0.5, not liked at 0.7 and 0.1: the precision at the likes is 1 and 2/3."""
    found = Thresholds.of(torch.tensor([0.9, 0.5, 0.7, 0.1]), torch.tensor([True, True, False, False]))
    assert found.average_precision == pytest.approx((1 + 2 / 3) / 2)
    assert found.base_rate == 0.5
    assert (float(found.true_positive[600]), float(found.false_positive[600])) == (1, 1)
    assert float(found.f1[950]) == 0
    assert math.isnan(float(found.precision[950]))


def test_it_does_not_matter_how_many_rows_are_counted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    probability, liked = _rows(100)
    at_once = Thresholds.of(probability, liked)
    monkeypatch.setattr("widedeep.thresholds.BLOCK_ROWS", 7)
    in_blocks = Thresholds.of(probability, liked)
    assert torch.equal(at_once.positive, in_blocks.positive)
    assert torch.equal(at_once.negative, in_blocks.negative)
    assert at_once.rows == 100


def test_they_come_back_from_json() -> None:
    found = Thresholds.of(*_rows())
    again = Thresholds.from_curve(json.loads(json.dumps(found.to_curve())))
    assert torch.equal(again.positive, found.positive)
    assert torch.equal(again.negative, found.negative)
