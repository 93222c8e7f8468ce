from __future__ import annotations

from pathlib import Path

import pytest
import torch

from widedeep import crossed as crossed_module
from widedeep import wide as wide_module
from widedeep.histories import Histories
from widedeep.wide import ItemWeights


def random_histories(users: int, items: int, share: float, seed: int = 0) -> tuple[Histories, torch.Tensor]:
    """Histories and the same as a dense matrix; column 0 and one more column are empty."""
    torch.manual_seed(seed)
    dense = torch.rand(users, items) < share
    dense[:, 0] = dense[:, items // 2] = False
    rows = [row.nonzero().squeeze(1).tolist() for row in dense]
    histories = Histories.from_lists(
        rows, [[True] * len(row) for row in rows], [[5.0] * len(row) for row in rows]
    )
    return histories, dense.double()


def closed_form(dense: torch.Tensor, l2: float, dropout: float, exponent: float) -> torch.Tensor:
    """The definition, written out with an inverse in double precision."""
    weight = dense.sum(1).clamp(min=1) ** -exponent
    gram = dense.T @ (weight[:, None] * dense)
    noisy = gram + torch.diag(l2 + dropout / (1 - dropout) * gram.diagonal())
    inverse = torch.linalg.inv(noisy)
    return (-inverse / inverse.diagonal()).fill_diagonal_(0)


@pytest.mark.parametrize(("users", "items"), [(200, 30), (25, 60)])
@pytest.mark.parametrize(("dropout", "exponent"), [(0.0, 0.0), (0.3, 0.4)])
def test_scores_are_those_of_the_definition(users: int, items: int, dropout: float, exponent: float) -> None:
    histories, dense = random_histories(users, items, 0.2)
    fitted = ItemWeights.fit(histories, items, 5.0, dropout, exponent)
    assert fitted.is_product == (users < items)
    expected = dense @ closed_form(dense, 5.0, dropout, exponent)
    torch.testing.assert_close(fitted.scores(histories).double(), expected, atol=2e-5, rtol=1e-4)


def test_entries_can_be_weighted() -> None:
    histories, dense = random_histories(50, 20, 0.3)
    fitted = ItemWeights.fit(histories, 20, 5.0)
    torch.testing.assert_close(
        fitted.scores(histories, torch.full((len(histories.item_index),), 0.5)), fitted.scores(histories) / 2
    )
    assert dense.any()


@pytest.mark.parametrize(("users", "items"), [(300, 40), (20, 60)])
def test_many_histories_score_like_each_alone(
    users: int, items: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In tiles of columns, the last one narrower, an item without a weight in between."""
    monkeypatch.setattr(wide_module, "TILE", 7)
    histories, _ = random_histories(users, items, 0.3)
    fitted = ItemWeights.fit(histories, items, 5.0)
    assert fitted.is_product == (users < items)
    values = torch.linspace(0.5, 2.0, len(histories.item_index))
    together = fitted.scores(histories, values)
    for row in range(users):
        one = histories.take(torch.tensor([row]))
        entries = slice(int(histories.offsets[row]), int(histories.offsets[row + 1]))
        torch.testing.assert_close(fitted.scores(one, values[entries])[0], together[row])
    assert not together[:, [0, items // 2]].any()


@pytest.mark.parametrize("items", [5, 40])
def test_rows_of_the_gram_matrix(items: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crossed_module, "TILE", 7)
    histories, dense = random_histories(60, items, 0.3)
    weight = torch.rand(60)
    found = list(crossed_module.gram_rows(histories, items, weight))
    assert [start for start, _ in found] == list(range(0, items, 7))
    expected = dense.T @ (weight.double()[:, None] * dense)
    torch.testing.assert_close(
        torch.cat([rows for _, rows in found]).double(), expected, atol=1e-5, rtol=1e-5
    )


def test_other_weights_are_tiled_anew() -> None:
    histories, _ = random_histories(300, 40, 0.3)
    one, other = ItemWeights.fit(histories, 40, 5.0), ItemWeights.fit(histories, 40, 50.0)
    expected = other.scores(histories)
    assert not torch.equal(one.scores(histories), expected)
    one.load_state_dict(other.state_dict())
    assert torch.equal(one.scores(histories), expected)


@pytest.mark.parametrize("users", [200, 10])
def test_survives_a_state_dict(users: int) -> None:
    histories, _ = random_histories(users, 30, 0.2)
    fitted = ItemWeights.fit(histories, 30, 5.0)
    restored = ItemWeights(30)
    restored.load_state_dict(fitted.state_dict())
    assert torch.equal(restored.scores(histories), fitted.scores(histories))


@pytest.mark.parametrize("users", [200, 6])
def test_above_the_limit_the_most_frequent_items_keep_their_largest_weights(
    monkeypatch: pytest.MonkeyPatch, users: int
) -> None:
    histories, dense = random_histories(users, 30, 0.2)
    monkeypatch.setattr(crossed_module, "ITEM_LIMIT", 8)
    monkeypatch.setattr(wide_module, "NEIGHBOURS", 8)
    whole = ItemWeights.fit(histories, 30, 5.0)
    counts = dense.sum(0)
    assert len(whole.items) == 8
    assert counts[whole.items].min() >= counts.sort(descending=True).values[7]
    assert whole.is_sparse
    assert torch.bincount(whole.candidates).tolist() == [8] * 8
    expected = torch.zeros(users, 30, dtype=torch.float64)
    expected[:, whole.items] = dense[:, whole.items] @ closed_form(dense[:, whole.items], 5.0, 0.0, 0.0)
    torch.testing.assert_close(whole.scores(histories).double(), expected, atol=2e-5, rtol=1e-4)

    monkeypatch.setattr(wide_module, "NEIGHBOURS", 3)
    pruned = ItemWeights.fit(histories, 30, 5.0)
    assert torch.bincount(pruned.candidates).tolist() == [3] * 8
    crosses = closed_form(dense[:, whole.items], 5.0, 0.0, 0.0)
    smallest_kept = crosses.abs().sort(0, descending=True).values[2]
    expected[:, whole.items] = dense[:, whole.items] @ torch.where(
        crosses.abs() >= smallest_kept - 1e-9, crosses, torch.zeros_like(crosses)
    )
    torch.testing.assert_close(pruned.scores(histories).double(), expected, atol=2e-5, rtol=1e-4)
    restored = ItemWeights(30)
    restored.load_state_dict(pruned.state_dict())
    assert torch.equal(restored.scores(histories), pruned.scores(histories))
    one = histories.take(torch.tensor([0]))
    parts = pruned.contributions(one, torch.arange(30))
    torch.testing.assert_close(parts.sum(0), pruned.scores(one)[0], atol=1e-5, rtol=1e-5)
    twice = torch.arange(30).repeat(2)
    assert torch.equal(pruned.contributions(one, twice), parts.repeat(1, 2))
    values = torch.linspace(0.5, 2.0, len(one.item_index))
    weighted = pruned.contributions(one, torch.arange(30), values)
    torch.testing.assert_close(weighted.sum(0), pruned.scores(one, values)[0], atol=1e-5, rtol=1e-5)
    assert torch.equal(pruned.scores(one)[0], pruned.scores(histories)[0])  # alone as among others


def test_nothing_in_the_histories_gives_zeros() -> None:
    empty = Histories.from_lists([[], []], [[], []], [[], []])
    assert ItemWeights.fit(empty, 5, 1.0).scores(empty).tolist() == [[0.0] * 5] * 2


def test_an_items_crosses_lie_in_one_piece(tmp_path: Path) -> None:
    """Read by columns, a history's sums take many times as long."""
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randperm(30, generator=generator)[:8].tolist() for _ in range(60)]
    likes = [[True] * 8 for _ in rows]
    histories = Histories.from_lists(rows, likes, [[5.0] * 8 for _ in rows])
    wide = ItemWeights.fit(histories, 30, 5.0)
    assert not wide.is_product
    assert wide.weights.is_contiguous()
    wide.weights = wide.weights.T.contiguous().T
    torch.save(wide.state_dict(), tmp_path / "wide.pt")
    again = ItemWeights(30)
    again.load_state_dict(torch.load(tmp_path / "wide.pt", weights_only=True))
    assert again.weights.is_contiguous()
    assert torch.equal(again.weights, wide.weights)


def test_the_factor_of_the_product_form_lies_by_columns(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randperm(30, generator=generator)[:8].tolist() for _ in range(20)]
    histories = Histories.from_lists(rows, [[True] * 8 for _ in rows], [[5.0] * 8 for _ in rows])
    wide = ItemWeights.fit(histories, 30, 5.0)
    assert wide.is_product
    assert wide.weights.T.is_contiguous()
    before, wide.weights = wide.weights, wide.weights.contiguous()
    torch.save(wide.state_dict(), tmp_path / "wide.pt")
    again = ItemWeights(30)
    again.load_state_dict(torch.load(tmp_path / "wide.pt", weights_only=True))
    assert again.weights.T.is_contiguous()
    assert torch.equal(again.weights, before)
    assert torch.allclose(again.scores(histories), wide.scores(histories), rtol=1e-5, atol=1e-7)
