"""Item-based nearest neighbours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from widedeep.baselines.base import item_counts, liked_options, used
from widedeep.crossed import TILE, gram_rows
from widedeep.histories import Histories

POPULARITY_WEIGHT = 1e-6  # orders the items without a neighbour in the history, and moves no other


@dataclass
class ItemKNN:
    """Items like those of the history: sum of a candidate's similarities to the history's items.

    Similarity is the cosine c_ij / (sqrt(c_i c_j) + shrink) of co-occurrence counts, of which each candidate
    keeps those to its `neighbours` most similar items. The published form: every entry of a history counts
    alike. Source: Deshpande & Karypis 2004, the form and the shrinkage as in Ferrari Dacrema et al. 2019,
    arXiv 1907.06902; keeping them per candidate instead of per item of the history is the better of the two
    on MovieLens.
    """

    neighbours: int = 100
    shrink: float = 10.0
    liked_only: bool = True
    index: Tensor = field(
        default_factory=lambda: torch.zeros(0), init=False, repr=False
    )  # (items, neighbours)
    weight: Tensor = field(default_factory=lambda: torch.zeros(0), init=False, repr=False)
    popularity: Tensor = field(default_factory=lambda: torch.zeros(0), init=False, repr=False)
    name = "item-kNN"

    @property
    def settings(self) -> dict[str, Any]:
        return {"neighbours": self.neighbours, "shrink": self.shrink, "liked_only": self.liked_only}

    def fit(self, histories: Histories, item_count: int) -> Self:
        entries = used(histories, self.liked_only)
        ((index, weight),) = _most_similar(entries, item_count, [self.shrink], self.neighbours)
        return self._keep(index, weight, item_counts(entries, item_count))

    def _keep(self, index: Tensor, weight: Tensor, counts: Tensor) -> Self:
        self.index = index[:, : self.neighbours].contiguous()
        self.weight = weight[:, : self.neighbours].contiguous()
        self.popularity = POPULARITY_WEIGHT * counts / counts.max().clamp(min=1)
        return self

    def rank_scores(self, user_index: Tensor, histories: Histories) -> Tensor:  # noqa: ARG002
        entries = used(histories, self.liked_only)
        scores = self.popularity.repeat(len(entries), 1)
        for start in range(0, len(entries), TILE):
            rows = torch.arange(start, min(start + TILE, len(entries)), device=scores.device)
            by_item = entries.take(rows).multi_hot(len(self.index)).T.contiguous()
            # A row is the weighted sum of its neighbours' rows: a sparse product that needs no sparse tensor.
            found = embedding_bag(self.index, by_item, per_sample_weights=self.weight, mode="sum")
            scores[start : start + TILE] += found.T
        return scores

    @classmethod
    def grid(
        cls, histories: Histories, item_count: int, judge: Callable[[Self], float]
    ) -> Iterator[tuple[Self, float]]:
        sizes, shrinks = (20, 50, 100, 200), (0.0, 10.0, 50.0, 200.0)
        for liked_only in liked_options(histories):
            entries = used(histories, liked_only)
            counts = item_counts(entries, item_count)
            tables = _most_similar(entries, item_count, shrinks, max(sizes))
            for shrink, (index, weight) in zip(shrinks, tables, strict=True):
                for neighbours in sizes:
                    candidate = cls(neighbours, shrink, liked_only)._keep(index, weight, counts)
                    yield candidate, judge(candidate)


def _most_similar(
    histories: Histories, item_count: int, shrinks: Sequence[float], neighbours: int
) -> list[tuple[Tensor, Tensor]]:
    """For each shrinkage the neighbours' int32 index and weight, (item_count, neighbours), most similar first.

    Counts are made for some items at a time, so no items² matrix is held; entries x items steps.
    """
    neighbours = min(neighbours, item_count)
    norm = item_counts(histories, item_count).sqrt()
    found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in shrinks]
    everyone = torch.ones(len(histories), device=norm.device)
    for start, counts in gram_rows(histories, item_count, everyone):
        counts.diagonal(offset=start).zero_()
        for shrink, tables in zip(shrinks, found, strict=True):
            scale = torch.outer(norm[start : start + len(counts)], norm).add_(shrink).clamp_(min=1e-12)
            weight, index = torch.div(counts, scale, out=scale).topk(neighbours, dim=1)
            tables.append((index.int(), weight))
    return [(torch.cat([i for i, _ in tables]), torch.cat([w for _, w in tables])) for tables in found]
