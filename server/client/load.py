"""A load on a server: a mix of requests at a concurrency or a rate, and what came back."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from server.client.latencies import Latencies
from server.client.senders import KINDS, FailedError, Sender, StreamSender

__all__ = ["KINDS", "Load", "Record", "Tally"]
ERROR_PAUSE = (
    0.01  # seconds; a server that is away would be asked by nothing but errors, as fast as they come
)
TIMER = 0.001  # seconds; the event loop wakes up as late as that
clock = time.perf_counter


@dataclass
class Tally:
    """What became of the requests of one kind.

    not_personal  answers that could not be
    """

    latencies: Latencies = field(default_factory=Latencies)
    errors: Counter[str] = field(default_factory=Counter)
    not_personal: int = 0


@dataclass
class Record:
    """What counts of a run.

    seconds  how long requests were sent
    lasted   seconds until the last answer to them
    models   answers by the model version that gave them
    cpu      CPU seconds that sending took
    """

    seconds: float = 0.0
    lasted: float = 0.0
    cpu: float = 0.0
    tallies: defaultdict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    models: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    @property
    def answered(self) -> int:
        return sum(tally.latencies.count for tally in self.tallies.values())


@dataclass
class Load:
    """
    mix          share of each kind
    rate         requests a second, sent when they are due; None: `concurrency` at a time
    concurrency  how many at a time, where there is no rate
    warm_up      seconds at the start that do not count
    timeout      seconds that a request may take
    """

    senders: Mapping[str, Sender | StreamSender]
    mix: Mapping[str, float]
    concurrency: int
    rate: float | None
    warm_up: float
    duration: float
    timeout: float

    async def run(self, stop: asyncio.Event) -> Record:
        """Until the duration is over or `stop` is set."""
        self._record = Record()
        self._stop = stop
        self._begun = clock()
        self._counted_from = self._begun + self.warm_up
        self._end = self._counted_from + self.duration
        kinds = self._kinds()
        cpu = asyncio.create_task(self._cpu_after_warm_up())
        if self.rate is None:
            tasks: set[asyncio.Task[Any]] = {
                asyncio.create_task(self._work(kinds)) for _ in range(self.concurrency)
            }
            await self._sleep_until(self._end)
        else:
            tasks = await self._pace(self.rate, kinds)
        self._record.seconds = max(0.0, clock() - self._counted_from)
        self._record.lasted = max(self._record.lasted, self._record.seconds)
        if cpu.done():
            self._record.cpu = time.process_time() - cpu.result()
        cpu.cancel()
        await self._finish(tasks)
        return self._record

    def _kinds(self) -> Iterator[str]:
        """The mix, shuffled, the same in every run."""
        draw = random.Random(0)
        return itertools.cycle(draw.choices(list(self.mix), list(self.mix.values()), k=10_007))

    async def _work(self, kinds: Iterator[str]) -> None:
        while (now := clock()) < self._end and not self._stop.is_set():
            if not await self._send(next(kinds), now, now >= self._counted_from):
                await asyncio.sleep(ERROR_PAUSE)

    async def _pace(self, rate: float, kinds: Iterator[str]) -> set[asyncio.Task[Any]]:
        """The tasks that are still in flight.

        A request is sent up to a timer's tick early rather than late. What is sent late, because this process or the
        server's reading holds it up, has its latency counted from when it was due.
        """
        tasks: set[asyncio.Task[Any]] = set()
        uncounted = round(self.warm_up * rate)
        for number in range(uncounted + max(1, round(self.duration * rate))):
            due = self._begun + number / rate
            if due - clock() > TIMER:
                await self._sleep_until(due - TIMER)
            else:
                await asyncio.sleep(0)
            if self._stop.is_set():
                break
            task = asyncio.create_task(self._send(next(kinds), min(due, clock()), number >= uncounted))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await self._sleep_until(self._end)
        return tasks

    async def _send(self, kind: str, begun: float, counts: bool) -> bool:
        """Whether it was answered."""
        try:
            response = await self.senders[kind].send()
        except FailedError as error:
            if counts:
                self._record.tallies[kind].errors[error.code] += 1
            return False
        except asyncio.CancelledError:
            if counts and not self._stop.is_set():
                self._record.tallies[kind].errors["DEADLINE_EXCEEDED"] += 1
            raise
        if counts:
            tally = self._record.tallies[kind]
            now = clock()
            tally.latencies.add(now - begun)
            self._record.lasted = max(self._record.lasted, now - self._counted_from)
            tally.not_personal += getattr(response, "cold_start", False)
            model = response.model
            self._record.models[model.name, model.version, model.alias] += 1
        return True

    async def _finish(self, tasks: set[asyncio.Task[Any]]) -> None:
        """Wait for answers, as long as each may take; messages of a stream have no deadline of their own."""
        if waiting := set(tasks):
            stopping = asyncio.create_task(self._stop.wait())
            ended = asyncio.gather(*waiting, return_exceptions=True)
            either: list[asyncio.Future[Any]] = [ended, stopping]
            await asyncio.wait(either, timeout=self.timeout + 1, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)
        for sender in self.senders.values():
            await sender.close()

    async def _cpu_after_warm_up(self) -> float:
        await asyncio.sleep(self.warm_up)
        return time.process_time()

    async def _sleep_until(self, moment: float) -> None:
        """Until then, or until `stop` is set."""
        seconds = moment - clock()
        if seconds < 0.1:
            await asyncio.sleep(max(0.0, seconds))
            return
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return
