"""Popularity with a half-life: what is ranked by where a history is empty.

What was liked lately tells more about what a newcomer likes than what was liked long ago, where tastes and the
catalogue change. How much more is learnt from the newcomers of the training part.
"""

from __future__ import annotations

import torch
from torch import Tensor

from widedeep.choices import surpasses
from widedeep.histories import Encoded
from widedeep.metrics import ndcg_at_k

JUDGED_SHARE = 0.2  # of the rows, the latest: the newcomers among them are who a half-life is judged by
HALVINGS = (1, 2, 4, 8, 16, 32, 64)  # half-lives to try: the time before the judged rows, divided by these


def popularity(likes: Encoded, item_count: int, half_life: float) -> Tensor:
    """(item_count,) float32: likes, each worth a half for every half-life before the latest; 0 for none.

    half_life  in the units of the timestamps
    """
    items = likes.item_index.long()
    if not len(items):
        return torch.zeros(item_count, device=items.device)
    age = (likes.timestamp.max() - likes.timestamp).double()
    worth = torch.exp2(-age / half_life) if half_life > 0 else torch.ones_like(age)
    return worth.new_zeros(item_count).index_add_(0, items, worth).float()


def choose_half_life(train: Encoded, item_count: int) -> float:
    """The half-life that ranks best for users whose first row is among the latest; 0 (none) unless surely better."""
    time = train.timestamp
    order = time.argsort(stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    late = place >= len(order) * (1 - JUDGED_SHARE)
    known = train.user_index.new_zeros(int(train.user_index.max()) + 1, dtype=torch.bool)
    known[train.user_index[~late].long()] = True
    counted = train.liked & (train.user_index > 0) & (train.item_index > 0)
    before = train.take(counted & ~late)
    newcomers = train.take(counted & late & ~known[train.user_index.long()])
    if not len(before) or not len(newcomers):
        return 0.0
    span = float(before.timestamp.max() - before.timestamp.min())
    half_lives = [0.0, *(span / halving for halving in HALVINGS if span > 0)]
    found = {
        half_life: _ndcg(popularity(before, item_count, half_life), newcomers) for half_life in half_lives
    }
    better = [half_life for half_life in half_lives if surpasses(found[half_life], found[0.0])]
    return max(better, key=lambda half_life: float(found[half_life].mean()), default=0.0)


def _ndcg(scores: Tensor, likes: Encoded) -> Tensor:
    """(users,) NDCG@10 of one list for all the users of `likes`."""
    users, row = torch.unique(likes.user_index, return_inverse=True)
    best = scores.argsort(descending=True, stable=True)[:10]
    hits = torch.zeros(len(users), len(best), dtype=torch.bool, device=scores.device)
    entry, position = (likes.item_index.long()[:, None] == best).nonzero(as_tuple=True)
    hits[row[entry], position] = True
    return ndcg_at_k(hits, torch.bincount(row, minlength=len(users)), 10)
