"""The best columns of a row of scores, and the rank of one. Of equal scores the lower column comes first."""

from __future__ import annotations

import torch
from torch import Tensor


def top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best columns of each row; equal scores in the order of their columns.

    scores   (rows, columns) without NaN; -inf is a score like any other, so the lowest
    Returns  values (rows, min(k, columns)), columns (rows, min(k, columns)) int64, best first
    Raises   ValueError: k < 1
    """
    if k < 1:
        raise ValueError(f"k must be 1 or more, got {k}")
    width = scores.shape[1]
    k = min(k, width)
    # torch.topk takes any of the equal ones: one more than asked for shows where that could matter.
    values, columns = scores.topk(min(k + 1, width), dim=1)
    if values.device.type == "cpu":
        found = values.numpy()
        if not (found[:, 1:] == found[:, :-1]).any():
            return values[:, :k], columns[:, :k]  # no two are equal, so they are in order
    columns = columns[:, :k]
    if k < width:
        tied = (values[:, k] == values[:, k - 1]).nonzero().squeeze(1)
        if len(tied):
            columns[tied] = _lowest_columns(scores[tied], values[tied, k - 1, None], k)
    columns = columns.sort(dim=1).values
    values, order = scores.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, order)


def _lowest_columns(scores: Tensor, threshold: Tensor, k: int) -> Tensor:
    """(rows, k): all columns above the row's threshold, then the first of those that equal it."""
    above = scores > threshold
    equal = scores == threshold
    room = k - above.sum(1, keepdim=True, dtype=torch.int32)
    chosen = above | (equal & (equal.cumsum(1, dtype=torch.int32) <= room))
    return chosen.nonzero()[:, 1].reshape(len(scores), k)


def first_rank(scores: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The rank, from 1, of the best of each row's marked columns; equal scores in the order of their columns.

    scores   (n, items) without NaN; a column with -inf is no candidate; float32 counts up to 2**24 items
    rows     (marks,) int64: the row of each mark
    columns  (marks,) int64: its column
    Returns  (n,) int64, 0 where a row has no marked candidate
    """
    marked = scores[rows, columns]
    best = scores.new_full((len(scores),), -torch.inf).scatter_reduce_(0, rows, marked, "amax")
    is_best = marked == best[rows]
    column = columns.new_full((len(scores),), scores.shape[1])
    column.scatter_reduce_(0, rows[is_best], columns[is_best], "amin")
    counted = torch.empty_like(scores)  # ones and zeros as float: several times as fast to sum as bool
    rank = 1 + torch.gt(scores, best[:, None], out=counted).sum(1).long()
    equal = torch.eq(scores, best[:, None], out=counted).sum(1)
    tied = ((equal > 1) & (best > -torch.inf)).nonzero().squeeze(1)
    if len(tied):
        before = torch.arange(scores.shape[1], device=scores.device) < column[tied, None]
        before &= scores[tied] == best[tied, None]
        rank[tied] += before.sum(1)
    return torch.where(best > -torch.inf, rank, 0)
