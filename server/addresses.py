"""Addresses to listen on."""

from __future__ import annotations

import ipaddress

from widedeep.errors import ConfigError


def joined(host: str, port: int) -> str:
    """host:port, in brackets for IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Only this machine can reach it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check(flag: str, host: str, *, encrypted: bool, insecure: bool) -> None:
    """What other machines can reach has to be encrypted, unless somebody says otherwise.

    flag    the one that `host` came with, such as --host
    Raises  ConfigError: it is not
    """
    if is_loopback(host) or encrypted or insecure:
        return
    raise ConfigError(
        f"{flag} {host} can be reached from other machines, and what goes there would not be encrypted. Give "
        "--tls-cert and --tls-key, or --insecure true where a proxy encrypts or the network is trusted."
    )
