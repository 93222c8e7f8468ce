"""Latencies counted in buckets of one per cent: small whatever their number, and exact to half a per cent."""

from __future__ import annotations

import math
from collections import Counter

GROWTH = math.log(1.01)
LEAST = 1e-6  # seconds; less counts as so much


class Latencies:
    def __init__(self) -> None:
        self.count = 0
        self.max = 0.0
        self._buckets: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        self.count += 1
        self.max = max(self.max, seconds)
        self._buckets[math.floor(math.log(max(seconds, LEAST)) / GROWTH)] += 1

    def update(self, other: Latencies) -> None:
        """Count what `other` has counted, too."""
        self.count += other.count
        self.max = max(self.max, other.max)
        self._buckets.update(other._buckets)

    def percentile(self, percent: float) -> float:
        """The latency in seconds that so many per cent do not exceed; NaN if nothing was counted."""
        rank = math.ceil(self.count * percent / 100)
        for bucket in sorted(self._buckets):
            rank -= self._buckets[bucket]
            if rank <= 0:
                return min(_middle(bucket), self.max)
        return math.nan

    def histogram(self, per_decade: int = 5) -> list[tuple[float, float, int]]:
        """Rows of lower bound and upper bound in seconds, and count; `per_decade` rows for each factor of ten."""
        rows: Counter[int] = Counter()
        for bucket, count in self._buckets.items():
            rows[math.floor(math.log10(_middle(bucket)) * per_decade)] += count
        if not rows:
            return []
        return [
            (10 ** (row / per_decade), 10 ** ((row + 1) / per_decade), rows[row])
            for row in range(min(rows), max(rows) + 1)
        ]


def _middle(bucket: int) -> float:
    return math.exp((bucket + 0.5) * GROWTH)
