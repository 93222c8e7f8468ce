"""A port that several processes listen on: Linux gives each new connection to one of them."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from server import addresses
from widedeep.errors import ConfigError


@contextmanager
def reserved(host: str, port: int) -> Iterator[int]:
    """Hold a port while the block runs, so that processes of this user, and no others, can listen on it.

    port     0 takes a free one
    Raises   ConfigError: it is taken, or this system does not share ports
    """
    if sys.platform != "linux":
        raise ConfigError(
            "--workers needs Linux, which spreads connections over the processes that share a port. "
            "Start several servers with ports of their own, and give clients all of their addresses."
        )
    try:
        with ExitStack() as held:
            for family, address in _resolved(host):
                port = _free(family, address, port)
                one = held.enter_context(socket.socket(family))
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                _bind(one, address, port)  # and never listens: no connection comes here
            yield port
    except OSError as error:
        raise ConfigError(
            f"Cannot listen on {addresses.joined(host, port)}: {error.strerror or error}. "
            "Choose another address with --port (0 takes a free one) or --host."
        ) from error


def _resolved(host: str) -> list[tuple[socket.AddressFamily, str]]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def _free(family: socket.AddressFamily, address: str, port: int) -> int:
    """The port, or a free one for 0, if nobody listens there: who shares it would not be noticed later."""
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections do not count
        _bind(probe, address, port)
        return int(probe.getsockname()[1])


def _bind(one: socket.socket, address: str, port: int) -> None:
    if one.family == socket.AF_INET6:
        with contextlib.suppress(AttributeError):
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    one.bind((address, port))
