"""Concurrent requests become few calls of the model.

No time is waited for queries to be gathered: those that come while a lane is busy are its next batch. gRPC hands
over one call in a turn of the event loop, so a lane lets the loop turn while more of what has come is handed over:
a few microseconds where nothing is. Each lane has a thread, so a long ranking does not hold up a score.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from server.status import DeadlineError, OverloadedError

logger = logging.getLogger(__name__)

Compute = Callable[[list[Any]], list[Any]]  # queries to answers, one each; an answer may be an exception
TURNS = 8  # of the event loop without a new query, after which there is none at hand
SMOOTHING = 0.2  # the latest batch's share of the expected cost of an item


@dataclass(slots=True)
class Work:
    """One query.

    compute   what answers it; equal ones may share a batch
    cost      in items
    deadline  on the clock of time.monotonic
    """

    compute: Compute
    query: Any
    cost: int
    deadline: float
    answer: asyncio.Future[Any]


@dataclass
class LaneCounts:
    """What a lane has done since the start."""

    batches: int = 0
    queries: int = 0
    items: int = 0
    overloaded: int = 0  # refused, because the queue was full
    hopeless: int = 0  # refused, because the deadline could not be met
    dropped: int = 0  # cancelled or expired before their turn, and never computed
    busy_seconds: float = 0.0


class Lane:
    """A bounded queue and the thread that empties it. Everything but the computing is on the event loop."""

    def __init__(self, name: str, most_queued: int, most_at_once: int) -> None:
        """
        most_queued   items that may wait; a query beyond them is refused, unless nothing waits
        most_at_once  items in a batch; one query alone may have more
        """
        self.name = name
        self.counts = LaneCounts()
        self.executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self.queued = 0  # items
        self.most_queued = most_queued
        self._most_at_once = most_at_once
        self._waiting: deque[Work] = deque()
        self._busy_until: float | None = None  # when the batch at work should be done; None when idle
        self._seconds_per_item = 0.0

    async def answer(self, compute: Compute, query: Any, cost: int, remaining: float | None) -> Any:
        """The answer of `compute` to one query, computed together with others. Cancelled, it is never computed.

        compute    takes queries, on the lane's thread
        cost       in items, at least 1
        remaining  seconds until nobody wants the answer any more; None: no end
        Raises     OverloadedError, DeadlineError; what `compute` gave in place of an answer
        """
        now = time.monotonic()
        ahead = self._seconds_ahead(now)
        if self.queued and self.queued + cost > self.most_queued:
            self.counts.overloaded += 1
            raise OverloadedError(
                f"{self.queued} items wait in the {self.name} lane, and it takes {self.most_queued}. "
                "Try again later, or ask for less at a time.",
                retry_after=ahead,
            )
        if remaining is not None and remaining < ahead:
            self.counts.hopeless += 1
            raise DeadlineError(
                f"The {max(remaining, 0):.3f} s that are left are less than the {ahead:.3f} s of work that wait. "
                "Allow more time, or try again later."
            )
        deadline = float("inf") if remaining is None else now + remaining
        work = Work(compute, query, cost, deadline, asyncio.get_running_loop().create_future())
        self._waiting.append(work)
        self.queued += cost
        if self._busy_until is None:
            self._gather()
        return await work.answer

    def close(self) -> None:
        """Compute nothing more."""
        self.executor.shutdown(wait=False, cancel_futures=True)

    def _seconds_ahead(self, now: float) -> float:
        """Of work that comes before a new query."""
        if self._busy_until is None:
            return 0.0
        return max(0.0, self._busy_until - now) + self.queued * self._seconds_per_item

    def _gather(self, turns: int = 0, queued: int = -1) -> None:
        """Start once the loop has turned TURNS times without a new query."""
        self._busy_until = time.monotonic()
        turns = turns + 1 if self.queued == queued else 0
        if turns < TURNS and self.queued < self._most_at_once:
            asyncio.get_running_loop().call_soon(self._gather, turns, self.queued)
        else:
            self._start()

    def _start(self) -> None:
        """Take what waits, as far as it goes together, to the thread."""
        batch = self._next_batch()
        if not batch:
            self._busy_until = None
            return
        cost = sum(work.cost for work in batch)
        self._busy_until = time.monotonic() + cost * self._seconds_per_item
        self.executor.submit(self._compute, batch, cost, asyncio.get_running_loop())

    def _next_batch(self) -> list[Work]:
        batch: list[Work] = []
        cost, now = 0, time.monotonic()
        waiting = self._waiting
        while waiting:
            work = waiting[0]
            wanted = not work.answer.done() and now < work.deadline
            if (
                wanted
                and batch
                and (work.compute != batch[0].compute or cost + work.cost > self._most_at_once)
            ):
                break
            waiting.popleft()
            self.queued -= work.cost
            if wanted:
                batch.append(work)
                cost += work.cost
                continue
            self.counts.dropped += 1
            if not work.answer.done():
                work.answer.set_exception(
                    DeadlineError("The deadline passed before it was this request's turn.")
                )
        return batch

    def _compute(self, batch: list[Work], cost: int, loop: asyncio.AbstractEventLoop) -> None:
        """On the lane's thread."""
        started = time.monotonic()
        answers = _answers(batch[0].compute, [work.query for work in batch])
        try:
            loop.call_soon_threadsafe(self._finish, batch, answers, cost, time.monotonic() - started)
        except RuntimeError:
            logger.debug("the loop is gone, and with it who asked")

    def _finish(self, batch: list[Work], answers: list[Any], cost: int, seconds: float) -> None:
        share = SMOOTHING if self._seconds_per_item else 1.0
        self._seconds_per_item += share * (seconds / cost - self._seconds_per_item)
        counts = self.counts
        counts.batches += 1
        counts.queries += len(batch)
        counts.items += cost
        counts.busy_seconds += seconds
        self._gather()
        for work, answer in zip(batch, answers, strict=True):
            if work.answer.done():
                continue
            if isinstance(answer, Exception):
                work.answer.set_exception(answer)
            else:
                work.answer.set_result(answer)


def _answers(compute: Compute, queries: list[Any]) -> list[Any]:
    """One for each query; if the batch fails, each by itself, so that a query fails through its own fault alone."""
    try:
        return compute(queries)
    except Exception as error:
        if len(queries) == 1:
            return [error]
        return [_answers(compute, [query])[0] for query in queries]
