"""The operators' port: a gRPC server of its own, and what its requests may say."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import grpc

from server import listening
from server.call import Gate
from server.calls import Calls
from server.deadlines import Deadlines
from server.pb import admin_pb2 as pb
from server.settings import ServerSettings
from server.status import RefusedError, UnavailableError
from server.streams import StreamLimits
from widedeep.errors import InvalidQueryError, RequestError, TrackingError, WideDeepError

logger = logging.getLogger(__name__)

SERVICE = pb.DESCRIPTOR.services_by_name["Admin"]
LONGEST = 3600.0  # seconds that what an operator asks for may take: loading above all
MOST_CALLS = 100

Context: TypeAlias = grpc.aio.ServicerContext


class Listener:
    """A gRPC server for operators alone: it answers while the other one is full, or not there yet."""

    def __init__(self, servicer: Any, gate: Gate | None, listen: Callable[[grpc.aio.Server], str]) -> None:
        """
        servicer  the methods of widedeep.admin.v1.Admin
        listen    opens the port, and says where
        """
        self._servicer = servicer
        self._listen = listen
        self._calls = Calls(StreamLimits(1, 1, 1), Deadlines(LONGEST, LONGEST), MOST_CALLS, gate)

    @classmethod
    def of(cls, settings: ServerSettings, servicer: Any, gate: Gate | None) -> Listener:
        """Where the settings say, with their certificate."""
        host, port = settings.admin_host, settings.admin_port
        return cls(servicer, gate, lambda to: listening.listen(to, host, port, settings, "--admin-host"))

    @classmethod
    def for_parent(cls, servicer: Any, address: str) -> Listener:
        """address  unix:PATH, in a folder that nobody else can read"""

        def listen(server: grpc.aio.Server) -> str:
            server.add_insecure_port(address)
            return address

        return cls(servicer, None, listen)

    async def start(self) -> None:
        """Raises  ConfigError: what listening.listen raises"""
        self._grpc = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self._grpc.add_generic_rpc_handlers((self._calls.handler(SERVICE, self._servicer),))
        address = self._listen(self._grpc)
        await self._grpc.start()
        logger.info("listening for operators on %s", address)

    async def stop(self) -> None:
        """What was asked is still answered, if it does not take long."""
        await self._grpc.stop(1.0)


def version_of(request: pb.PinRequest) -> str:
    """Raises  InvalidQueryError: it is not a number"""
    version = str(request.version)
    if not (version.isascii() and version.isdigit() and len(version) <= 18 and version[0] != "0"):
        raise InvalidQueryError("version", f"must be a version's number, such as 7; got {version[:50]!r}.")
    return version


def grace_of(request: pb.DrainRequest) -> float | None:
    """Seconds; None: the server's own.  Raises  InvalidQueryError: out of range"""
    if not request.HasField("grace_seconds"):
        return None
    if not (math.isfinite(request.grace_seconds) and 0 <= request.grace_seconds <= 86_400):
        raise InvalidQueryError("grace_seconds", f"must be from 0 to 86400, got {request.grace_seconds}.")
    return float(request.grace_seconds)


@contextmanager
def explained() -> Iterator[None]:
    """Tell an operator what others are not told: why it failed."""
    try:
        yield
    except (RequestError, RefusedError, UnavailableError):
        raise
    except TrackingError as error:
        raise UnavailableError(str(error)) from error
    except WideDeepError as error:
        raise RefusedError(str(error)) from error
