"""Ranking scores for items without interactions, through their features."""

from __future__ import annotations

from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from widedeep.layout import transposed
from widedeep.topk import top_k

NEIGHBOURS = 20  # items with interactions that stand in for one without
BLOCK_DISTANCES = 2**24  # pairs of items compared at once: 64 MB of float32


class ColdItems:
    """An item without interactions scores what the items most alike in genres and year score on average.

    So all that the network knows of a user is used for it, the wide side too, and its own untrained weights
    are not. A mean has no extremes: among other items it comes in the middle rather than on top.
    """

    def __init__(self, item_features: Tensor, warm_count: int) -> None:
        """item_features  (item_count, any): those after `warm_count` are cold"""
        self.warm_count = warm_count
        self._features = item_features

    @cached_property
    def neighbours(self) -> Tensor:
        """(cold, <= NEIGHBOURS) int64: the item_index of each one's nearest; found when they are first needed."""
        warm, cold = self._features[1 : self.warm_count + 1], self._features[self.warm_count + 1 :]
        block = max(1, BLOCK_DISTANCES // len(warm))
        exact = "donot_use_mm_for_euclid_dist"  # else equal items are at distances that differ by rounding
        found = [
            top_k(-torch.cdist(cold[start : start + block], warm, compute_mode=exact), NEIGHBOURS)[1] + 1
            for start in range(0, len(cold), block)
        ]
        return torch.cat(found) if found else torch.empty(0, NEIGHBOURS, dtype=torch.int64)

    def fill(self, scores: Tensor) -> None:
        """Write the cold items' columns of `scores` (histories, item_count), in place."""
        if len(self.neighbours):
            mean = F.embedding_bag(self.neighbours, transposed(scores), mode="mean")
            scores[:, self.warm_count + 1 :] = mean.T

    def sources(self, item_index: Tensor) -> Tensor:
        """(items, any): the items whose mean score is that of each item; itself if it is not cold."""
        cold = item_index > self.warm_count
        if not bool(cold.any()):
            return item_index[:, None]
        sources = item_index[:, None].repeat(1, self.neighbours.shape[1])
        sources[cold] = self.neighbours[item_index[cold] - self.warm_count - 1]
        return sources
