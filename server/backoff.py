"""How long to wait between attempts."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from server.registry import Found

LONGEST_WAIT = 60.0  # seconds between attempts to reach what cannot be reached


class Backoff:
    """Waits that double, each shortened at random so that many servers do not come back in step."""

    def __init__(self, first: float) -> None:
        self._first = first
        self._failures = 0

    def reset(self) -> None:
        self._failures = 0

    def next(self) -> float:
        """Seconds"""
        whole = min(self._first * 2.0 ** min(self._failures, 32), max(LONGEST_WAIT, self._first))
        self._failures += 1
        return whole * random.uniform(0.5, 1.0)


@dataclass(frozen=True)
class Pause:
    """Do not load `found` before `until` (time.monotonic), unless it changes."""

    found: Found
    until: float
