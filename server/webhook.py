"""Listens for MLflow's webhooks, so that a move of the alias is live at once and not at the next look.

MLflow (mlflow.webhooks.delivery) signs `delivery id.timestamp.body` with HMAC-SHA256 under the webhook's secret. What
the message says is not used: all it does is to make the server look into the registry now.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import http.client
import io
import logging
import time
from collections.abc import Callable
from email.message import Message
from http import HTTPStatus
from pathlib import Path

from server.settings import ServerSettings
from widedeep.errors import ConfigError

logger = logging.getLogger(__name__)

MAX_HEAD = 16 * 2**10  # bytes
MAX_BODY = 64 * 2**10  # bytes
MAX_CONNECTIONS = 16
PATIENCE = 5.0  # seconds that a message may take to arrive, all of it
MAX_AGE = 300.0  # seconds between signing and arrival, either way: MLflow's retries and clocks that differ


class Webhook:
    """One listening socket on the event loop."""

    def __init__(self, secret: str, wake: Callable[[], None]) -> None:
        self._secret = secret
        self._wake = wake
        self._open = 0
        self._server: asyncio.Server | None = None

    @classmethod
    async def listening(cls, settings: ServerSettings, wake: Callable[[], None]) -> Webhook:
        """Raises  ConfigError: the address cannot be had, or there is no secret"""
        webhook = cls(secret_of(settings), wake)
        host, port = settings.webhook_host, settings.webhook_port
        try:
            webhook._server = await asyncio.start_server(webhook._serve, host, port, limit=MAX_HEAD)
        except OSError as error:
            raise ConfigError(
                f"Cannot listen for webhooks on {host}:{port}: {error.strerror}. Choose another address with "
                "--webhook-port or --webhook-host."
            ) from error
        logger.info("listening for webhooks on %s:%d", host, port)
        return webhook

    async def close(self) -> None:
        if self._server:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._open >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self._open += 1
        try:
            async with asyncio.timeout(PATIENCE):
                status = await self._answer(reader)
                head = f"HTTP/1.1 {status} {status.phrase}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                writer.write(head.encode())
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, EOFError, TimeoutError) as error:
            logger.info("a webhook's message did not arrive: %r", error)
        finally:
            self._open -= 1
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader) -> HTTPStatus:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        line, _, fields = head.partition(b"\r\n")
        if not line.startswith(b"POST "):
            return HTTPStatus.METHOD_NOT_ALLOWED
        try:
            headers = http.client.parse_headers(io.BytesIO(fields))
        except http.client.HTTPException:
            return HTTPStatus.BAD_REQUEST
        length = headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            return HTTPStatus.LENGTH_REQUIRED
        if len(length) > 9 or int(length) > MAX_BODY:
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        body = await reader.readexactly(int(length))
        if not is_signed(headers, body, self._secret, time.time()):
            logger.warning("a webhook's message without a valid signature was refused")
            return HTTPStatus.UNAUTHORIZED
        self._wake()
        return HTTPStatus.NO_CONTENT


def secret_of(settings: ServerSettings) -> str:
    """Raises  ConfigError: there is none"""
    secret = settings.webhook_secret
    if settings.webhook_secret_file:
        try:
            secret = Path(settings.webhook_secret_file).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"--webhook-secret-file {settings.webhook_secret_file} cannot be read: {error}."
            ) from error
    if not secret:
        raise ConfigError(
            "--webhook-port needs the secret that MLflow signs with: anybody could call it otherwise. "
            "Set WIDEDEEP_WEBHOOK_SECRET or --webhook-secret-file."
        )
    return secret


def is_signed(headers: Message, body: bytes, secret: str, when: float) -> bool:
    """The message was signed with the secret, and not long ago.

    when  seconds since 1970
    """
    stamp = headers.get("X-MLflow-Timestamp", "")
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12 and abs(when - int(stamp)) <= MAX_AGE):
        return False
    signed = f"{headers.get('X-MLflow-Delivery-Id', '')}.{stamp}.".encode() + body
    digest = base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest())
    given = headers.get("X-MLflow-Signature", "")
    return hmac.compare_digest(b"v1," + digest, given.encode(errors="replace"))
