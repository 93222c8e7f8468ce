"""The server's certificate, and the CAs of its clients' ones: read from PEM files, and again when these change.

gRPC asks for the certificate before every handshake, so a new one holds for new connections, and open ones live on.
gRPC takes TLS 1.2 and 1.3 and nothing older.
"""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from server import files
from server.settings import ServerSettings
from widedeep.errors import ConfigError

logger = logging.getLogger(__name__)

SOON = timedelta(days=14)


def credentials(settings: ServerSettings) -> grpc.ServerCredentials | None:
    """For `add_secure_port`; None where no certificate is set.

    Raises  ConfigError: a file cannot be read, is not what it should be, or the key is another certificate's
    """
    if not settings.tls_cert:
        return None
    certificates = Certificates(settings)
    return grpc.dynamic_ssl_server_credentials(
        certificates.current, certificates.changed, require_client_authentication=bool(settings.tls_client_ca)
    )


class Certificates:
    """What the files held when they were last good."""

    def __init__(self, settings: ServerSettings) -> None:
        """Raises  ConfigError"""
        self._cert = Path(settings.tls_cert).expanduser()
        self._key = Path(settings.tls_key).expanduser()
        self._client_ca = Path(settings.tls_client_ca).expanduser() if settings.tls_client_ca else None
        self._lock = threading.Lock()  # gRPC has threads of its own
        self._stamps = self._look()
        self.current = self._read()
        files.warn_of_readers(self._key, "the key of the server's certificate")

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """What the files hold now, if they have changed and are good. Never raises: gRPC would refuse the client."""
        with self._lock:
            stamps = self._look()
            if stamps == self._stamps:
                return None
            self._stamps = stamps  # first: what changes from here on is seen at the next handshake
            try:
                self.current = self._read()
            except Exception as error:  # whatever a file can bring: raised, it would refuse the client
                logger.error("the certificate's files have changed, and the old certificate stays: %s", error)
                return None
            return self.current

    def _look(self) -> tuple[files.Stamp, ...]:
        return tuple(files.stamp(path) for path in (self._cert, self._key, self._client_ca) if path)

    def _read(self) -> grpc.ServerCertificateConfiguration:
        chain, key = _bytes("--tls-cert", self._cert), _bytes("--tls-key", self._key)
        leaf = _certificates("--tls-cert", self._cert, chain)[0]
        if not _can_be_served(leaf):
            raise ConfigError(
                f"--tls-cert {self._cert} has a key that gRPC's clients do not take. Have one made with RSA of 2048 "
                "bits or more, or with the curve P-256 or P-384."
            )
        try:
            public = load_pem_private_key(key, None).public_key()
        except TypeError as error:
            raise ConfigError(
                f"--tls-key {self._key} is encrypted with a password, which nobody could type in. Decrypt it: "
                "openssl pkey -in KEY -out PLAIN_KEY."
            ) from error
        except (ValueError, UnsupportedAlgorithm) as error:
            raise ConfigError(f"--tls-key {self._key} is not a private key in PEM form.") from error
        if public != leaf.public_key():
            raise ConfigError(
                f"--tls-key {self._key} is not the key of --tls-cert {self._cert}. Give the two that were made "
                "together; in a file of several certificates the server's own comes first."
            )
        roots = None
        if self._client_ca:
            roots = _bytes("--tls-client-ca", self._client_ca)
            _certificates("--tls-client-ca", self._client_ca, roots)
        self._tell_of(leaf)
        return grpc.ssl_server_certificate_configuration([(key, chain)], roots)

    def _tell_of(self, leaf: x509.Certificate) -> None:
        now, begins, ends = datetime.now(UTC), leaf.not_valid_before_utc, leaf.not_valid_after_utc
        if not begins <= now <= ends:
            logger.error("%s is valid from %s to %s: clients will refuse it now", self._cert, begins, ends)
        else:
            level = logging.WARNING if ends - now < SOON else logging.INFO
            logger.log(
                level, "certificate %s of %s, until %s", self._cert, leaf.subject.rfc4514_string(), ends
            )


def _can_be_served(leaf: x509.Certificate) -> bool:
    """Tried with gRPC's client: Ed25519, P-521 and short RSA keys fail at the handshake, and only there."""
    try:
        key = leaf.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return False
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size >= 2048
    return isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in ("secp256r1", "secp384r1")


def _bytes(flag: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{flag} {path} cannot be read: {error.strerror}.") from error


def _certificates(flag: str, path: Path, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise ConfigError(
            f"{flag} {path} does not hold a certificate in PEM form (-----BEGIN CERTIFICATE-----)."
        ) from error
