"""Histories: what each user did, oldest first, as flat columns with offsets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from widedeep import ordering


@dataclass(frozen=True)
class Encoded:
    """Interactions as our own integers, in the order of the file.

    user_index  (rows,) int32, 0 = unknown
    item_index  (rows,) int32, 0 = unknown
    rating      (rows,) float32, NaN where there is none
    liked       (rows,) bool
    timestamp   (rows,) int32 or int64 seconds since 1970; the row's number where there is none
    """

    user_index: Tensor
    item_index: Tensor
    rating: Tensor
    liked: Tensor
    timestamp: Tensor

    def __len__(self) -> int:
        return len(self.user_index)

    def take(self, rows: Tensor) -> Encoded:
        """The rows that a mask or an index selects."""
        return Encoded(
            self.user_index[rows],
            self.item_index[rows],
            self.rating[rows],
            self.liked[rows],
            self.timestamp[rows],
        )

    def to(self, device: torch.device | str) -> Encoded:
        return Encoded(
            self.user_index.to(device),
            self.item_index.to(device),
            self.rating.to(device),
            self.liked.to(device),
            self.timestamp.to(device),
        )


def concatenate(parts: Sequence[Encoded]) -> Encoded:
    return Encoded(
        torch.cat([part.user_index for part in parts]),
        torch.cat([part.item_index for part in parts]),
        torch.cat([part.rating for part in parts]),
        torch.cat([part.liked for part in parts]),
        torch.cat([part.timestamp for part in parts]),
    )


@dataclass(frozen=True)
class Histories:
    """One history a row, oldest first within it.

    offsets     (histories + 1,) int64: history h is the entries offsets[h]:offsets[h + 1]
    item_index  (entries,) int32
    rating      (entries,) float32, NaN where there is none
    liked       (entries,) bool
    """

    offsets: Tensor
    item_index: Tensor
    rating: Tensor
    liked: Tensor

    def fit(self, item_count: int) -> bool:
        """Whether the columns belong together and name items below `item_count`: asked of what comes from a file."""
        entries, steps = len(self.item_index), self.offsets.diff()
        return (
            self.item_index.shape == self.rating.shape == self.liked.shape == (entries,)
            and int(self.offsets[0]) == 0
            and int(self.offsets[-1]) == entries
            and bool((steps >= 0).all())
            and bool(((self.item_index >= 0) & (self.item_index < item_count)).all())
        )

    @classmethod
    def from_encoded(cls, interactions: Encoded, user_count: int) -> Histories:
        """Row u is the history of user_index u, so row 0 (the unknown user) is empty.

        Unknown items and unknown users are left out. Order: timestamp, then item.
        user_count  rows to make: the vocabulary's size, the unknown included
        """
        known = (interactions.user_index > 0) & (interactions.item_index > 0)
        rows = interactions if bool(known.all()) else interactions.take(known)
        columns = (rows.user_index, rows.timestamp, rows.item_index)
        users, times, items = (
            column.cpu().numpy() for column in columns
        )  # numpy's sort is the fastest there is
        order, counts = (
            torch.from_numpy(column).to(known.device)
            for column in ordering.by_user(users, user_count, times, items)
        )
        return cls(_offsets(counts), rows.item_index[order], rows.rating[order], rows.liked[order])

    @classmethod
    def from_lists(
        cls,
        items: Sequence[Sequence[int]],
        liked: Sequence[Sequence[bool]],
        ratings: Sequence[Sequence[float]],
    ) -> Histories:
        """One history for each list of item indices, with what was liked and the ratings (NaN: none)."""
        counts = torch.tensor([len(row) for row in items], dtype=torch.int64)
        return cls(
            _offsets(counts),
            torch.tensor([item for row in items for item in row], dtype=torch.int32),
            torch.tensor([value for row in ratings for value in row], dtype=torch.float32),
            torch.tensor([value for row in liked for value in row], dtype=torch.bool),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Histories]) -> Histories:
        return cls(
            _offsets(torch.cat([part.lengths for part in parts])),
            torch.cat([part.item_index for part in parts]),
            torch.cat([part.rating for part in parts]),
            torch.cat([part.liked for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:
        """(histories,) int64"""
        return self.offsets.diff()

    @property
    def row_index(self) -> Tensor:
        """(entries,) int64: the history that each entry is in."""
        rows = torch.arange(len(self), device=self.offsets.device)
        return rows.repeat_interleave(self.lengths, output_size=len(self.item_index))

    def take(self, rows: Tensor, total: int | None = None) -> Histories:
        """The histories `rows` (n,), in that order.

        total  of their entries, if it is known: without it a GPU is waited for
        """
        rows = rows.long()
        counts = self.lengths[rows]
        offsets = _offsets(counts)
        total = int(offsets[-1]) if total is None else total
        shift = (self.offsets[rows] - offsets[:-1]).repeat_interleave(counts, output_size=total)
        entries = torch.arange(total, device=shift.device) + shift
        return Histories(offsets, self.item_index[entries], self.rating[entries], self.liked[entries])

    def where(self, keep: Tensor) -> Histories:
        """The same histories with only the entries of the mask `keep` (entries,)."""
        counts = torch.zeros_like(self.lengths).index_add_(0, self.row_index, keep.long())
        kept = keep.nonzero().squeeze(1)  # once for all columns: a GPU is waited for to count them
        return Histories(_offsets(counts), self.item_index[kept], self.rating[kept], self.liked[kept])

    def latest(self, length: int) -> Histories:
        """The same histories with at most their last `length` entries."""
        if not len(self.item_index) or int(self.lengths.max()) <= length:
            return self
        ends = self.offsets[1:][self.row_index]
        position = torch.arange(len(self.item_index), device=ends.device)
        return self.where(ends - position <= length)

    def recency_weights(self, exponent: float) -> Tensor:
        """(entries,) float32: place ** -exponent, where the latest entry of a history has place 1."""
        place = self.offsets[1:][self.row_index] - torch.arange(
            len(self.item_index), device=self.offsets.device
        )
        return place.float() ** -exponent

    def only_liked(self) -> Histories:
        return self.where(self.liked)

    def multi_hot(self, item_count: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """(histories, item_count) with 1 where an item is in the history."""
        dense = torch.zeros(len(self), item_count, dtype=dtype, device=self.offsets.device)
        dense[self.row_index, self.item_index.long()] = 1
        return dense

    def to(self, device: torch.device | str) -> Histories:
        return Histories(
            self.offsets.to(device), self.item_index.to(device), self.rating.to(device), self.liked.to(device)
        )


def _offsets(counts: Tensor) -> Tensor:
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])
