"""The server as a whole: listens, loads, serves, drains."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import grpc
from grpc_health.v1 import health as grpc_health
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from server import listening
from server.admin import Admin
from server.admin_port import Listener
from server.calls import Calls
from server.deadlines import Deadlines
from server.entrance import OpenServices
from server.guard import Guard
from server.health import Health
from server.lanes import Lanes
from server.model_store import ModelStore
from server.pb import recommender_pb2 as pb
from server.probes import Probes
from server.rereading import Change
from server.servicer import Recommender
from server.settings import ServerSettings
from server.shadow import Shadow
from server.state_metrics import StateMetrics
from server.streams import StreamLimits
from server.telemetry import Telemetry
from server.worker import Worker
from widedeep.errors import WideDeepError

logger = logging.getLogger(__name__)

SERVICE = pb.DESCRIPTOR.services_by_name["Recommender"]


class Server:
    """One listening server. To be used from one event loop."""

    def __init__(
        self,
        settings: ServerSettings,
        source: Callable[[], ServerSettings] | None = None,
        worker: Worker | None = None,
    ) -> None:
        """
        source  reads the settings anew; None: they stay
        worker  which of several it is, if it is one
        Raises  ConfigError: a tokens' file that cannot be used, or traces are wanted and cannot be sent
        """
        own = worker.settings if worker else _unchanged
        self.settings = settings = own(settings)
        self.address = settings.address
        self.ending = asyncio.Event()  # set when it is to drain
        self.store = ModelStore(settings, worker.pinned, worker.lock) if worker else ModelStore(settings)
        self.health = Health(SERVICE.full_name)
        self.telemetry = Telemetry(settings, SERVICE.full_name)
        self.lanes = Lanes(settings, self.telemetry.observers)
        self.shadow = Shadow(self.store, settings, self.lanes)
        self.servicer = Recommender(self.store, settings, self.lanes, self.shadow)
        self.guard = Guard.of(settings)
        self.calls = Calls(
            _stream_limits(settings),
            Deadlines.of(settings),
            settings.max_concurrent_calls,
            self.guard,
            watchers=self.telemetry.watchers,
            overload=self.lanes.refusal,
        )
        self.telemetry.metrics.add(
            StateMetrics(
                self.health,
                self.store,
                self.lanes,
                self.calls,
                settings.max_concurrent_calls,
                lambda: self.shadow.agreement,
            )
        )
        self._worker = worker
        self._source = source or (lambda: settings)
        self._own = own
        self._changing = asyncio.Lock()
        self._grace: float | None = None  # in place of the settings'
        self._admin = self._admin_listener()
        self._probes: Probes | None = None
        self._grpc: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Listen. Until a model is loaded, health says NOT_SERVING and calls get UNAVAILABLE.

        A worker does not listen before: the port would send it calls that others can answer.

        Raises  ConfigError: what listening.listen raises
        """
        if self._admin:
            await self._admin.start()
        await self.health.start()
        if self.settings.metrics_port:
            self._probes = Probes(self.health, self._metrics_text)
            await self._probes.start(self.settings.metrics_host, self.settings.metrics_port)
        if self._worker is None:
            await self._listen()

    async def load(self, settled: Callable[[], object] = lambda: None) -> None:
        """Load and warm up the model, report SERVING, and follow its alias from then on.

        settled  called when the model is there and nobody is served yet
        Raises   WideDeepError: what ModelStore.start raises
        """
        async with self._changing:
            await self.store.start()
        settled()
        if self._worker is not None:
            await self._listen()
        await self.health.ready()
        logger.info("serving on %s", self.address)

    def end(self, grace: float | None = None) -> None:
        """Ask whoever runs the server to drain it.

        grace  seconds, in place of the settings'
        """
        self._grace = grace
        self.ending.set()

    async def reread(self) -> list[str]:
        """Read the settings anew, and take on what may change while the server runs: all of it or, if anything is
        wrong with it, nothing. New models are loaded first.

        Returns  the names of what has changed
        Raises   WideDeepError: nothing has changed
        """
        async with self._changing:
            try:
                change = Change.between(self.settings, self._own(self._source()))
                await self._apply(change.settings)
            except WideDeepError as error:
                logger.error("The settings stay as they are: %s", error)
                raise
        logger.info("settings that have changed: %s", ", ".join(change.names) or "none")
        if change.waiting:
            logger.warning("%s: a change of it needs a restart", ", ".join(change.waiting))
        return change.names

    async def drain(self) -> None:
        """Report NOT_SERVING, take no new calls, let those in flight end within the grace, stop."""
        self.ending.set()
        await self.health.drain()
        logger.info("draining: %d calls in flight", self.calls.active)
        self.calls.end_streams()
        await self.shadow.stop()
        await self.store.stop()
        if self._grpc is not None:
            await self._finish(self._grpc, self.settings.grace if self._grace is None else self._grace)
        self.lanes.close()
        self.health.stop()
        await self.telemetry.close()
        if self._probes:
            self._probes.close()
        await self.close_admin()
        logger.info("stopped")

    async def close_admin(self) -> None:
        """Answer operators no longer."""
        if self._admin:
            await self._admin.stop()

    async def _listen(self) -> None:
        self._grpc = grpc.aio.server(
            options=[
                # Else a second server would take the same port, unnoticed; a worker's parent has looked.
                ("grpc.so_reuseport", 0 if self._worker is None else 1),
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
        self.address = listening.listen(self._grpc, self.settings.host, self.settings.port, self.settings)
        await self._grpc.start()
        logger.info("listening on %s", self.address)

    async def _finish(self, listener: grpc.aio.Server, grace: float) -> None:
        stopping = asyncio.create_task(listener.stop(grace))
        # gRPC's own grace also waits for health watchers and reflection, which never end by themselves.
        try:
            await asyncio.wait_for(self.calls.ended(), grace)
        except TimeoutError:
            logger.warning("%d calls were cut off after %g s", self.calls.active, grace)
        await listener.stop(None)
        await stopping
        await self.calls.ended()  # a call that the loop's end has to cancel is logged by gRPC as a fault

    async def _apply(self, settings: ServerSettings) -> None:
        await self.store.apply(settings)  # the only one that can fail
        self.lanes.apply(settings)
        self.calls.apply(_stream_limits(settings))
        self.shadow.share = settings.shadow_share
        self.servicer.settings = settings
        if settings.log_level != self.settings.log_level:
            logging.getLogger().setLevel(settings.log_level.upper())
        self.settings = settings

    def _admin_listener(self) -> Listener | None:
        if self._worker:
            return Listener.for_parent(Admin(self, self._worker.number), self._worker.admin)
        return Listener.of(self.settings, Admin(self), self.guard) if self.settings.admin_port else None

    async def _metrics_text(self, accept: str) -> tuple[bytes, str]:
        return self.telemetry.metrics.text(accept)


def _unchanged(settings: ServerSettings) -> ServerSettings:
    return settings


def _stream_limits(settings: ServerSettings) -> StreamLimits:
    return StreamLimits(settings.stream_in_flight, settings.stream_idle, settings.stream_stall)
