"""Concurrent requests become few calls of the model.

No time is waited for queries to be gathered: those that come while a lane is busy are its next batch. gRPC hands
over one call in a turn of the event loop, so a lane lets the loop turn while more of what has come is handed over:
a few microseconds where nothing is. Each lane has a thread, so a long ranking does not hold up a score.

A lane takes no more than it expects to compute in time. A call beyond that is refused; a message of a stream is held
back instead, and with it the stream, until there is room.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from server.call import CURRENT
from server.status import DeadlineError, OverloadedError
from server.work import Batch, Compute, LaneCounts, Work

logger = logging.getLogger(__name__)

TURNS = 8  # of the event loop without a new query, after which there is none at hand
LOOK_AHEAD = 256  # queries of other models that are passed over to fill a batch
SMOOTHING = 0.2  # the latest batch's share of the expected cost of an item
LONGEST_RETRY = 20.0  # seconds that a refused call is told to stay away, at most and on average


class Lane:
    """A bounded queue and the thread that empties it. Everything but the computing is on the event loop."""

    def __init__(
        self,
        name: str,
        most_queued: int,
        most_at_once: int,
        max_wait: float,
        initializer: Callable[[], None] | None = None,
        observers: Sequence[Callable[[Batch], None]] = (),
    ) -> None:
        """
        most_queued   items that may wait; a query beyond them is refused, unless nothing waits
        most_at_once  items in a batch; one query alone may have more
        max_wait      seconds of work before a new query; beyond them it is refused or, if it is patient, held back
        initializer   is called by the thread, once
        observers     told of each batch, on the event loop, before its answers are given
        """
        self.name = name
        self.counts = LaneCounts()
        self.executor = ThreadPoolExecutor(1, name, initializer)
        self.queued = 0  # items, those held back included
        self.most_queued = most_queued
        self.most_at_once = most_at_once
        self.max_wait = max_wait
        self._observers = observers
        self._waiting: deque[Work] = deque()
        self._held: deque[Work] = deque()  # patient, and not yet let in
        self._held_cost = 0  # items
        self._refused = 0  # calls since the last batch was done
        self._pressure = 0.0  # refused calls for each that is answered, of late
        self._done = 0  # items of the last batch, until others are let in
        self._busy_until: float | None = None  # when the batch at work should be done; None when idle
        self._seconds_per_item = 0.0

    async def answer(
        self, compute: Compute, query: Any, cost: int, remaining: float | None, patient: bool = False
    ) -> Any:
        """The answer of `compute` to one query, computed together with others. Cancelled, it is never computed.

        compute    takes queries, on the lane's thread
        cost       in items, at least 1
        remaining  seconds until nobody wants the answer any more; None: no end
        patient    held back where it would be refused for the time that it would wait
        Raises     OverloadedError, DeadlineError; what `compute` gave in place of an answer
        """
        if not patient and (refusal := self.refusal()):
            raise refusal
        if self.queued and self.queued + cost > self.most_queued:
            self.counts.overloaded += 1
            self._refused += 1
            raise OverloadedError(
                f"{self.queued} items wait in the {self.name} lane, and it takes {self.most_queued}. "
                "Try again later, or ask for less at a time.",
                self._retry_after(),
            )
        now = time.monotonic()
        ahead = self._seconds_ahead(now)
        if remaining is not None and remaining < ahead:
            self.counts.hopeless += 1
            raise DeadlineError(
                f"The {max(remaining, 0):.3f} s that are left are less than the {ahead:.3f} s of work that wait. "
                "Allow more time, or try again later."
            )
        deadline = float("inf") if remaining is None else now + remaining
        future = asyncio.get_running_loop().create_future()
        work = Work(compute, query, cost, now, deadline, future, CURRENT.get())
        self.queued += cost
        if patient and (self._held or ahead > self.max_wait / 2):
            self._held.append(work)
            self._held_cost += cost
        else:
            self._waiting.append(work)
        if self._busy_until is None:
            self._gather()
        return await work.answer

    def refusal(self) -> OverloadedError | None:
        """Why an impatient query would be refused now, whatever it asks; it counts as refused.

        To be asked before anything is done for a query: what a refusal costs is taken from those that are answered.
        """
        now = time.monotonic()
        if self._seconds_ahead(now) <= self.max_wait:
            return None
        # What a small batch costs an item says little of a large one, so a burst after quiet looks longer than it is.
        if self._waiting and now - self._waiting[0].since < self.max_wait / 2:
            return None
        self.counts.overloaded += 1
        self._refused += 1
        return OverloadedError(
            f"More than {self.max_wait:g} s of work wait in the {self.name} lane. Try again later.",
            self._retry_after(),
        )

    def close(self) -> None:
        """Compute nothing more."""
        self.executor.shutdown(wait=False, cancel_futures=True)

    def _seconds_ahead(self, now: float) -> float:
        """Of work that comes before a new query."""
        if self._busy_until is None:
            return 0.0
        return max(0.0, self._busy_until - now) + (self.queued - self._held_cost) * self._seconds_per_item

    def _retry_after(self) -> float:
        """Seconds: the longer, the more are refused, and for each another, so that they do not come back together."""
        ahead = self._seconds_ahead(time.monotonic())
        return min(ahead * (1 + self._pressure), LONGEST_RETRY) * random.uniform(0.5, 1.5)

    def _let_in(self, done: int) -> None:
        """Patient work, as far as there is room: in the half of the time that calls leave it, and besides as much as
        half of what was just `done`, so that neither keeps the other out."""
        half, let_in = self.max_wait / 2, 0
        while self._held and (2 * let_in < done or self._seconds_ahead(time.monotonic()) <= half):
            work = self._held.popleft()
            self._held_cost -= work.cost
            let_in += work.cost
            self._waiting.append(work)

    def _gather(self, turns: int = 0, queued: int = -1) -> None:
        """Start once the loop has turned TURNS times without a new query."""
        self._busy_until = time.monotonic()
        turns = turns + 1 if self.queued == queued else 0
        if turns < TURNS and self.queued < self.most_at_once:
            asyncio.get_running_loop().call_soon(self._gather, turns, self.queued)
        else:
            self._start()

    def _start(self) -> None:
        """Take what waits, as far as it goes together, to the thread."""
        self._let_in(self._done)
        self._done = 0
        while not (batch := self._next_batch()) and self._held:
            self._let_in(0)
        if not batch:
            self._busy_until = None
            return
        cost = sum(work.cost for work in batch)
        self._busy_until = time.monotonic() + cost * self._seconds_per_item
        self.executor.submit(self._compute, batch, cost, asyncio.get_running_loop())

    def _next_batch(self) -> list[Work]:
        """What waits longest, and what comes soon after it and may share its batch."""
        batch: list[Work] = []
        others: list[Work] = []
        cost, now = 0, time.monotonic()
        waiting = self._waiting
        while waiting and len(others) < LOOK_AHEAD:
            work = waiting.popleft()
            if work.answer.done() or now >= work.deadline:
                self._drop(work)
            elif batch and work.compute != batch[0].compute:
                others.append(work)
            elif batch and cost + work.cost > self.most_at_once:
                others.append(work)
                break
            else:
                self.queued -= work.cost
                batch.append(work)
                cost += work.cost
        waiting.extendleft(reversed(others))
        return batch

    def _drop(self, work: Work) -> None:
        self.queued -= work.cost
        self.counts.dropped += 1
        if not work.answer.done():
            work.answer.set_exception(DeadlineError("The deadline passed before it was this request's turn."))

    def _compute(self, batch: list[Work], cost: int, loop: asyncio.AbstractEventLoop) -> None:
        """On the lane's thread."""
        started = time.monotonic()
        answers = _answers(batch[0].compute, [work.query for work in batch])
        try:
            done = Batch(self.name, batch, cost, started, time.monotonic() - started)
            loop.call_soon_threadsafe(self._finish, done, answers)
        except RuntimeError:
            logger.debug("the loop is gone, and with it who asked")

    def _finish(self, batch: Batch, answers: list[Any]) -> None:
        share = SMOOTHING if self._seconds_per_item else 1.0
        self._seconds_per_item += share * (batch.seconds / batch.cost - self._seconds_per_item)
        counts = self.counts
        counts.batches += 1
        counts.queries += len(batch.works)
        counts.items += batch.cost
        counts.busy_seconds += batch.seconds
        self._pressure += SMOOTHING * (self._refused / len(batch.works) - self._pressure)
        self._refused, self._done = 0, batch.cost
        self._gather()
        for observe in self._observers:
            observe(batch)
        for work, answer in zip(batch.works, answers, strict=True):
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
