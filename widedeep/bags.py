"""What the ranking reads of histories, as flat arrays on the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from widedeep.inputs import Past
from widedeep.model import WideDeepNet


@dataclass(frozen=True)
class Settings:
    """What validation decided about the ranking, as numbers.

    wide, factor, deep  weights of the standardised parts, which sum to 1
    likes_only, recency, length, tells_apart  as `WideDeepNet.read` goes by them
    """

    wide: float
    factor: float
    deep: float
    likes_only: bool
    recency: float
    length: int
    tells_apart: bool


class SettingsOf:
    """Reads a network's `Settings` as they are now; what it goes by is at hand, as a module's attributes are not."""

    def __init__(self, net: WideDeepNet) -> None:
        self._values = (net.deep_share, net.factor_share, net.likes_only, net.recency)
        self._on_host = net.device.type == "cpu"
        self._rest = (net.config.history_length, net.deep.tells_apart)

    def __call__(self) -> Settings:
        if self._on_host:
            share, factor, likes_only, recency = (value.item() for value in self._values)
        else:  # at once: a GPU is waited for
            share, factor, likes_only, recency = torch.stack(
                [value.float() for value in self._values]
            ).tolist()
        deep = share * (1 - factor)
        return Settings(1 - share, share * factor, deep, bool(likes_only), recency, *self._rest)


@dataclass(frozen=True)
class Bags:
    """Entries of some histories, one history after the other.

    index    (entries,) int64
    lengths  (histories,) int64
    weights  (entries,) float32: how much each counts; None: all the same
    """

    index: np.ndarray
    lengths: np.ndarray
    weights: np.ndarray | None

    @classmethod
    def of(cls, rows: Sequence[np.ndarray], recency: float) -> Bags:
        """rows  (entries,) of each history, oldest first;  recency  an entry weighs place ** -recency"""
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        index = np.concatenate(rows).astype(np.int64)
        if not recency:
            return cls(index, lengths, None)
        place = np.repeat(lengths.cumsum(), lengths) - np.arange(len(index))
        return cls(index, lengths, place.astype(np.float32) ** -np.float32(recency))

    @property
    def offsets(self) -> np.ndarray:
        """(histories + 1,) int64: history h is the entries offsets[h]:offsets[h + 1]"""
        offsets = np.zeros(len(self.lengths) + 1, dtype=np.int64)
        np.cumsum(self.lengths, out=offsets[1:])
        return offsets

    def at(self, place: np.ndarray) -> Bags:
        """The same entries at the indices `place` (entries,), without those below 0."""
        if not len(place) or place.min() >= 0:
            return Bags(place, self.lengths, self.weights)
        keep = place >= 0
        rows = np.repeat(np.arange(len(self.lengths)), self.lengths)
        lengths = np.bincount(rows[keep], minlength=len(self.lengths))
        return Bags(place[keep], lengths, None if self.weights is None else self.weights[keep])

    def of_mean_one(self) -> np.ndarray | None:
        """(entries,) weights with a mean of 1 within each history; None: they are 1"""
        if self.weights is None:
            return None
        means = self._sums(self.weights) / np.maximum(self.lengths, 1)
        scaled: np.ndarray = self.weights / np.repeat(
            np.maximum(means, 1e-12).astype(np.float32), self.lengths
        )
        return scaled

    def inverse_lengths(self) -> np.ndarray:
        """(histories, 1) float32: 1 over the root of the sum of the squared weights"""
        squares = self.lengths if self.weights is None else self._sums(self.weights**2)
        inverse: np.ndarray = np.maximum(squares, 1e-12)[:, None] ** -0.5
        return inverse.astype(np.float32)

    def _sums(self, values: np.ndarray) -> np.ndarray:
        """(histories,) float64"""
        rows = np.repeat(np.arange(len(self.lengths)), self.lengths)
        return np.bincount(rows, values, minlength=len(self.lengths))


def liked_items(past: Past, settings: Settings) -> np.ndarray:
    """(entries,) int32: what the wide and the low-rank part read."""
    items = past.items[past.liked] if settings.likes_only else past.items
    return items[-settings.length :]


def liked_bags(pasts: Sequence[Past], settings: Settings) -> Bags:
    return Bags.of([liked_items(past, settings) for past in pasts], settings.recency)


def entry_bags(pasts: Sequence[Past], settings: Settings, item_count: int) -> Bags:
    """What the deep part reads where it tells likes from others, by the row that it reads each by."""
    rows = []
    for past in pasts:
        items, liked = past.items[-settings.length :], past.liked[-settings.length :]
        rows.append(np.where(liked, items, items + item_count))
    return Bags.of(rows, settings.recency)
