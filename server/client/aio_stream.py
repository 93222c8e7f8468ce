"""A stream for asyncio: one task writes the requests, the caller's own reads the replies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from typing import Any, Generic, TypeVar

import grpc

from server.client.aio_reader import Reader
from server.client.exchange import Exchange
from server.client.values import ClientError, Reply

Q = TypeVar("Q")


async def replies(
    exchange: Exchange[Q],
    queries: AsyncIterable[Q] | Iterable[Q],
    start: Callable[[], Any],
    failure: Callable[[grpc.RpcError], ClientError],
) -> AsyncGenerator[Reply[Q], None]:
    """What comes to `queries`, as it comes.

    start    opens the call
    failure  the error for a call that fails
    """
    call = start()
    reader = Reader(call)
    requests = Requests(exchange, queries, call)
    writing = asyncio.create_task(requests.write())
    try:
        while True:
            await requests.wait_for_reply()
            if exchange.refused:
                reply = exchange.refused.popleft()
            else:
                try:
                    message = await reader.read()
                except grpc.RpcError as error:
                    raise failure(error) from error
                if message is grpc.aio.EOF:
                    exchange.end()
                    break
                reply = exchange.receive(message)
            requests.wake()
            yield reply
        if requests.failure is not None:
            raise requests.failure
    finally:
        writing.cancel()
        call.cancel()
        await asyncio.wait([writing])


class Requests(Generic[Q]):
    """Draws queries while the exchange has room for them, and writes them."""

    def __init__(self, exchange: Exchange[Q], queries: AsyncIterable[Q] | Iterable[Q], call: Any) -> None:
        self.failure: Exception | None = None  # what `queries` raised
        self._exchange = exchange
        self._queries = queries
        self._call = call
        self._drained = False  # no more queries come
        self._changed = asyncio.Event()
        call.add_done_callback(lambda _: self.wake())

    async def write(self) -> None:
        try:
            queries = _each(self._queries)
            while await self._has_room():
                try:
                    query = await anext(queries)
                except StopAsyncIteration:
                    break
                message = self._exchange.send(query)
                self.wake()
                if message is not None and not await self._written(self._call.write(message)):
                    return
        except Exception as error:
            self.failure = error
        finally:
            self._drained = True
            self.wake()
        await self._written(self._call.done_writing())

    async def wait_for_reply(self) -> None:
        """Until there is one to read, or none will come. A read cannot be given up without the call."""
        exchange = self._exchange
        while not (exchange.refused or exchange.sent or self._drained or self._call.done()):
            self._changed.clear()
            await self._changed.wait()

    def wake(self) -> None:
        self._changed.set()

    async def _has_room(self) -> bool:
        while not (self._exchange.has_room or self._call.done()):
            self._changed.clear()
            await self._changed.wait()
        return not self._call.done()

    async def _written(self, writing: Any) -> bool:
        """False where the call has ended: its reader says why."""
        try:
            await writing
        except (grpc.RpcError, asyncio.InvalidStateError):
            return False
        return True


async def _each(queries: AsyncIterable[Q] | Iterable[Q]) -> AsyncIterator[Q]:
    if isinstance(queries, AsyncIterable):
        async for query in queries:
            yield query
    else:
        for query in queries:
            yield query
