"""What every baseline is, and what they share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from widedeep.histories import Histories


class Baseline(Protocol):
    """A ranker that is fitted on histories alone.

    Each is the published method and no more: it reads which items a history holds, not their order.
    """

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> dict[str, Any]:
        """What its grid varies."""
        ...

    def fit(self, histories: Histories, item_count: int) -> Self:
        """histories  one per user, in any order; item_count  columns, the unknown item 0 included"""
        ...

    def rank_scores(self, user_index: Tensor, histories: Histories) -> Tensor:
        """(histories, item_count); user_index is not used: a history is all that counts."""
        ...

    @classmethod
    def grid(
        cls, histories: Histories, item_count: int, judge: Callable[[Self], float]
    ) -> Iterator[tuple[Self, float]]:
        """Every setting worth trying, fitted, with what `judge` says of it: the higher, the better.

        A search may let what was judged decide what it tries next.
        """
        ...


def used(histories: Histories, liked_only: bool) -> Histories:
    """The entries that a baseline learns from, and reads a history by."""
    return histories.only_liked() if liked_only else histories


def liked_options(histories: Histories) -> tuple[bool, ...]:
    """Without ratings everything is liked, and both ways are one."""
    return (True,) if bool(histories.liked.all()) else (True, False)


def item_counts(histories: Histories, item_count: int) -> Tensor:
    """(item_count,) float32: how many histories hold each item"""
    return torch.bincount(histories.item_index, minlength=item_count).float()
