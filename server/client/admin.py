"""The client of the operators' port.

from server.client.admin import AdminClient

with AdminClient("127.0.0.1:50052") as admin:
    for worker in admin.pin("7"):
        print(worker.number, worker.models[0])
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from server.client import messages
from server.client.connection import Client
from server.client.values import ModelStatus
from server.pb import admin_pb2 as pb
from server.pb import admin_pb2_grpc as pb_grpc

DEFAULT_TARGET = "127.0.0.1:50052"
DEFAULT_TIMEOUT = 600.0  # seconds: a version is loaded, checked and warmed up, by one worker after the other


@dataclass(frozen=True)
class Lane:
    """A queue: what waits in it, and how much may."""

    name: str
    queued: int
    limit: int


@dataclass(frozen=True)
class Worker:
    """One process that serves.

    state    "LOADING", "SERVING", "DRAINING" or "DOWN"
    uptime   seconds
    calls    in flight, streams included
    pinned   the version that it is pinned to; empty if it is not
    models   the served one first
    problem  what is wrong with the registry; empty if nothing is
    """

    number: int
    pid: int
    state: str
    uptime: float
    calls: int
    streams: int
    pinned: str
    lanes: tuple[Lane, ...]
    models: tuple[ModelStatus, ...]
    problem: str


class AdminClient(Client):
    """A connection to a server's operators' port. Every method raises ClientError."""

    def __init__(
        self, target: str = DEFAULT_TARGET, timeout: float = DEFAULT_TIMEOUT, **options: Any
    ) -> None:
        """Options: those of `Client`."""
        super().__init__(target, timeout, **options)
        self._admin = pb_grpc.AdminStub(self.channel)  # type: ignore[no-untyped-call]

    def status(self) -> tuple[Worker, ...]:
        """What each worker serves and how busy it is."""
        return self._workers("GetStatus", pb.GetStatusRequest())

    def reload(self) -> tuple[Worker, ...]:
        """Look at the registry now, and serve what the alias points to."""
        return self._workers("Reload", pb.ReloadRequest())

    def pin(self, version: str) -> tuple[Worker, ...]:
        """Serve this version, and follow no alias."""
        return self._workers("Pin", pb.PinRequest(version=version))

    def unpin(self) -> tuple[Worker, ...]:
        """Follow again."""
        return self._workers("Unpin", pb.UnpinRequest())

    def reread(self) -> tuple[str, ...]:
        """Read the settings again: the names of those that have changed."""
        return tuple(self._tell("RereadSettings", pb.RereadSettingsRequest()).names)

    def drain(self, grace: float | None = None) -> tuple[Worker, ...]:
        """End as by SIGTERM; the workers as they were before.

        grace  seconds that calls in flight have; None: what the server was started with
        """
        return self._workers("Drain", pb.DrainRequest(grace_seconds=grace))

    def metrics(self) -> str:
        """In Prometheus's text format."""
        return str(self._tell("GetMetrics", pb.GetMetricsRequest()).text, "utf-8")

    def _workers(self, method: str, request: Any) -> tuple[Worker, ...]:
        return tuple(_worker(found) for found in self._tell(method, request).workers)

    def _tell(self, method: str, request: Any) -> Any:
        with self._explained(self.timeout):
            return getattr(self._admin, method)(request, timeout=self.timeout, metadata=self.metadata)


def _worker(found: pb.WorkerStatus) -> Worker:
    return Worker(
        number=found.number,
        pid=found.pid,
        state=pb.WorkerState.Name(found.state).removeprefix("WORKER_STATE_"),
        uptime=found.uptime_seconds,
        calls=found.call_count,
        streams=found.stream_count,
        pinned=found.pinned_version,
        lanes=tuple(Lane(lane.name, lane.queued_count, lane.queue_limit) for lane in found.lanes),
        models=messages.model_statuses(found),
        problem=found.registry.error,
    )
