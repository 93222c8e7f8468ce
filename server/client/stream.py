"""A stream for threads: gRPC draws the requests in a thread of its own, the caller takes the replies in his."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Generic, TypeVar

import grpc

from server.client.exchange import Exchange
from server.client.values import ClientError, Reply

Q = TypeVar("Q")


def replies(
    exchange: Exchange[Q],
    queries: Iterable[Q],
    start: Callable[[Iterator[Any]], Any],
    failure: Callable[[grpc.RpcError], ClientError],
) -> Generator[Reply[Q], None, None]:
    """What comes to `queries`, as it comes.

    start    opens the call with its requests
    failure  the error for a call that fails
    """
    requests = Requests(exchange, queries)
    call = start(requests.messages())
    try:
        if not call.add_callback(requests.wake):
            requests.wake()
        while True:
            requests.wait_for_reply()
            if exchange.refused:
                reply = exchange.refused.popleft()
            else:
                try:
                    message = next(call)
                except StopIteration:
                    exchange.end()
                    break
                except grpc.RpcError as error:
                    raise failure(error) from error
                reply = exchange.receive(message)
            requests.make_room()
            yield reply
        if requests.failure is not None:
            raise requests.failure
    finally:
        requests.close()
        call.cancel()


class Requests(Generic[Q]):
    """Draws queries while the exchange has room for them."""

    def __init__(self, exchange: Exchange[Q], queries: Iterable[Q]) -> None:
        self.failure: Exception | None = None  # what `queries` raised
        self._exchange = exchange
        self._queries = queries
        self._changed = threading.Condition()
        self._drained = False  # no more queries come
        self._over = False  # the call has ended, or nobody wants its replies any more

    def messages(self) -> Iterator[Any]:
        try:
            queries = iter(self._queries)
            while self._has_room():
                try:
                    query = next(queries)
                except StopIteration:
                    break
                with self._changed:
                    message = self._exchange.send(query)
                    self._changed.notify()
                if message is not None:
                    yield message
        except Exception as error:
            self.failure = error
        finally:
            with self._changed:
                self._drained = True
                self._changed.notify()

    def wait_for_reply(self) -> None:
        """Until there is one to wait for, or none will come. Only then may a thread wait in gRPC, deaf to the rest."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._exchange.refused or self._exchange.sent or self._drained or self._over
            )

    def make_room(self) -> None:
        with self._changed:
            self._changed.notify()

    def wake(self) -> None:
        with self._changed:
            self._over = True
            self._changed.notify_all()

    close = wake

    def _has_room(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._exchange.has_room or self._over)
        return not self._over
