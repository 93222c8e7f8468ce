"""The operator's service of one process: what it serves, how busy it is, and the handles."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc

from server import describe
from server.calls import Calls, Gate
from server.pb import admin_pb2 as pb
from server.status import RefusedError, UnavailableError
from server.streams import StreamLimits
from widedeep.errors import ConfigError, InvalidQueryError, RequestError, TrackingError, WideDeepError

if TYPE_CHECKING:
    from server.app import Server

logger = logging.getLogger(__name__)

SERVICE = pb.DESCRIPTOR.services_by_name["Admin"]
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

    async def GetMetrics(self, _: pb.GetMetricsRequest, __: Context) -> pb.GetMetricsResponse:
        return pb.GetMetricsResponse(text=self._server.metrics())

    def _status(self) -> pb.WorkerStatus:
        server, store = self._server, self._server.store.status()
        state = pb.WORKER_STATE_SERVING if server.is_ready else pb.WORKER_STATE_LOADING
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
                for lane in (server.lanes.rankings, server.lanes.scores)
            ],
            models=describe.to_models_response(store).models,
            registry=describe.to_registry_status(store),
        )


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
