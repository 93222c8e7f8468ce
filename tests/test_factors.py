"""The low-rank part; that alternating least squares is what it does is tested with the iALS baseline."""

from __future__ import annotations

import pytest
import torch

from widedeep.factors import FactorSettings, ItemFactors
from widedeep.histories import Histories

SETTINGS = FactorSettings(dim=4, unobserved_weight=0.2, l2=0.05, epochs=3)
ROWS = ([1, 2, 3], [2, 3], [4, 5, 6], [5, 6, 1], [1, 3])
ITEM_COUNT = 7


def histories(*rows: list[int]) -> Histories:
    return Histories.from_lists(rows, [[True] * len(row) for row in rows], [[5.0] * len(row) for row in rows])


@pytest.fixture
def factors() -> ItemFactors:
    return ItemFactors.fit(histories(*ROWS), ITEM_COUNT, SETTINGS)


def test_entries_count_by_their_weights(factors: ItemFactors) -> None:
    """The user's vector is the weighted least squares solution, every pair written out."""
    weights = torch.tensor([0.5, 1.0, 3.0])
    found = factors.scores(histories([1, 4, 6]), weights)
    errors = torch.zeros(ITEM_COUNT, dtype=torch.float64)
    errors[[1, 4, 6]] = (weights / weights.mean()).double()
    items = factors.vectors.double()
    there = (items != 0).any(1)
    unobserved, l2, exponent = factors.settings.tolist()
    ridge = l2 * (3 + unobserved * int(there.sum())) ** exponent
    left = items.T @ ((errors + unobserved * there)[:, None] * items) + ridge * torch.eye(SETTINGS.dim)
    expected = items @ torch.linalg.solve(left, items.T @ errors)
    assert torch.allclose(found[0].double(), expected, atol=1e-5)


def test_equal_weights_are_no_weights(factors: ItemFactors) -> None:
    rows = histories(*ROWS)
    plain = factors.scores(rows)
    assert torch.allclose(factors.scores(rows, torch.full((13,), 7.0)), plain, atol=1e-6)
    assert not torch.allclose(factors.scores(rows, torch.arange(1.0, 14.0)), plain, atol=1e-3)


def test_an_empty_history_and_an_item_that_nobody_has_score_zero(factors: ItemFactors) -> None:
    scores = factors.scores(histories([1, 2], []))
    assert scores[1].abs().max() == 0
    assert scores[:, 0].abs().max() == 0
    assert scores[0].abs().max() > 0.1


def test_a_state_brings_its_own_dimension(factors: ItemFactors) -> None:
    other = ItemFactors(ITEM_COUNT)
    other.load_state_dict(factors.state_dict())
    rows = histories(*ROWS)
    assert torch.equal(other.scores(rows), factors.scores(rows))


def test_same_seed_same_vectors(factors: ItemFactors) -> None:
    again = ItemFactors.fit(histories(*ROWS), ITEM_COUNT, SETTINGS)
    other = ItemFactors.fit(histories(*ROWS), ITEM_COUNT, SETTINGS, seed=1)
    assert torch.equal(again.vectors, factors.vectors)
    assert not torch.equal(other.vectors, factors.vectors)
