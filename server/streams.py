"""One open stream: read ahead within bounds, answered in any order, written as the client reads."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message

from server.status import IdleError, SlowReaderError, UnavailableError

DRAINING = UnavailableError(
    "The server is stopping. Send what it has not answered again, elsewhere or later."
)


@dataclass(frozen=True)
class StreamLimits:
    """in_flight: messages read and not yet taken by the client;  idle, stall: seconds"""

    in_flight: int
    idle: float  # without a message while nothing is in flight
    stall: float  # that the client does not take an answer


class Stream:
    """The messages of one call. At most `limits.in_flight` are held, whatever the client sends or does not read."""

    def __init__(
        self,
        context: grpc.aio.ServicerContext,
        answer: Callable[[Message], Coroutine[Any, Any, Message]],
        limits: StreamLimits,
    ) -> None:
        """answer  gives the reply to a message, and a reply with a status where there is none to give"""
        self._context = context
        self._answer = answer
        self._limits = limits
        self._tasks: set[asyncio.Task[Message]] = set()
        self._replies: deque[Message] = deque()
        self._ending: Exception | None = None  # why no more is read, if not by the client's own wish
        self._cut = False
        self._writing_since: float | None = None
        self._active_at = time.monotonic()
        self._watching: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()  # for the writer: a reply is there, or no more will come
        self._room = asyncio.Event()  # for the reader

    @property
    def in_flight(self) -> int:
        return len(self._tasks) + len(self._replies)

    @property
    def unanswered(self) -> int:
        return len(self._tasks)

    async def run(self) -> None:
        """Until the client has ended its side and has its answers.

        Raises  UnavailableError: drained; IdleError; SlowReaderError; asyncio.CancelledError: the client is gone
        """
        task = asyncio.current_task()
        assert task is not None
        self._reader = asyncio.create_task(self._read())
        self._reader.add_done_callback(lambda _: self._changed.set())
        self._call = task
        self._watching = asyncio.create_task(self._watch(task))
        try:
            await self._write()
        except asyncio.CancelledError:
            if not self._cut:
                raise
            task.uncancel()
        finally:
            self._watching.cancel()
            self._watching = None
            self._reader.cancel()
            for waiting in self._tasks:
                waiting.cancel()
        if self._ending is not None:
            raise self._ending

    def end(self, reason: Exception = DRAINING) -> None:
        """Read no more; answer what was read."""
        if self._ending is None:
            self._ending = reason
            self._reader.cancel()

    def apply(self, limits: StreamLimits) -> None:
        """From now on."""
        self._limits = limits
        self._room.set()
        if self._watching is not None and self._watching.cancel():  # it sleeps until the old ones are reached
            self._watching = asyncio.create_task(self._watch(self._call))

    async def _read(self) -> None:
        while self._ending is None:
            message = await self._context.read()
            if message is grpc.aio.EOF:
                return
            self._active_at = time.monotonic()
            task = asyncio.create_task(self._answer(message))
            self._tasks.add(task)
            task.add_done_callback(self._answered)
            while self.in_flight >= self._limits.in_flight:
                self._room.clear()
                await self._room.wait()

    def _answered(self, task: asyncio.Task[Message]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            self._replies.append(task.result())
            self._changed.set()

    async def _write(self) -> None:
        replies = self._replies
        while True:
            while replies:
                self._writing_since = self._active_at = time.monotonic()
                await self._context.write(replies[0])
                self._writing_since = None
                replies.popleft()  # only now: until then it is in flight
                self._room.set()
            if self._reader.done() and not self._tasks:
                if not self._reader.cancelled():
                    self._reader.result()
                return
            self._changed.clear()
            await self._changed.wait()

    async def _watch(self, call: asyncio.Task[Any]) -> None:
        """Ends the stream that only waits, and cuts off the one that is not read."""
        limits = self._limits
        while True:
            now = time.monotonic()
            stalled_at = (self._writing_since or now) + limits.stall
            idle_at = (self._active_at if not self.in_flight else now) + limits.idle
            if now >= stalled_at:
                self._cut = True
                self._ending = SlowReaderError(
                    f"An answer was not read for {limits.stall:g} s. Read answers while you send requests."
                )
                call.cancel()
                return
            if now >= idle_at:
                self.end(IdleError(f"Nothing happened on this stream for {limits.idle:g} s. Open another."))
                return
            await asyncio.sleep(max(0.01, min(stalled_at, idle_at) - now))
