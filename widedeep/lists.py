"""The best of what each query allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from widedeep.cold import ColdItems
from widedeep.inputs import Asked, QueryInputs
from widedeep.topk import top_k


class Lists:
    """From scores of the items with interactions to lists, with every query's filters."""

    def __init__(self, inputs: QueryInputs, cold_items: ColdItems) -> None:
        self.inputs = inputs
        self.cold_items = cold_items

    def best(
        self, scores: Tensor, asked: Sequence[Asked[Any]], counts: Sequence[int], seen: Sequence[bool]
    ) -> tuple[Tensor, Tensor]:
        """Scores and item_index, (queries, at most the largest count) each, best first; -inf where a list has ended.

        scores  (queries, warm_count + 1), which is changed
        counts  how many items each query wants
        seen    whether the items of each query's history are left out
        """
        if any(self.inputs.reaches_cold(one) for one in asked):
            scores = self._with_cold(scores)
        for row, one in enumerate(asked):
            allowed = self.inputs.filtered(one)
            if allowed is not None:
                scores[row].masked_fill_(~allowed[: scores.shape[1]], -torch.inf)
            elif scores.shape[1] > self.cold_items.warm_count + 1:
                scores[row, self.cold_items.warm_count + 1 :] = -torch.inf
        out = self._left_out(asked, seen, scores.shape[1])
        scores.view(-1).index_fill_(0, torch.from_numpy(out).to(scores.device), -torch.inf)
        return top_k(scores, max(counts))

    def _with_cold(self, scores: Tensor) -> Tensor:
        """(queries, item_count)"""
        everything = scores.new_empty(len(scores), self.inputs.processor.item_count)
        everything[:, : scores.shape[1]] = scores
        self.cold_items.fill(everything)
        return everything

    def _left_out(self, asked: Sequence[Asked[Any]], seen: Sequence[bool], width: int) -> np.ndarray:
        """(any,) int64: row * width + item_index of what each query leaves out, the unknown item included."""
        parts = [np.arange(0, len(asked) * width, width)]
        for row, one in enumerate(asked):
            for items in self.inputs.left_out(one, seen=seen[row]):
                parts.append(items[items < width] + np.int64(row * width))
        return np.concatenate(parts)
