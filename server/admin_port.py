"""The operators' port: a gRPC server of its own, and what its requests may say."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import grpc

from server.calls import Calls, Gate
from server.pb import admin_pb2 as pb
from server.status import RefusedError, UnavailableError
from server.streams import StreamLimits
from widedeep.errors import ConfigError, InvalidQueryError, RequestError, TrackingError, WideDeepError

logger = logging.getLogger(__name__)

SERVICE = pb.DESCRIPTOR.services_by_name["Admin"]
Context: TypeAlias = grpc.aio.ServicerContext


class Listener:
    """A gRPC server for operators alone: it answers while the other one is full, or not there yet."""

    def __init__(self, servicer: Any, address: str, gate: Gate | None = None) -> None:
        """
        servicer  the methods of widedeep.admin.v1.Admin
        address   host:port, or unix:PATH
        """
        self._servicer = servicer
        self._address = address
        self._calls = Calls(StreamLimits(1, 1, 1), gate)

    async def start(self) -> None:
        """Raises  ConfigError: the address cannot be had"""
        self._grpc = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self._grpc.add_generic_rpc_handlers((self._calls.handler(SERVICE, self._servicer),))
        try:
            self._grpc.add_insecure_port(self._address)
        except RuntimeError as error:
            raise ConfigError(
                f"Cannot listen for operators on {self._address}: the port is taken, or the address is not of this "
                "machine. Choose another with --admin-port or --admin-host."
            ) from error
        await self._grpc.start()
        logger.info("listening for operators on %s", self._address)

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
