"""What is asked over HTTP beside gRPC: /metrics, /livez and /readyz."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from server import addresses
from server.health import Health
from server.http_listener import HttpListener, Request, Response

logger = logging.getLogger(__name__)

PLAIN = "text/plain; charset=utf-8"


class Probes:
    """A listener with a thread and an event loop of its own: it must answer while the server's loop does not turn."""

    def __init__(self, health: Health, text: Callable[[str], Awaitable[tuple[bytes, str]]]) -> None:
        """text  of the metrics and its content type, for a header Accept"""
        self._health = health
        self._text = text
        self._listener = HttpListener(self._answer, methods=("GET", "HEAD"))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="probes", daemon=True)

    async def start(self, host: str, port: int) -> None:
        """Raises  ConfigError: the address cannot be had"""
        self._thread.start()
        listening = self._listener.start(host, port, "metrics", "metrics")
        try:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(listening, self._loop))
        except BaseException:
            self.close()
            raise
        logger.info("metrics on http://%s/metrics", addresses.joined(host, port))
        if not addresses.is_loopback(host):
            logger.warning("http://%s/ can be read from other machines", addresses.joined(host, port))

    def close(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop)
            self._thread.join()
            self._loop.close()

    def _stop(self) -> None:
        self._listener.close()
        self._loop.stop()

    async def _answer(self, request: Request) -> Response:
        if request.path == "/metrics":
            body, content_type = await self._text(request.headers.get("Accept", ""))
            return Response(HTTPStatus.OK, body, {"Content-Type": content_type})
        if request.path == "/livez":
            stalled = self._health.stalled
            return _probed(f"the event loop has not turned for {stalled:.0f} s" if stalled else "")
        if request.path == "/readyz":
            return _probed(self._health.unready)
        return _plain(HTTPStatus.NOT_FOUND, "There are /metrics, /livez and /readyz.")


def _probed(reason: str) -> Response:
    """reason  why not; empty: it is so"""
    return _plain(HTTPStatus.SERVICE_UNAVAILABLE, reason) if reason else _plain(HTTPStatus.OK, "ok")


def _plain(status: HTTPStatus, text: str) -> Response:
    return Response(status, f"{text}\n".encode(), {"Content-Type": PLAIN})
