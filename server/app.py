"""The server as a whole: listens, loads, serves, drains."""

from __future__ import annotations

import asyncio
import logging

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from server import addresses
from server.admin import Admin
from server.admin_port import Listener
from server.calls import Calls
from server.lanes import Lanes
from server.model_store import ModelStore
from server.pb import recommender_pb2 as pb
from server.servicer import Recommender
from server.settings import ServerSettings
from server.streams import StreamLimits
from server.worker import Worker
from widedeep.errors import ConfigError

logger = logging.getLogger(__name__)

SERVICE = pb.DESCRIPTOR.services_by_name["Recommender"]
HEALTH_NAMES = ("", SERVICE.full_name)  # "" is the server as a whole


class Server:
    """One listening server. To be used from one event loop."""

    def __init__(self, settings: ServerSettings, worker: Worker | None = None) -> None:
        """
        worker  which of several it is, if it is one

        Raises  ConfigError: a model URI of the wrong form
        """
        self.settings = settings if worker is None else worker.settings(settings)
        settings = self.settings
        self.ending = asyncio.Event()  # set when it is to drain
        self.is_ready = False  # it has a model, and takes calls
        self._worker = worker
        self._grace: float | None = None  # an operator's, in place of the settings'
        self._admin = self._admin_listener()
        self.store = ModelStore(settings, worker.pinned, worker.lock) if worker else ModelStore(settings)
        self.address = settings.address
        self.lanes = Lanes(settings)
        self.calls = Calls(
            StreamLimits(settings.stream_in_flight, settings.stream_idle, settings.stream_stall)
        )
        self._grpc: grpc.aio.Server | None = None
        self._health = health.aio.HealthServicer()

    async def start(self) -> None:
        """Listen. Until a model is loaded, health says NOT_SERVING and calls get UNAVAILABLE.

        A worker does not listen before: the port would send it calls that others can answer.

        Raises  ConfigError: an address cannot be had
        """
        if self._admin:
            await self._admin.start()
        if self._worker is None:
            await self._listen()

    async def load(self) -> None:
        """Load and warm up the model, report SERVING, and follow its alias from then on.

        Raises  WideDeepError: what ModelStore.start raises
        """
        await self.store.start()
        if self._worker is not None:
            await self._listen()
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)
        self.is_ready = True
        logger.info("serving on %s", self.address)

    def end(self, grace: float | None = None) -> None:
        """Ask whoever runs the server to drain it.

        grace  seconds, in place of the settings'
        """
        self._grace = grace
        self.ending.set()

    async def reread(self) -> list[str]:
        """Raises  ConfigError: settings are read once"""
        raise ConfigError("This server reads its settings when it starts. Start it anew to change them.")

    def metrics_text(self) -> bytes:
        """In Prometheus's text format; none are kept yet."""
        return b""

    def _admin_listener(self) -> Listener | None:
        if self._worker:
            return Listener(Admin(self, self._worker.number), self._worker.admin)
        if self.settings.admin_port:
            address = addresses.joined(self.settings.admin_host, self.settings.admin_port)
            return Listener(Admin(self), address, gate=None)
        return None

    async def _listen(self) -> None:
        self._grpc = grpc.aio.server(
            options=[
                # Else a second server would take the same port, unnoticed; a worker's parent has looked.
                ("grpc.so_reuseport", 0 if self._worker is None else 1),
                ("grpc.max_receive_message_length", self.settings.max_message_bytes),
            ],
            maximum_concurrent_rpcs=self.settings.max_concurrent_calls,
        )
        servicer = Recommender(self.store, self.settings, self.lanes)
        self._grpc.add_generic_rpc_handlers((self.calls.handler(SERVICE, servicer),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        reflection.enable_server_reflection(
            (SERVICE.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME), self._grpc
        )
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        try:
            port = self._grpc.add_insecure_port(self.settings.address)
        except RuntimeError as error:
            raise ConfigError(
                f"Cannot listen on {self.settings.address}: the port is taken, or the address is not of this "
                "machine. Choose another with --port (0 takes a free one) or --host."
            ) from error
        self.address = f"{self.settings.address.rpartition(':')[0]}:{port}"
        await self._grpc.start()
        logger.info("listening on %s", self.address)
        if not addresses.is_loopback(self.settings.host):
            logger.warning(
                "%s can be reached from other machines, without encryption or tokens", self.address
            )

    async def drain(self) -> None:
        """Report NOT_SERVING, take no new calls, let those in flight end within the grace, stop."""
        self.ending.set()
        await self._health.enter_graceful_shutdown()
        logger.info("draining: %d calls in flight", self.calls.active)
        self.calls.end_streams()
        await self.store.stop()
        if self._grpc is not None:
            await self._finish(self._grpc)
        self.lanes.close()
        await self.close_admin()
        logger.info("stopped")

    async def close_admin(self) -> None:
        """Answer operators no longer."""
        if self._admin:
            await self._admin.stop()

    async def _finish(self, listening: grpc.aio.Server) -> None:
        grace = self.settings.grace if self._grace is None else self._grace
        stopping = asyncio.create_task(listening.stop(grace))
        # gRPC's own grace also waits for health watchers and reflection, which never end by themselves.
        try:
            await asyncio.wait_for(self.calls.ended(), grace)
        except TimeoutError:
            logger.warning("%d calls were cut off after %g s", self.calls.active, grace)
        await listening.stop(None)
        await stopping
        await self.calls.ended()  # a call that the loop's end has to cancel is logged by gRPC as a fault

    async def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for name in HEALTH_NAMES:
            await self._health.set(name, status)
