"""How much each caller may send: token buckets, kept as the one number that a bucket comes down to."""

from __future__ import annotations

import time
from collections import OrderedDict

from server.status import RateLimitError

MOST = 10_000  # callers that are remembered: those that called last


class Rates:
    """Who has sent how much. To be used from one event loop.

    Of a bucket it keeps when it would be full (the "theoretical arrival time" of ATM's generic cell rate algorithm).
    """

    def __init__(self, most: int = MOST) -> None:
        self._full_at: OrderedDict[str, float] = OrderedDict()
        self._most = most

    def take(self, caller: str, rate: float, burst: float) -> None:
        """
        rate    a second
        burst   that may come at once, at least 1
        Raises  RateLimitError: the caller has to wait
        """
        now = time.monotonic()
        full_at = max(self._full_at.get(caller, now), now)
        wait = full_at - now - (burst - 1) / rate
        if wait > 0:
            raise RateLimitError(
                f"More than {rate:g} calls and messages a second came from {caller or 'this caller'}. "
                f"Try again in {wait:.3f} s, and then more slowly.",
                retry_after=wait,
            )
        self._full_at[caller] = full_at + 1 / rate
        self._full_at.move_to_end(caller)
        if len(self._full_at) > self._most:
            self._full_at.popitem(last=False)
