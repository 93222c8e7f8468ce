"""Addresses to listen on."""

from __future__ import annotations

import ipaddress


def joined(host: str, port: int) -> str:
    """host:port, in brackets for IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Only this machine can reach it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
