"""Listens for MLflow's webhooks, so that a move of the alias is live at once and not at the next look.

MLflow (mlflow.webhooks.delivery) signs `delivery id.timestamp.body` with HMAC-SHA256 under the webhook's secret. What
the message says is not used: all it does is to make the server look into the registry now.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import time
from collections.abc import Callable
from email.message import Message
from http import HTTPStatus
from pathlib import Path

from server.http_listener import HttpListener, Request, Response
from server.settings import ServerSettings
from widedeep.errors import ConfigError

logger = logging.getLogger(__name__)

MAX_AGE = 300.0  # seconds between signing and arrival, either way: MLflow's retries and clocks that differ


class Webhook:
    """One listening socket on the event loop."""

    def __init__(self, secret: str, wake: Callable[[], None]) -> None:
        self._secret = secret
        self._wake = wake
        self._listener = HttpListener(self._answer, methods=("POST",))

    @classmethod
    async def listening(cls, settings: ServerSettings, wake: Callable[[], None]) -> Webhook:
        """Raises  ConfigError: the address cannot be had, or there is no secret"""
        webhook = cls(secret_of(settings), wake)
        host, port = settings.webhook_host, settings.webhook_port
        await webhook._listener.start(host, port, "webhooks", "webhook")
        logger.info("listening for webhooks on %s:%d", host, port)
        return webhook

    async def close(self) -> None:
        self._listener.close()

    async def _answer(self, request: Request) -> Response:
        if not is_signed(request.headers, request.body, self._secret, time.time()):
            logger.warning("a webhook's message without a valid signature was refused")
            return Response(HTTPStatus.UNAUTHORIZED)
        self._wake()
        return Response(HTTPStatus.NO_CONTENT)


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
