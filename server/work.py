"""What lanes do: single queries, and the batches that are made of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from server.call import Call

Compute = Callable[[list[Any]], list[Any]]  # queries to answers, one each; an answer may be an exception


@dataclass(slots=True)
class Work:
    """One query.

    compute   what answers it; equal ones may share a batch
    cost      in items
    since     when it came;  deadline  both on the clock of time.monotonic
    call      who wants it, if it came with a call
    """

    compute: Compute
    query: Any
    cost: int
    since: float
    deadline: float
    answer: asyncio.Future[Any]
    call: Call | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Queries that were computed together.

    cost     in items
    started  on the clock of time.monotonic
    seconds  that it took
    """

    lane: str
    works: list[Work]
    cost: int
    started: float
    seconds: float


@dataclass
class LaneCounts:
    """What a lane has done since the start."""

    batches: int = 0
    queries: int = 0
    items: int = 0
    overloaded: int = 0  # refused, because more waited than may
    hopeless: int = 0  # refused, because the deadline could not be met
    dropped: int = 0  # cancelled or expired before their turn, and never computed
    busy_seconds: float = 0.0
