"""How long a call may take."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from server.settings import ServerSettings
from server.status import DeadlineError

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Deadlines:
    """In seconds.

    default  for a call or a message that comes without a deadline
    longest  for a call that comes with a later one
    """

    default: float
    longest: float

    @classmethod
    def of(cls, settings: ServerSettings) -> Deadlines:
        return cls(min(settings.default_deadline, settings.max_deadline), settings.max_deadline)

    def within(self, remaining: float | None) -> float:
        """What a call has, of what its client gives it; None: the client does not say."""
        return self.default if remaining is None else min(remaining, self.longest)

    async def hold(self, answer: Coroutine[Any, Any, Answer], remaining: float | None) -> Answer:
        """Raises  DeadlineError: it took longer than the server lets it"""
        limit = self.within(remaining)
        if limit == remaining:
            return await answer  # gRPC itself cancels a call at its client's deadline, and a timer costs 4 µs
        try:
            async with asyncio.timeout(limit):
                return await answer
        except TimeoutError:
            what = "a call without a deadline" if remaining is None else "any call"
            raise DeadlineError(
                f"No answer was ready within {limit:g} s, which is as long as the server lets {what} take."
            ) from None
