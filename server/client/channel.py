"""How a client reaches its server: TLS, token, retries, limits. The same for both clients."""

from __future__ import annotations

import ipaddress
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc

from server.client import errors
from server.client.values import ClientError
from server.pb import recommender_pb2 as pb
from server.pb import recommender_pb2_grpc as pb_grpc

DEFAULT_TARGET = "127.0.0.1:50051"
DEFAULT_TIMEOUT = 10.0  # seconds, connecting included
DEFAULT_ATTEMPTS = 4
MAX_MESSAGE_BYTES = 64 * 2**20  # a thousand items with a hundred reasons each pass gRPC's own limit of 4 MiB
SERVICE = pb.DESCRIPTOR.services_by_name["Recommender"]


class Connection:
    """A channel and what goes with every call on it."""

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        timeout: float = DEFAULT_TIMEOUT,
        *,
        token: str = "",
        tls: bool = False,
        ca: str | Path | None = None,
        cert: str | Path | None = None,
        key: str | Path | None = None,
        attempts: int = DEFAULT_ATTEMPTS,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        connections: int = 1,
    ) -> None:
        """
        target             host:port, or a gRPC name of several addresses: ipv4:10.0.0.1:50051,10.0.0.2:50051 or
                           dns:///widedeep.example.org:50051; calls go round them
        timeout            seconds that a call may take, connecting and retries included; streams have no limit
        token              sent with every call as `authorization: Bearer …`
        tls                encrypt, and trust the certificates that gRPC comes with
        ca                 PEM file of certificates to trust instead; implies tls
        cert, key          PEM files of the client's own certificate, for a server that wants one; imply tls
        attempts           1 to 5: how often a call that is not on a stream is tried while the server is UNAVAILABLE
        max_message_bytes  the longest answer that is taken
        connections        to each address, which calls take in turn: a connection stays with one of a server's workers
        Raises             ClientError INVALID_ARGUMENT: options that do not go together, or a file that is not there
        """
        if not target.strip():
            raise ClientError("INVALID_ARGUMENT", "the target is empty; give host:port.", "target")
        if not 1 <= attempts <= 5:
            raise ClientError(
                "INVALID_ARGUMENT", f"attempts must be from 1 to 5, got {attempts}.", "attempts"
            )
        if not 1 <= connections <= 100:
            raise ClientError(
                "INVALID_ARGUMENT", f"connections must be from 1 to 100, got {connections}.", "connections"
            )
        self.target = target
        self.timeout = timeout
        self.tls = tls or ca is not None or cert is not None or key is not None
        self.metadata = _metadata(token, target, self.tls)
        options = _options(target, attempts, max_message_bytes)
        if connections > 1:
            options.append(("grpc.use_local_subchannel_pool", 1))  # else channels share one
        credentials = _credentials(ca, cert, key) if self.tls else None
        self.channels = [self._open(target, credentials, options) for _ in range(connections)]
        self.channel = self.channels[0]
        self._stubs = itertools.cycle([pb_grpc.RecommenderStub(channel) for channel in self.channels])  # type: ignore[no-untyped-call]
        self._health = health_pb2_grpc.HealthStub(self.channel)

    @property
    def _stub(self) -> Any:
        """For one call, over the connection whose turn it is."""
        return next(self._stubs)

    def _open(self, target: str, credentials: Any, options: list[tuple[str, Any]]) -> Any:
        """A channel; an insecure one without credentials."""
        raise NotImplementedError

    @contextmanager
    def _explained(self, timeout: float | None) -> Iterator[None]:
        """What goes wrong in the block, as a ClientError."""
        try:
            yield
        except grpc.RpcError as error:
            raise self._failure(error, timeout) from error
        except (TypeError, ValueError) as error:  # protobuf: a value that a field cannot hold
            raise ClientError("INVALID_ARGUMENT", str(error)) from error

    def _failure(self, error: Any, timeout: float | None, unanswered: tuple[object, ...] = ()) -> ClientError:
        failure = errors.of_call(error, self.target, timeout, self.tls)
        failure.unanswered = unanswered
        return failure

    def _limit(self, timeout: float | None) -> float:
        return self.timeout if timeout is None else timeout


def service_config(attempts: int) -> str:
    """gRPC's own configuration of a client: take addresses in turn, retry unary calls.

    RESOURCE_EXHAUSTED is not retried: all clients of a server that has too much to do would give it more. The health
    check is not, because its question is whether the server is there now.
    """
    unary = [method.name for method in SERVICE.methods if not method.client_streaming]
    config: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}
    if attempts > 1:
        config["methodConfig"] = [
            {
                "name": [{"service": SERVICE.full_name, "method": name} for name in unary],
                "retryPolicy": {
                    "maxAttempts": attempts,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 3,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
        # A failure costs one token, a success brings a tenth; below half of them nothing is retried.
        config["retryThrottling"] = {"maxTokens": 100, "tokenRatio": 0.1}
    return json.dumps(config)


def is_local(target: str) -> bool:
    """Whether every address of a gRPC target is on this machine."""
    scheme, _, rest = target.partition(":")
    if scheme in ("unix", "unix-abstract"):
        return True
    addresses = rest.rpartition("/")[2] if scheme in ("ipv4", "ipv6", "dns") else target
    return all(_is_loopback(address) for address in addresses.split(","))


def _is_loopback(address: str) -> bool:
    if address.startswith("["):
        host = address[1:].partition("]")[0]
    else:
        host = address.partition(":")[0] if address.count(":") == 1 else address
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _options(target: str, attempts: int, max_message_bytes: int) -> list[tuple[str, Any]]:
    options: list[tuple[str, Any]] = [
        ("grpc.service_config", service_config(attempts)),
        ("grpc.max_receive_message_length", max_message_bytes),
        # Finds out that the server is gone while a stream waits. A server cuts off who pings more often than every
        # 300 s without data.
        ("grpc.keepalive_time_ms", 310_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.max_pings_without_data", 0),  # without limit
    ]
    if is_local(target):
        options.append(("grpc.enable_http_proxy", 0))
    return options


def _metadata(token: str, target: str, tls: bool) -> tuple[tuple[str, str], ...]:
    if not token:
        return ()
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ClientError(
            "INVALID_ARGUMENT", "the token has characters that no header can hold; check it.", "token"
        )
    if not tls and not is_local(target):
        raise ClientError(
            "INVALID_ARGUMENT",
            f"the token would go to {target} unencrypted, for anybody on the way to read. Use TLS (tls=True or --tls, "
            "with ca= or --ca for a certificate of your own), or leave the token out.",
            "token",
        )
    return (("authorization", f"Bearer {token}"),)


def _credentials(ca: str | Path | None, cert: str | Path | None, key: str | Path | None) -> Any:
    if (cert is None) != (key is None):
        missing = "key" if key is None else "cert"
        raise ClientError("INVALID_ARGUMENT", "a client's certificate and its key go together.", missing)
    return grpc.ssl_channel_credentials(
        root_certificates=_read("ca", ca),
        private_key=_read("key", key),
        certificate_chain=_read("cert", cert),
    )


def _read(option: str, path: str | Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ClientError(
            "INVALID_ARGUMENT", f"{option}: cannot read {path}: {error.strerror}.", option
        ) from error
