"""Whether the server is alive and whether it is ready: two questions, for gRPC's health service and over HTTP.

readiness  calls are answered: a model is served, and the server is not about to stop
liveness   the event loop turns. Who restarts what is not alive must not ask for readiness: a model takes time to
           load, and a drain its time to end.
"""

from __future__ import annotations

import asyncio
import time

from grpc_health.v1 import health, health_pb2

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
LIVENESS = "liveness"
READINESS = "readiness"
LOADING = "the model is being loaded"
DRAINING = "the server is draining"
BEAT = 0.5  # seconds between two beats of the event loop
STALLED = 10.0  # seconds without one after which the loop is held to be blocked


class Health:
    """To be changed on the event loop. Reading it is for any thread."""

    def __init__(self, *services: str) -> None:
        """services  full names, each as ready as the whole"""
        self.servicer = health.aio.HealthServicer()
        self.unready: str = LOADING  # why; empty: it is ready
        self.delay = 0.0  # seconds by which the last beat came late: what the loop was busy with
        self._names = ("", READINESS, *services)  # "" is the server as a whole
        self._beat = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Alive, and not ready yet."""
        await self.servicer.set(LIVENESS, SERVING)
        await self._set(NOT_SERVING)
        self._beat = time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(BEAT, self._turned)

    async def ready(self) -> None:
        """Unless a drain has begun."""
        if self.unready == LOADING:
            self.unready = ""
            await self._set(SERVING)

    async def drain(self) -> None:
        """Not ready any more, for good; alive until the end."""
        self.unready = DRAINING
        await self._set(NOT_SERVING)

    def stop(self) -> None:
        if self._timer:
            self._timer.cancel()

    @property
    def stalled(self) -> float:
        """Seconds since the event loop should have turned last; 0 while it turns in time."""
        late = time.monotonic() - self._beat - BEAT
        return late if late > STALLED else 0.0

    async def _set(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for name in self._names:
            await self.servicer.set(name, status)

    def _turned(self) -> None:
        now = time.monotonic()
        self.delay = max(0.0, now - self._beat - BEAT)
        self._beat = now
        self._timer = asyncio.get_running_loop().call_later(BEAT, self._turned)
