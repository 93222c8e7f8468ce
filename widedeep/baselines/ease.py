"""EASE: a linear autoencoder of the history, in closed form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from widedeep.baselines.base import item_counts, liked_options, used
from widedeep.crossed import Crossed
from widedeep.histories import Histories
from widedeep.wide import ItemWeights


@dataclass
class EASE:
    """A weight for every pair of items, in closed form (Steck 2019, arXiv 1905.03375).

    The published form: every user and every entry of a history counts alike, and there is no dropout.
    """

    l2: float = 300.0
    liked_only: bool = True
    weights: ItemWeights = field(default_factory=lambda: ItemWeights(0), init=False, repr=False)
    counts: Tensor = field(default_factory=lambda: torch.zeros(0), init=False, repr=False)
    name = "EASE"

    @property
    def settings(self) -> dict[str, Any]:
        return {"l2": self.l2, "liked_only": self.liked_only}

    def fit(self, histories: Histories, item_count: int) -> Self:
        entries = used(histories, self.liked_only)
        self.weights = ItemWeights.fit(entries, item_count, self.l2)
        self.counts = item_counts(entries, item_count)
        return self

    def rank_scores(self, user_index: Tensor, histories: Histories) -> Tensor:  # noqa: ARG002
        entries = used(histories, self.liked_only)
        scores = self.weights.scores(entries)
        return torch.where((entries.lengths > 0)[:, None], scores, self.counts)

    @classmethod
    def grid(
        cls, histories: Histories, item_count: int, judge: Callable[[Self], float]
    ) -> Iterator[tuple[Self, float]]:
        for liked_only in liked_options(histories):
            entries = used(histories, liked_only)
            crossed = Crossed.of(entries, item_count, user_exponent=0.0)
            for l2 in (10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0):
                candidate = cls(l2, liked_only)
                candidate.weights = ItemWeights.solve(crossed, l2)
                candidate.counts = item_counts(entries, item_count)
                yield candidate, judge(candidate)
