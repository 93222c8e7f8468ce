from __future__ import annotations

import torch

from widedeep.histories import Encoded
from widedeep.trend import choose_half_life, popularity

ITEMS = 60


def drifting(shift: bool, users: int = 300) -> Encoded:
    """Each user likes eight items in an hour; which are popular moves on with time, or does not."""
    torch.manual_seed(0)
    start = torch.arange(users) * 10
    centre = start * (ITEMS - 12) // int(start.max()) if shift else torch.zeros(users, dtype=torch.int64)
    item = torch.stack([torch.randperm(12)[:8] for _ in range(users)]) + 1 + centre[:, None]
    time = start[:, None] + torch.arange(8)
    user = torch.arange(1, users + 1)[:, None].expand(users, 8)
    rows = item.numel()
    return Encoded(
        user.reshape(-1).int(),
        item.reshape(-1).int(),
        torch.full((rows,), 5.0),
        torch.ones(rows, dtype=torch.bool),
        time.reshape(-1),
    )


def test_popularity_halves_with_every_half_life() -> None:
    likes = Encoded(
        torch.tensor([1, 2, 3, 3]).int(),
        torch.tensor([1, 1, 2, 4]).int(),
        torch.full((4,), 5.0),
        torch.ones(4, dtype=torch.bool),
        torch.tensor([0, 100, 50, 100]),
    )
    assert popularity(likes, 6, 50.0).tolist() == [0, 1.25, 0.5, 0, 1, 0]
    assert popularity(likes, 6, 0.0).tolist() == [0, 2, 1, 0, 1, 0]
    assert popularity(likes.take(likes.timestamp > 100), 3, 50.0).tolist() == [0, 0, 0]


def test_a_half_life_is_chosen_where_newcomers_like_what_is_new() -> None:
    moving = drifting(shift=True)
    chosen = choose_half_life(moving, ITEMS + 1)
    assert chosen > 0
    assert chosen == choose_half_life(moving, ITEMS + 1)
    order = torch.randperm(len(moving))
    assert chosen == choose_half_life(moving.take(order), ITEMS + 1)
    assert choose_half_life(drifting(shift=False), ITEMS + 1) == 0


def test_no_half_life_without_newcomers() -> None:
    moving = drifting(shift=True)
    everyone = moving.take(torch.arange(len(moving)))
    everyone.user_index[:] = 1
    assert choose_half_life(everyone, ITEMS + 1) == 0
    assert choose_half_life(moving.take(torch.arange(1)), ITEMS + 1) == 0
    at_once = moving.take(torch.arange(len(moving)))
    at_once.timestamp[:] = 7
    assert choose_half_life(at_once, ITEMS + 1) == 0
