"""Ports for servers that tests start."""

from __future__ import annotations

import random
import socket

BELOW = 32_768  # where the system begins to give ports to outgoing connections, unasked


def free_port() -> int:
    """One that nobody has now and that no connection will be given before it is listened on."""
    while True:
        port = random.randrange(BELOW // 2, BELOW)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
