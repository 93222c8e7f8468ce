"""What the item x item crosses are solved from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from widedeep.histories import Histories

TILE = 96  # columns that embedding_bag sums in one pass over the entries on a CPU with AVX2
ITEM_LIMIT = 20_000  # several items² floats are held while the crosses are fitted: 1.6 GB each at the limit


@dataclass(frozen=True)
class Crossed:
    """What of the crosses depends on neither the ridge nor the dropout: enough to solve for many of them.

    local        the histories with items, item_index being the position among `items`
    items        (active,) int64 item_index
    left_out     items that occur are not among them: there are too many
    user_weight  (histories,) the diagonal of D
    gram         (active, active) X'DX; None where there are fewer histories than items
    """

    item_count: int
    items: Tensor
    left_out: bool
    local: Histories
    user_weight: Tensor
    gram: Tensor | None

    @classmethod
    def of(cls, histories: Histories, item_count: int, user_exponent: float) -> Crossed:
        counts = torch.bincount(histories.item_index, minlength=item_count)
        occurring = int(counts.count_nonzero())
        active = counts.argsort(descending=True, stable=True)[: min(occurring, ITEM_LIMIT)]
        items = active.sort().values
        position = counts.new_full((item_count,), -1)
        position[items] = torch.arange(len(items), device=position.device)
        local = Histories(
            histories.offsets,
            position[histories.item_index.long()].int(),
            histories.rating,
            histories.liked,
        )
        local = local.where(local.item_index >= 0)
        local = local.take((local.lengths > 0).nonzero().squeeze(1))
        user_weight = local.lengths.float() ** -user_exponent
        gram = None if len(local) < len(items) else _gram(local, len(items), user_weight)
        return cls(item_count, items, occurring > ITEM_LIMIT, local, user_weight, gram)


def _gram(local: Histories, size: int, user_weight: Tensor) -> Tensor:
    """(size, size) X'DX"""
    gram = torch.empty(size, size, device=user_weight.device)
    for start, rows in gram_rows(local, size, user_weight):
        gram[start : start + len(rows)] = rows
    return gram


def gram_rows(histories: Histories, size: int, user_weight: Tensor) -> Iterator[tuple[int, Tensor]]:
    """X'DX, TILE rows at a time, each with the number of its first row.

    Each column is the sum of the histories that hold its item, so only entries that there are cost anything, size
    additions each.
    histories    item_index below `size`
    user_weight  (histories,) the diagonal of D
    """
    blocks = []
    step = max(1, 2**26 // max(1, size))
    for start in range(0, len(histories), step):
        rows = torch.arange(start, min(start + step, len(histories)), device=user_weight.device)
        part = histories.take(rows)
        by_item = part.item_index.argsort(stable=True)
        history = part.row_index[by_item]
        counts = torch.bincount(part.item_index, minlength=size)
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        blocks.append(
            (len(rows), history, part.item_index[by_item].long(), offsets, user_weight[rows][history])
        )
    for start in range(0, size, TILE):
        stop = min(start + TILE, size)
        columns = torch.zeros(size, stop - start, device=user_weight.device)
        for count, history, item, offsets, weight in blocks:
            within = slice(int(offsets[start]), int(offsets[stop]))
            holds = columns.new_zeros(count, stop - start)
            holds[history[within], item[within] - start] = 1
            columns += F.embedding_bag(
                history, holds, offsets, mode="sum", per_sample_weights=weight, include_last_offset=True
            )
        yield start, columns.T
