from __future__ import annotations

import torch

from widedeep.histories import Encoded, Histories, concatenate


def encoded() -> Encoded:
    """Two users, one unknown user, one unknown item."""
    return Encoded(
        user_index=torch.tensor([2, 1, 2, 0, 2, 1], dtype=torch.int32),
        item_index=torch.tensor([5, 3, 4, 1, 0, 2], dtype=torch.int32),
        rating=torch.tensor([5.0, 1.0, 4.0, 5.0, 5.0, float("nan")]),
        liked=torch.tensor([True, False, True, True, True, True]),
        timestamp=torch.tensor([30, 20, 10, 5, 5, 20]),
    )


def lists(histories: Histories) -> list[list[int]]:
    return [histories.take(torch.tensor([row])).item_index.tolist() for row in range(len(histories))]


def test_from_encoded_orders_by_time_then_item_and_leaves_the_unknown_out() -> None:
    histories = Histories.from_encoded(encoded(), 4)
    assert lists(histories) == [[], [2, 3], [4, 5], []]
    assert histories.liked.tolist() == [True, False, True, True]
    assert histories.lengths.tolist() == [0, 2, 2, 0]
    assert histories.row_index.tolist() == [1, 1, 2, 2]


def test_take_repeats_and_reorders() -> None:
    histories = Histories.from_encoded(encoded(), 4).take(torch.tensor([2, 0, 1, 2], dtype=torch.int32))
    assert lists(histories) == [[4, 5], [], [2, 3], [4, 5]]
    assert histories.rating[:2].tolist() == [4.0, 5.0]


def test_latest_keeps_the_last_entries() -> None:
    histories = Histories.from_encoded(encoded(), 4)
    assert lists(histories.latest(1)) == [[], [3], [5], []]
    assert histories.latest(2) is histories


def test_only_liked_and_multi_hot() -> None:
    histories = Histories.from_encoded(encoded(), 4).only_liked()
    assert lists(histories) == [[], [2], [4, 5], []]
    dense = histories.multi_hot(6)
    assert dense.nonzero().tolist() == [[1, 2], [2, 4], [2, 5]]


def test_lists_and_concatenate() -> None:
    first = Histories.from_lists([[1, 2], []], [[True, False], []], [[5.0, 1.0], []])
    both = Histories.concatenate([first, Histories.from_encoded(encoded(), 4)])
    assert lists(both) == [[1, 2], [], [], [2, 3], [4, 5], []]
    assert len(Histories.from_lists([], [], [])) == 0


def test_encoded_concatenate_and_take() -> None:
    rows = concatenate([encoded(), encoded().take(torch.tensor([0]))])
    assert len(rows) == 7
    assert rows.item_index[-1] == 5
