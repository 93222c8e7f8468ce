"""The same list for everyone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from widedeep.baselines.base import item_counts, liked_options, used
from widedeep.histories import Histories


@dataclass
class Popularity:
    """The same list for everyone: the items by how many users liked them, or had anything to do with them."""

    liked_only: bool = True
    counts: Tensor = field(default_factory=lambda: torch.zeros(0), init=False, repr=False)
    name = "popularity"

    @property
    def settings(self) -> dict[str, Any]:
        return {"liked_only": self.liked_only}

    def fit(self, histories: Histories, item_count: int) -> Self:
        self.counts = item_counts(used(histories, self.liked_only), item_count)
        return self

    def rank_scores(self, user_index: Tensor, histories: Histories) -> Tensor:  # noqa: ARG002
        return self.counts.expand(len(histories), -1)

    @classmethod
    def grid(
        cls, histories: Histories, item_count: int, judge: Callable[[Self], float]
    ) -> Iterator[tuple[Self, float]]:
        for liked_only in liked_options(histories):
            candidate = cls(liked_only).fit(histories, item_count)
            yield candidate, judge(candidate)
