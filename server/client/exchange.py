"""One stream's requests in flight, and how answers find their way back to them. No I/O: both clients use it."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from server.client import errors
from server.client.messages import Method
from server.client.values import ClientError, Reply

Q = TypeVar("Q")
DEFAULT_IN_FLIGHT = 64


class Exchange(Generic[Q]):
    """Answers may come in any order: the request's id tells whose they are.

    in_flight  how many queries may wait for their reply to be taken
    """

    def __init__(self, method: Method[Q], in_flight: int) -> None:
        if in_flight < 1:
            raise ClientError(
                "INVALID_ARGUMENT", f"in_flight must be at least 1, got {in_flight}.", "in_flight"
            )
        assert method.envelope is not None, method.name
        self._method = method
        self._envelope: Callable[..., Any] = method.envelope
        self._in_flight = in_flight
        self._ids = map(str, itertools.count(1))
        self.sent: dict[str, tuple[Q, str, Any]] = {}  # by the id on the wire: query, its own id, request
        self.refused: deque[Reply[Q]] = deque()  # queries that no message can hold

    @property
    def has_room(self) -> bool:
        return len(self.sent) + len(self.refused) < self._in_flight

    def send(self, query: Q) -> Any:
        """The message to send; None where the query cannot be sent, and its reply stands in `refused`."""
        try:
            request = self._method.build(query)
        except (TypeError, ValueError) as error:
            self.refused.append(Reply(query, None, ClientError("INVALID_ARGUMENT", str(error))))
            return None
        own = wire = request.request_id
        while not wire or wire in self.sent:  # the caller's own ids need not be different from one another
            wire = next(self._ids)
        request.request_id = wire
        self.sent[wire] = (query, own, request)
        return self._envelope(request=request)

    def receive(self, message: Any) -> Reply[Q]:
        """Raises  ClientError: the answer to something that was not asked"""
        if message.request_id not in self.sent:
            raise self.broken("the server answered a request that is not in flight.")
        query, own, request = self.sent.pop(message.request_id)
        if message.status.code:
            return Reply(query, None, errors.of_status(message.status))
        message.response.request_id = own
        return Reply(query, self._method.read(request, message.response), None)

    def end(self) -> None:
        """Raises  ClientError: the server has ended the stream, and something is unanswered"""
        if self.sent:
            raise self.broken("the server ended the stream before it had answered everything.")

    def broken(self, text: str) -> ClientError:
        return ClientError("INTERNAL", text, unanswered=self.unanswered)

    @property
    def unanswered(self) -> tuple[Q, ...]:
        return tuple(query for query, _, _ in self.sent.values())
