"""The server as a whole: listens, loads, serves, drains."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health as grpc_health
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from server import addresses
from server.calls import Calls, MessageWatcher
from server.health import Health
from server.lanes import Lanes
from server.logs import RequestLog
from server.metrics import Metrics
from server.model_store import ModelStore
from server.pb import recommender_pb2 as pb
from server.probes import Probes
from server.servicer import Recommender
from server.settings import ServerSettings
from server.state_metrics import StateMetrics
from server.streams import StreamLimits
from widedeep.errors import ConfigError

if TYPE_CHECKING:
    from server.tracing import Tracing

logger = logging.getLogger(__name__)

SERVICE = pb.DESCRIPTOR.services_by_name["Recommender"]


class Server:
    """One listening server. To be used from one event loop."""

    def __init__(self, settings: ServerSettings) -> None:
        """Raises  ConfigError: a model URI of the wrong form, or traces are wanted and cannot be sent"""
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
        observers = [self.metrics.batch, *([self.tracing.batch] if self.tracing else [])]
        self.lanes = Lanes(settings, observers)
        self.calls = Calls(
            StreamLimits(settings.stream_in_flight, settings.stream_idle, settings.stream_stall),
            watchers=watchers,
            message_watchers=watchers,
        )
        self.metrics.add(
            StateMetrics(self.health, self.store, self.lanes, self.calls, settings.max_concurrent_calls)
        )
        self._probes: Probes | None = None

    async def start(self) -> None:
        """Listen. Until a model is loaded, health says NOT_SERVING and calls get UNAVAILABLE.

        Raises  ConfigError: an address cannot be had
        """
        self._grpc = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 0),  # else a second server would take the same port, unnoticed
                ("grpc.max_receive_message_length", self.settings.max_message_bytes),
            ],
            maximum_concurrent_rpcs=self.settings.max_concurrent_calls,
        )
        servicer = Recommender(self.store, self.settings, self.lanes)
        self._grpc.add_generic_rpc_handlers((self.calls.handler(SERVICE, servicer),))
        health_pb2_grpc.add_HealthServicer_to_server(self.health.servicer, self._grpc)
        reflection.enable_server_reflection(
            (SERVICE.full_name, grpc_health.SERVICE_NAME, reflection.SERVICE_NAME), self._grpc
        )
        await self.health.start()
        try:
            port = self._grpc.add_insecure_port(self.settings.address)
        except RuntimeError as error:
            raise ConfigError(
                f"Cannot listen on {self.settings.address}: the port is taken, or the address is not of this "
                "machine. Choose another with --port (0 takes a free one) or --host."
            ) from error
        self.address = f"{self.settings.address.rpartition(':')[0]}:{port}"
        if self.settings.metrics_port:
            self._probes = Probes(self.health, self.metrics.text)
            await self._probes.start(self.settings.metrics_host, self.settings.metrics_port)
        await self._grpc.start()
        logger.info("listening on %s", self.address)
        if not addresses.is_loopback(self.settings.host):
            logger.warning(
                "%s can be reached from other machines, without encryption or tokens", self.address
            )

    async def load(self) -> None:
        """Load and warm up the model, report SERVING, and follow its alias from then on.

        Raises  WideDeepError: what ModelStore.start raises
        """
        await self.store.start()
        await self.health.ready()
        logger.info("serving on %s", self.address)

    async def drain(self) -> None:
        """Report NOT_SERVING, take no new calls, let those in flight end within the grace, stop."""
        await self.health.drain()
        logger.info("draining: %d calls in flight", self.calls.active)
        self.calls.end_streams()
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


def _tracing(endpoint: str) -> Tracing:
    try:
        from server.tracing import Tracing
    except ImportError as error:
        raise ConfigError(
            f"--otlp-endpoint needs what is not installed ({error}): pip install -e '.[otel]'."
        ) from error
    return Tracing(endpoint)
