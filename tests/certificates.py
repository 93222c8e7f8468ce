"""A certificate authority, and what it signs."""

from __future__ import annotations

import datetime
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

Key: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
NAMES = x509.SubjectAlternativeName(
    [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
)


@dataclass(frozen=True)
class Pair:
    """PEM files of a certificate and its key."""

    cert: Path
    key: Path

    @property
    def served(self) -> dict[str, str]:
        """As settings of a server."""
        return {"tls_cert": str(self.cert), "tls_key": str(self.key)}

    @property
    def shown(self) -> dict[str, Path]:
        """As options of a client."""
        return {"cert": self.cert, "key": self.key}

    def put(self, other: Pair) -> None:
        """Have another pair's content from now on, as who renews a certificate does it: one file after the other."""
        for mine, its in ((self.cert, other.cert), (self.key, other.key)):
            new = mine.with_suffix(".new")
            new.write_bytes(its.read_bytes())
            os.replace(new, mine)


class Authority:
    """A root that signs certificates for localhost."""

    def __init__(self, folder: Path, name: str = "root") -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        own = self._builder(self._name, self._key, 30).add_extension(x509.BasicConstraints(True, None), True)
        self.cert = self._write(f"{name}.pem", own.sign(self._key, hashes.SHA256()))

    def issue(
        self, name: str, days: float = 30, password: bytes | None = None, key: Key | None = None
    ) -> Pair:
        """days  until it ends, from now; negative: it has ended"""
        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signed = (
            self._builder(subject, key, days).add_extension(NAMES, False).sign(self._key, hashes.SHA256())
        )
        path = self.folder / f"{name}.key"
        path.touch(0o600)
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption(),
            )
        )
        return Pair(self._write(f"{name}.pem", signed), path)

    def _builder(self, subject: x509.Name, key: Key, days: float) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=60))
            .not_valid_after(now + datetime.timedelta(days=days))
        )

    def _write(self, name: str, certificate: x509.Certificate) -> Path:
        path = self.folder / name
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return path
