from __future__ import annotations

import torch

from widedeep.histories import Encoded, Histories
from widedeep.sampling import Negatives, PairBatches, PositiveBatches, UserBatches
from widedeep.statistics import Baselines, genre_shares

CPU = torch.device("cpu")


def histories() -> Histories:
    rows: list[list[int]] = [[], list(range(1, 21)), [3], [7, 2, 9, 4]]
    return Histories.from_lists(rows, [[True] * len(r) for r in rows], [[5.0] * len(r) for r in rows])


def encoded(rows: int = 50) -> Encoded:
    torch.manual_seed(0)
    pairs = torch.randperm(10 * 8)[:rows]
    return Encoded(
        (pairs // 8 + 1).int(),
        (pairs % 8 + 1).int(),
        torch.full((rows,), float("nan")),
        torch.ones(rows, dtype=torch.bool),
        torch.arange(rows),
    )


def test_users_histories_are_cut_in_two_and_nothing_is_lost() -> None:
    whole = histories()
    for ordered in (True, False):
        for _ in range(20):
            batches = list(UserBatches(whole, 2, True, ordered, CPU))
            assert sorted(int(user) for batch in batches for user in batch.user_index) == [1, 2, 3]
            for batch in batches:
                for row, user in enumerate(batch.user_index):
                    one = torch.tensor([row])
                    read = batch.visible.take(one).item_index.tolist()
                    found = batch.hidden.take(one).item_index.tolist()
                    own = whole.take(user[None]).item_index.tolist()
                    assert sorted(read + found) == sorted(own)
                    assert found
                    if ordered:
                        assert read + found == own


def test_what_was_not_liked_is_read_and_never_to_be_found() -> None:
    own, liked = list(range(1, 13)), [place % 3 == 0 for place in range(12)]
    whole = Histories.from_lists([[], own, [3, 4]], [[], liked, [False, False]], [[], [5.0] * 12, [1.0, 1.0]])
    read, found = set(), set()
    for _ in range(50):
        for batch in UserBatches(whole, 2, True, False, CPU):
            assert batch.user_index.tolist() == [1]  # the other has nothing to be found
            read |= set(batch.visible.item_index.tolist())
            found |= set(batch.hidden.item_index.tolist())
    assert read == set(own)
    assert found == {1, 4, 7, 10}
    assert {user for b in UserBatches(whole, 2, False, False, CPU) for user in b.user_index.tolist()} == {
        1,
        2,
    }


def test_the_cut_moves() -> None:
    lengths = set()
    for _ in range(50):
        for batch in UserBatches(histories(), 4, True, True, CPU):
            lengths.add(int(batch.visible.lengths[batch.user_index == 1]))
    assert min(lengths) <= 3
    assert max(lengths) >= 17


def test_negatives_are_never_what_a_user_has() -> None:
    rows = encoded()
    taken = {(int(u), int(i)) for u, i in zip(rows.user_index, rows.item_index, strict=True)}
    users, items = Negatives(rows, 8, 20).draw(rows.user_index)
    drawn = {(int(u), int(i)) for u, i in zip(users, items, strict=True)}
    assert not drawn & taken
    everything = {(u, i) for u in range(1, 11) for i in range(1, 9)}
    assert drawn == {pair for pair in everything - taken if pair[0] in set(rows.user_index.tolist())}


def test_pair_batches_hold_every_row_once() -> None:
    rows = encoded()
    shares = genre_shares(torch.ones(9, 2, dtype=torch.bool))
    batches = PairBatches(rows, shares, Baselines.of(rows, shares), 16, CPU)
    seen = [
        (int(u), int(i)) for batch in batches for u, i in zip(batch.user_index, batch.item_index, strict=True)
    ]
    assert len(batches) == 4
    assert sorted(seen) == sorted(zip(rows.user_index.tolist(), rows.item_index.tolist(), strict=True))


def test_positive_batches_label_what_the_user_has() -> None:
    rows = encoded()
    taken = {(int(u), int(i)) for u, i in zip(rows.user_index, rows.item_index, strict=True)}
    seen: list[torch.Tensor] = []

    def statistics(users: torch.Tensor, items: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        seen.append(own)
        return torch.zeros(len(users), 1) + items[:, None]

    batches = PositiveBatches(rows, statistics, Negatives(rows, 8, 3), 16, CPU)
    for batch in batches:
        for user, item, liked in zip(batch.user_index, batch.item_index, batch.liked, strict=True):
            assert bool(liked) == ((int(user), int(item)) in taken)
    assert sum(int(own.sum()) for own in seen) == len(rows)
