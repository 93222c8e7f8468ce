"""Several processes that share one port: started, watched, started again, drained together.

python -m server --workers 2

Each has the model and answers the connections that Linux gives it. This process serves nothing itself but the
operators' port, where it answers for all, and imports nothing that computes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import tempfile
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from server import addresses, shared_port
from server.admin_port import Listener
from server.backoff import Backoff
from server.child import Child
from server.guard import Guard
from server.health import DRAINING, Health
from server.merge_metrics import merged
from server.pb import admin_pb2 as pb
from server.probes import Probes
from server.settings import ServerSettings
from server.webhook import Webhook
from server.workers_admin import WorkersAdmin

logger = logging.getLogger("server")

LONG_LIVED = 60.0  # seconds after which an end does not count as one more failure in a row


async def supervise(settings: ServerSettings, arguments: Sequence[str]) -> int:
    """Serve until SIGTERM, SIGINT or an operator's word, then drain all. A second signal ends everything at once.

    arguments  flags of the settings, for the workers
    Returns    exit status: 0 after a drain, that of a worker that could not serve at the start
    Raises     ConfigError: an address cannot be had, or ports are not shared here
    """
    with (
        shared_port.reserved(settings.host, settings.port) as port,
        tempfile.TemporaryDirectory(prefix="widedeep-") as folder,
    ):
        return await Workers(settings, arguments, port, Path(folder)).run()


class Workers:
    """The workers of one server. To be used from one event loop."""

    def __init__(self, settings: ServerSettings, arguments: Sequence[str], port: int, folder: Path) -> None:
        """
        port    that they share
        folder  for their sockets, that this user alone can read
        """
        self.children = [Child(number, folder) for number in range(settings.workers)]
        self.pinned = ""  # the version that a worker begins with, if it is not what the flags say
        self.ending = asyncio.Event()
        self.health = Health()  # ready once the first of them is
        self._settings = settings
        self._arguments = arguments
        self._port = port
        self._status = 0

    async def run(self) -> int:
        """Returns  exit status"""
        admin = WorkersAdmin(self)
        self._take_signals(admin)
        listener = self._admin_listener(admin)
        if listener:
            await listener.start()
        settings, webhook = self._settings, None
        if settings.webhook_port:
            webhook = await Webhook.listening(settings, lambda: admin.ask_soon("Reload", pb.ReloadRequest()))
        await self.health.start()
        probes = Probes(self.health, _Metrics(admin).text) if settings.metrics_port else None
        if probes:
            await probes.start(settings.metrics_host, settings.metrics_port)
        try:
            async with asyncio.TaskGroup() as keepers:
                # The first alone: what cannot be served is said once, and what is downloaded is cached for the rest.
                for group in (self.children[:1], self.children[1:]):
                    for child in group:
                        keepers.create_task(self._keep(child))
                    for child in group:
                        await self._unless_ending(child.served.wait())
                    await self.health.ready()
                if not self.ending.is_set():
                    address = addresses.joined(settings.host, self._port)
                    logger.info("serving on %s with %d workers", address, len(self.children))
        finally:
            self.health.stop()
            if probes:
                probes.close()
            if webhook:
                await webhook.close()
            if listener:
                await listener.stop()
            for child in self.children:
                await child.close()
        logger.info("all workers have ended")
        return self._status

    def end(self) -> None:
        """Drain all."""
        self.ending.set()
        self.health.unready = DRAINING
        for child in self.children:
            child.send(signal.SIGTERM)

    def _admin_listener(self, admin: WorkersAdmin) -> Listener | None:
        if not self._settings.admin_port:
            return None
        return Listener.of(self._settings, admin, Guard.of(self._settings))

    async def _keep(self, child: Child) -> None:
        """Start a worker, and start it again whenever it ends, until all are to end."""
        backoff = Backoff(1.0)
        while not self.ending.is_set():
            started = time.monotonic()
            await child.start(self._arguments, self._port, len(self.children), self.pinned)
            if self.ending.is_set():
                child.send(signal.SIGTERM)  # which came while it was being started
            status = await child.ended()
            if self.ending.is_set():
                return
            if not child.served.is_set():
                logger.error("worker %d ended with status %d before it served", child.number, status)
                self._status = status if status > 0 else 1
                self.end()
                return
            if time.monotonic() - started > LONG_LIVED:
                backoff.reset()
            wait = backoff.next()
            logger.error(
                "worker %d ended with status %d; it is started again in %.1f s", child.number, status, wait
            )
            await self._unless_ending(asyncio.sleep(wait))

    async def _unless_ending(self, waiting: Coroutine[Any, Any, Any]) -> None:
        """Wait for it, or until all are to end."""
        tasks = [asyncio.create_task(waiting), asyncio.create_task(self.ending.wait())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()

    def _take_signals(self, admin: WorkersAdmin) -> None:
        signals: list[signal.Signals] = []

        def on_signal(number: signal.Signals) -> None:
            if signals:
                for child in self.children:
                    child.send(signal.SIGKILL)
                os._exit(128 + number)
            logger.info("%s", number.name)
            signals.append(number)
            self.end()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal, number)
        loop.add_signal_handler(signal.SIGHUP, admin.ask_soon, "RereadSettings", pb.RereadSettingsRequest())


class _Metrics:
    """Those of all workers, for a thread with an event loop of its own."""

    def __init__(self, admin: WorkersAdmin) -> None:
        self._admin = admin
        self._loop = asyncio.get_running_loop()

    async def text(self, _: str) -> tuple[bytes, str]:
        found = asyncio.run_coroutine_threadsafe(self._admin.metrics(), self._loop)
        texts = await asyncio.wrap_future(found)
        return merged(
            {number: text.decode() for number, text in texts.items()}
        ).encode(), CONTENT_TYPE_PLAIN_0_0_4
