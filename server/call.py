"""One call, and who has a say in it or is told of it."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
from google.protobuf.message import Message
from google.rpc import code_pb2

from server.entrance import Metadata

REQUEST_ID = "x-request-id"  # in a call's metadata, for requests without an id of their own
ID_LIMIT = 256  # characters


@dataclass(slots=True, eq=False)
class Call:
    """One call, from its first moment to its last, or one message of a stream's.

    service    such as widedeep.v1.Recommender
    started    on the clock of time.monotonic
    caller     whose token it came with; empty where none is asked for
    code       how it ended; CANCELLED until it has
    text       what was said of its error
    request    None for a stream, and for bytes that are none
    stream     the call that a message came with
    admission  the gate's own note of it
    span       what traces it, if it is traced
    """

    service: str
    method: str
    is_stream: bool
    context: grpc.aio.ServicerContext
    started: float = field(default_factory=time.monotonic)
    caller: str = ""
    code: int = code_pb2.CANCELLED
    text: str = ""
    request: Message | None = None
    stream: Call | None = None
    admission: Any = None
    span: Any = None

    @property
    def name(self) -> str:
        return f"{self.service}/{self.method}"

    @property
    def request_id(self) -> str:
        """The request's own id, else that of its metadata; cut where it is longer than any that is answered."""
        own: str = getattr(self.request, "request_id", "") or self.metadata(REQUEST_ID)
        return own[:ID_LIMIT]

    def metadata(self, key: str) -> str:
        for name, value in self.context.invocation_metadata() or ():
            if name == key:
                return str(value)
        return ""


CURRENT: ContextVar[Call | None] = ContextVar("call", default=None)  # whose work is done


class Gate(Protocol):
    """Who may call."""

    def knows(self, metadata: Metadata) -> bool:
        """Whether it is worth to read the message of a call; `admit` has the last word."""

    def admit(self, call: Call) -> None:
        """Set `call.caller`.  Raises  one of status.OF_THE_SERVER: it may not"""

    def admit_message(self, call: Call) -> None:
        """One more message of an open stream.  Raises  likewise; the stream lives on"""


class Watcher(Protocol):
    """Who is told of calls and of streams' messages. Called on the event loop, for each: quick, and never raising."""

    def began(self, call: Call) -> None: ...

    def ended(self, call: Call, response: Message | None) -> None:
        """response  None for streams, and where there is none"""

    def message_began(self, call: Call) -> None: ...

    def message_ended(self, call: Call, response: Message | None) -> None: ...
