"""A small HTTP/1.1 server for what machines ask beside gRPC: one request a connection, all of it within bounds."""

from __future__ import annotations

import asyncio
import http.client
import io
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus

from widedeep.errors import ConfigError

logger = logging.getLogger(__name__)

MAX_HEAD = 16 * 2**10  # bytes
MAX_BODY = 64 * 2**10  # bytes
MAX_CONNECTIONS = 16
PATIENCE = 5.0  # seconds for one exchange, all of it


@dataclass(frozen=True)
class Request:
    """path  without what follows a question mark;  body  empty but for a POST"""

    method: str
    path: str
    headers: Message
    body: bytes


@dataclass(frozen=True)
class Response:
    status: HTTPStatus
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class HttpListener:
    """One listening socket on the running event loop."""

    def __init__(self, answer: Callable[[Request], Awaitable[Response]], methods: tuple[str, ...]) -> None:
        """
        answer   called on the event loop
        methods  others are refused. A POST must say how long it is
        """
        self._answer = answer
        self._methods = methods
        self._open = 0
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int, purpose: str, flag: str) -> None:
        """Listen.

        purpose  what for;  flag  --FLAG-port and --FLAG-host name the address
        Raises   ConfigError: the address cannot be had
        """
        try:
            self._server = await asyncio.start_server(self._serve, host, port, limit=MAX_HEAD)
        except OSError as error:
            raise ConfigError(
                f"Cannot listen for {purpose} on {host}:{port}: {error.strerror}. Choose another address with "
                f"--{flag}-port or --{flag}-host."
            ) from error

    def close(self) -> None:
        if self._server:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._open >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self._open += 1
        try:
            async with asyncio.timeout(PATIENCE):
                head_only, response = await self._response(reader)
                writer.write(_head(response))
                if not head_only:
                    writer.write(response.body)
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, EOFError, TimeoutError) as error:
            logger.info("an HTTP request was not finished: %r", error)
        finally:
            self._open -= 1
            writer.transport.abort()

    async def _response(self, reader: asyncio.StreamReader) -> tuple[bool, Response]:
        """Whether only its head is wanted, and the response."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return False, Response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        line, _, fields = head.partition(b"\r\n")
        method, _, target = line.decode("latin-1").partition(" ")
        if method not in self._methods:
            allowed = {"Allow": ", ".join(self._methods)}
            return False, Response(HTTPStatus.METHOD_NOT_ALLOWED, headers=allowed)
        try:
            headers = http.client.parse_headers(io.BytesIO(fields))
        except http.client.HTTPException:
            return False, Response(HTTPStatus.BAD_REQUEST)
        body = b""
        if method == "POST":
            length = headers.get("Content-Length", "")
            if not (length.isascii() and length.isdigit()):
                return False, Response(HTTPStatus.LENGTH_REQUIRED)
            if len(length) > 9 or int(length) > MAX_BODY:
                return False, Response(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            body = await reader.readexactly(int(length))
        path = target.partition(" ")[0].partition("?")[0]
        return method == "HEAD", await self._answer(Request(method, path, headers, body))


def _head(response: Response) -> bytes:
    lines = [
        f"HTTP/1.1 {response.status} {response.status.phrase}",
        *(f"{name}: {value}" for name, value in response.headers.items()),
        f"Content-Length: {len(response.body)}",
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
