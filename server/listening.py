"""How the server takes connections: where, with which certificate, how many, for how long."""

from __future__ import annotations

import logging
from typing import Any

import grpc

from server import addresses, tls
from server.settings import ServerSettings
from widedeep.errors import ConfigError

logger = logging.getLogger(__name__)

HANDSHAKE = 20.0  # seconds; a connection that says nothing counts among the open ones until then
IDLE = 1800.0  # seconds without a call after which a connection is closed
AGE_GRACE = 600.0  # seconds that calls, and streams above all, have on a connection that is too old
PING_AFTER = 60.0  # seconds of silence after which a client is asked whether it is still there
PING_ANSWER = 20.0  # seconds that it has to answer
# To refuse a call costs the event loop as much as to answer a small one. So gRPC's own threads turn away what it cannot
# even refuse: calls beyond --max-streams of a connection, as UNAVAILABLE, which clients try again, and beyond PENDING,
# over many connections, as CANCELLED.
PENDING = 1000  # calls that the event loop has not taken in; from there on chance decides, and at twice as many all go
CLIENT_PINGS = 20.0  # seconds between two pings of a client; who pings more often is cut off


def options(settings: ServerSettings) -> list[tuple[str, Any]]:
    """Of `grpc.aio.server`."""
    found = [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.max_concurrent_streams", settings.max_streams),
        ("grpc.server.max_pending_requests", PENDING),
        ("grpc.server.max_pending_requests_hard_limit", 2 * PENDING),
        ("grpc.server_handshake_timeout_ms", _ms(HANDSHAKE)),
        ("grpc.max_connection_idle_ms", _ms(IDLE)),
        ("grpc.keepalive_time_ms", _ms(PING_AFTER)),
        ("grpc.keepalive_timeout_ms", _ms(PING_ANSWER)),
        ("grpc.http2.min_ping_interval_without_data_ms", _ms(CLIENT_PINGS)),
    ]
    if settings.max_connection_age:
        found += [
            ("grpc.max_connection_age_ms", _ms(settings.max_connection_age)),
            ("grpc.max_connection_age_grace_ms", _ms(AGE_GRACE)),
        ]
    return found


def listen(
    server: grpc.aio.Server, host: str, port: int, settings: ServerSettings, flag: str = "--host"
) -> str:
    """Open a port, encrypted if there is a certificate.

    flag     the one that `host` came with; that of the port ends in -port likewise
    Returns  host:port
    Raises   ConfigError: other machines could read along, a file of the certificate is no good, or the address
             cannot be had
    """
    addresses.check(flag, host, encrypted=bool(settings.tls_cert), insecure=settings.insecure)
    credentials = tls.credentials(settings)
    wanted = addresses.joined(host, port)
    try:
        taken = (
            server.add_secure_port(wanted, credentials) if credentials else server.add_insecure_port(wanted)
        )
    except RuntimeError as error:
        raise ConfigError(
            f"Cannot listen on {wanted}: the port is taken, or the address is not of this machine. Choose another "
            f"with {flag.replace('host', 'port')} (0 takes a free one) or {flag}."
        ) from error
    address = addresses.joined(host, taken)
    if not credentials and not addresses.is_loopback(host):
        sent = "tokens and all" if settings.tokens_file else "by anybody who finds it"
        logger.warning("%s can be reached from other machines, unencrypted, %s", address, sent)
    return address


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
