"""One call, and who has a say in it or is told of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
from google.protobuf.message import Message
from google.rpc import code_pb2

from server.entrance import Metadata


@dataclass(slots=True, eq=False)
class Call:
    """One call, from its first moment to its last.

    service    such as widedeep.v1.Recommender
    started    on the clock of time.monotonic
    caller     whose token it came with; empty where none is asked for
    code       how it ended; CANCELLED until it has
    admission  the gate's own note of it
    """

    service: str
    method: str
    is_stream: bool
    context: grpc.aio.ServicerContext
    started: float = field(default_factory=time.monotonic)
    caller: str = ""
    code: int = code_pb2.CANCELLED
    admission: Any = None


class Gate(Protocol):
    """Who may call."""

    def knows(self, metadata: Metadata) -> bool:
        """Whether it is worth to read the message of a call; `admit` has the last word."""

    def admit(self, call: Call) -> None:
        """Set `call.caller`.  Raises  one of status.OF_THE_SERVER: it may not"""

    def admit_message(self, call: Call) -> None:
        """One more message of an open stream.  Raises  likewise; the stream lives on"""


class Watcher(Protocol):
    """Who is told of calls. Called on the event loop, for every call: quick, and never raising."""

    def began(self, call: Call) -> None: ...

    def ended(self, call: Call, request: Message | None, response: Message | None) -> None:
        """request, response  None for streams, and where there is none"""
