"""Why an item was recommended: what each item of the history did for it."""

from __future__ import annotations

import torch
from torch import Tensor

from widedeep.cold import ColdItems
from widedeep.histories import Histories
from widedeep.model import Reading, WideDeepNet
from widedeep.topk import top_k

DEEP_ENTRIES = 200  # the latest likes are left out in turn; for earlier ones the wide side speaks alone
BLOCK_SCORES = 2**24  # histories x items scored at once: 64 MB of float32
BLOCK_ITEMS = 64  # recommended items explained at once


def contributions(
    net: WideDeepNet, cold: ColdItems, user_index: Tensor, history: Histories, item_index: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What each liked entry of one history did for the ranking score of each item.

    user_index  (1,)
    item_index  (items,) int64
    Returns     entries (entries,) their item_index; wide (entries, items), which over the entries sums exactly to
                the wide side's part of the score before centring; deep (entries, items): by how much the deep
                side's part falls when the entry is left out. Both in units of the ranking score.
    """
    reading = net.read(history)
    liked, weights = reading.liked, reading.weights
    wide = torch.zeros(len(weights), len(item_index), device=weights.device)
    deep = torch.zeros_like(wide)
    if not len(weights):
        return liked.item_index, wide, deep
    if float(net.deep_share) > 0:
        falls = _deep_falls(net, cold, user_index, reading, item_index)
        deep[-len(falls) :] = falls
    if float(net.deep_share) < 1:
        for start in range(0, len(item_index), BLOCK_ITEMS):
            sources = cold.sources(item_index[start : start + BLOCK_ITEMS])
            single = net.wide_contributions(liked, weights, sources.flatten())
            wide[:, start : start + len(sources)] = single.reshape(-1, *sources.shape).mean(2)
    return liked.item_index, wide, deep


def strongest_reasons(
    net: WideDeepNet,
    cold: ColdItems,
    user_index: Tensor,
    history: Histories,
    item_index: Tensor,
    *,
    limit: int,
) -> list[list[tuple[int, float, float]]]:
    """For each item the entries of one history that raised it most, strongest first; none that lowered it.

    Returns  at most `limit` of (item_index of the entry, its contribution, the wide part of that) for each item
    """
    entries, wide, deep = contributions(net, cold, user_index, history, item_index)
    if not len(entries) or not len(item_index):
        return [[] for _ in item_index]
    values, rows = top_k((wide + deep).T, limit)  # (items, <= limit); of equal ones the earlier entry
    parts = wide.T.gather(1, rows)
    lists = (entries[rows].tolist(), values.tolist(), parts.tolist())
    return [
        [reason for reason in zip(*columns, strict=True) if reason[1] > 0]
        for columns in zip(*lists, strict=True)
    ]


def _deep_falls(
    net: WideDeepNet,
    cold: ColdItems,
    user_index: Tensor,
    reading: Reading,
    item_index: Tensor,
) -> Tensor:
    """(latest entries, items): the deep side's part of the scores minus what it is without the entry."""
    length = len(reading.weights)
    any_cold = bool((item_index > cold.warm_count).any())
    left_out = torch.arange(max(0, length - DEEP_ENTRIES), length, device=item_index.device)
    items = reading.liked.item_index[left_out]
    parts = []
    nothing = items.new_full((1,), -1)  # the last row leaves nothing out
    for rows in torch.cat([items, nothing]).split(max(1, BLOCK_SCORES // net.item_count)):  # type: ignore[no-untyped-call]
        scores = net.deep_part(user_index.repeat(len(rows)), _copies_without(reading, rows))
        if any_cold:
            cold.fill(scores)
        parts.append(scores[:, item_index])
    found = torch.cat(parts)
    return found[-1] - found[:-1]


def _copies_without(reading: Reading, items: Tensor) -> Reading:
    """The reading of a single history once for each of `items` (copies,), without that item."""
    single = torch.zeros(len(items), dtype=torch.int64, device=items.device)

    def without(entries: Histories, weights: Tensor) -> tuple[Histories, Tensor]:
        kept = (entries.item_index[None] != items[:, None]).flatten()
        return entries.take(single).where(kept), weights.repeat(len(items))[kept]

    return Reading(*without(reading.liked, reading.weights), *without(reading.entries, reading.entry_weights))
