"""The operator's service of one process: what it serves, how busy it is, and the handles."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc

from server import describe, listening
from server.call import Gate
from server.calls import Calls
from server.deadlines import Deadlines
from server.pb import admin_pb2 as pb
from server.settings import ServerSettings
from server.status import RefusedError, UnavailableError
from server.streams import StreamLimits
from widedeep.errors import InvalidQueryError, RequestError, TrackingError, WideDeepError

if TYPE_CHECKING:
    from server.app import Server

logger = logging.getLogger(__name__)

SERVICE = pb.DESCRIPTOR.services_by_name["Admin"]
LONGEST = 3600.0  # seconds that what an operator asks for may take: loading above all
MOST_CALLS = 100

Context: TypeAlias = grpc.aio.ServicerContext


class Admin:
    """The methods of widedeep.admin.v1.Admin."""

    def __init__(self, server: Server, number: int = 0) -> None:
        """number  of this process among the workers"""
        self._server = server
        self._number = number
        self._started = time.monotonic()

    async def GetStatus(self, _: pb.GetStatusRequest, __: Context) -> pb.GetStatusResponse:
        return pb.GetStatusResponse(workers=[self._status()])

    async def Reload(self, _: pb.ReloadRequest, __: Context) -> pb.ReloadResponse:
        with explained():
            await self._server.store.reload()
        return pb.ReloadResponse(workers=[self._status()])

    async def Pin(self, request: pb.PinRequest, _: Context) -> pb.PinResponse:
        version = version_of(request)
        with explained():
            await self._server.store.pin(version)
        return pb.PinResponse(workers=[self._status()])

    async def Unpin(self, _: pb.UnpinRequest, __: Context) -> pb.UnpinResponse:
        with explained():
            await self._server.store.unpin()
        return pb.UnpinResponse(workers=[self._status()])

    async def RereadSettings(self, _: pb.RereadSettingsRequest, __: Context) -> pb.RereadSettingsResponse:
        with explained():
            return pb.RereadSettingsResponse(names=await self._server.reread())

    async def Drain(self, request: pb.DrainRequest, _: Context) -> pb.DrainResponse:
        self._server.end(grace_of(request))
        return pb.DrainResponse(workers=[self._status()])

    async def GetMetrics(self, _request: pb.GetMetricsRequest, _context: Context) -> pb.GetMetricsResponse:
        found, _ = self._server.telemetry.metrics.text()
        return pb.GetMetricsResponse(text=found)

    def _status(self) -> pb.WorkerStatus:
        server, store = self._server, self._server.store.status()
        state = pb.WORKER_STATE_SERVING if not server.health.unready else pb.WORKER_STATE_LOADING
        return pb.WorkerStatus(
            number=self._number,
            pid=os.getpid(),
            state=pb.WORKER_STATE_DRAINING if server.ending.is_set() else state,
            uptime_seconds=time.monotonic() - self._started,
            call_count=server.calls.active,
            stream_count=len(server.calls.streams),
            pinned_version=server.store.pinned,
            lanes=[
                pb.LaneStatus(name=lane.name, queued_count=lane.queued, queue_limit=lane.most_queued)
                for lane in server.lanes
            ],
            models=describe.to_models_response(store, server.shadow.agreement).models,
            registry=describe.to_registry_status(store),
        )


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
