"""The server as a whole: listens, loads, serves, drains."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health as grpc_health
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from server import listening
from server.call import MessageWatcher
from server.calls import Calls
from server.deadlines import Deadlines
from server.entrance import OpenServices
from server.guard import Guard
from server.health import Health
from server.lanes import Lanes
from server.logs import RequestLog
from server.metrics import Metrics
from server.model_store import ModelStore
from server.pb import recommender_pb2 as pb
from server.probes import Probes
from server.rereading import Change
from server.servicer import Recommender
from server.settings import ServerSettings
from server.shadow import Shadow
from server.state_metrics import StateMetrics
from server.streams import StreamLimits
from widedeep.errors import ConfigError, WideDeepError

if TYPE_CHECKING:
    from server.tracing import Tracing

logger = logging.getLogger(__name__)

SERVICE = pb.DESCRIPTOR.services_by_name["Recommender"]


class Server:
    """One listening server. To be used from one event loop."""

    def __init__(self, settings: ServerSettings, source: Callable[[], ServerSettings] | None = None) -> None:
        """
        source  reads the settings anew; None: they stay
        Raises  ConfigError: a tokens' file that cannot be used, or traces are wanted and cannot be sent
        """
        self.settings = settings
        self.store = ModelStore(settings)
        self.address = settings.address
        self.health = Health(SERVICE.full_name)
        self.metrics = Metrics([SERVICE.full_name])
        self.tracing = _tracing(settings.otlp_endpoint) if settings.otlp_endpoint else None
        watchers: list[MessageWatcher] = [
            *([self.tracing] if self.tracing else []),
            self.metrics,
            RequestLog(settings.log_requests, settings.log_requests_most),
        ]
        self.lanes = Lanes(settings, [self.metrics.batch, *([self.tracing.batch] if self.tracing else [])])
        self.shadow = Shadow(self.store, settings, self.lanes)
        self.servicer = Recommender(self.store, settings, self.lanes, self.shadow)
        self.guard = Guard.of(settings)
        self.calls = Calls(
            _stream_limits(settings),
            Deadlines.of(settings),
            settings.max_concurrent_calls,
            self.guard,
            watchers=watchers,
            message_watchers=watchers,
            overload=self.lanes.refusal,
        )
        self._source = source or (lambda: settings)
        self._changing = asyncio.Lock()
        self.metrics.add(
            StateMetrics(self.health, self.store, self.lanes, self.calls, settings.max_concurrent_calls)
        )
        self._probes: Probes | None = None

    async def start(self) -> None:
        """Listen. Until a model is loaded, health says NOT_SERVING and calls get UNAVAILABLE.

        Raises  ConfigError: what listening.listen raises
        """
        self._grpc = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 0),  # else a second server would take the same port, unnoticed
                *listening.options(self.settings),
            ],
            # `Calls` counts its own and explains what it refuses. This is for all there can be, in place of none.
            maximum_concurrent_rpcs=self.settings.max_concurrent_calls
            + OpenServices.PLACES * self.settings.max_connections,
        )
        self._grpc.add_generic_rpc_handlers((self.calls.handler(SERVICE, self.servicer),))
        to_all = OpenServices(self._grpc)
        health_pb2_grpc.add_HealthServicer_to_server(self.health.servicer, to_all)
        if not self.settings.tokens_file:
            names = (SERVICE.full_name, grpc_health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
                reflection.aio.ReflectionServicer(names), to_all
            )
        await self.health.start()
        self.address = listening.listen(self._grpc, self.settings.host, self.settings.port, self.settings)
        if self.settings.metrics_port:
            self._probes = Probes(self.health, self.metrics.text)
            await self._probes.start(self.settings.metrics_host, self.settings.metrics_port)
        await self._grpc.start()
        logger.info("listening on %s", self.address)

    async def load(self) -> None:
        """Load and warm up the model, report SERVING, and follow its alias from then on.

        Raises  WideDeepError: what ModelStore.start raises
        """
        async with self._changing:
            await self.store.start()
        await self.health.ready()
        logger.info("serving on %s", self.address)

    async def reread(self) -> list[str]:
        """Read the settings anew, and take on what may change while the server runs: all of it or, if anything is
        wrong with it, nothing. New models are loaded first.

        Returns  the names of what has changed
        Raises   WideDeepError: nothing has changed
        """
        async with self._changing:
            try:
                change = Change.between(self.settings, self._source())
                await self._apply(change.settings)
            except WideDeepError as error:
                logger.error("The settings stay as they are: %s", error)
                raise
        logger.info("settings that have changed: %s", ", ".join(change.names) or "none")
        if change.waiting:
            logger.warning("%s: a change of it needs a restart", ", ".join(change.waiting))
        return change.names

    async def _apply(self, settings: ServerSettings) -> None:
        await self.store.apply(settings)  # the only one that can fail
        self.lanes.apply(settings)
        self.calls.apply(_stream_limits(settings))
        self.shadow.share = settings.shadow_share
        self.servicer.settings = settings
        if settings.log_level != self.settings.log_level:
            logging.getLogger().setLevel(settings.log_level.upper())
        self.settings = settings

    async def drain(self) -> None:
        """Report NOT_SERVING, take no new calls, let those in flight end within the grace, stop."""
        await self.health.drain()
        logger.info("draining: %d calls in flight", self.calls.active)
        self.calls.end_streams()
        await self.shadow.stop()
        await self.store.stop()
        stopping = asyncio.create_task(self._grpc.stop(self.settings.grace))
        # gRPC's own grace also waits for health watchers and reflection, which never end by themselves.
        try:
            await asyncio.wait_for(self.calls.ended(), self.settings.grace)
        except TimeoutError:
            logger.warning("%d calls were cut off after %g s", self.calls.active, self.settings.grace)
        await self._grpc.stop(None)
        await stopping
        await self.calls.ended()  # a call that the loop's end has to cancel is logged by gRPC as a fault
        self.lanes.close()
        self.health.stop()
        if self.tracing:
            await self.tracing.close()
        if self._probes:
            self._probes.close()
        logger.info("stopped")


def _stream_limits(settings: ServerSettings) -> StreamLimits:
    return StreamLimits(settings.stream_in_flight, settings.stream_idle, settings.stream_stall)


def _tracing(endpoint: str) -> Tracing:
    try:
        from server.tracing import Tracing
    except ImportError as error:
        raise ConfigError(
            f"--otlp-endpoint needs what is not installed ({error}): pip install -e '.[otel]'."
        ) from error
    return Tracing(endpoint)
