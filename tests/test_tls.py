"""A server with a certificate, and clients that trust it, show one of their own, or neither."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from certificates import Authority, Pair
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from serving import Feed, running

from server.__main__ import main
from server.client import AsyncClient, Client, ClientError
from server.pb import recommender_pb2_grpc as pb_grpc
from widedeep.errors import ConfigError

pytest_plugins = ["serving_fixtures"]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


def by_threads(target: str, **options: Any) -> str:
    with Client(target, **options) as client:
        return client.recommend(1, 3).items[0].item_id


def by_asyncio(target: str, **options: Any) -> str:
    async def run() -> str:
        async with AsyncClient(target, **options) as client:
            return (await client.recommend(1, 3)).items[0].item_id

    return asyncio.run(run())


@pytest.fixture(params=[by_threads, by_asyncio], ids=["threads", "asyncio"])
def best(request: pytest.FixtureRequest) -> Callable[..., str]:
    return request.param  # type: ignore[no-any-return]


def refused(best: Callable[..., str], target: str, text: str, **options: Any) -> None:
    with pytest.raises(ClientError) as caught:
        best(target, attempts=1, **options)
    assert caught.value.code == "UNAVAILABLE"
    assert text in caught.value.message


def serial_of(target: str, ca: Path) -> int:
    """Of the certificate that a new connection gets."""
    context = ssl.create_default_context(cafile=ca)
    host, _, port = target.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=host) as wrapped,
    ):
        der = wrapped.getpeercert(binary_form=True)
    assert der
    return x509.load_der_x509_certificate(der).serial_number


def serial_in(pair: Pair) -> int:
    return x509.load_pem_x509_certificate(pair.cert.read_bytes()).serial_number


def test_who_trusts_the_certificate_is_served(
    bundle: Path, authority: Authority, stranger: Authority, best: Callable[..., str]
) -> None:
    with running(bundle, **authority.issue("server").served) as server:
        assert best(server.target, ca=authority.cert)
        refused(best, server.target, "CERTIFICATE_VERIFY_FAILED", ca=stranger.cert)
        refused(best, server.target, "CERTIFICATE_VERIFY_FAILED", tls=True)
        refused(best, server.target, "or it wants TLS")


def test_other_keys(bundle: Path, authority: Authority) -> None:
    for name, key in (
        ("rsa", rsa.generate_private_key(65537, 2048)),
        ("p384", ec.generate_private_key(ec.SECP384R1())),
    ):
        with running(bundle, **authority.issue(name, key=key).served) as server:
            assert by_threads(server.target, ca=authority.cert)


def test_mutual_tls(
    bundle: Path, authority: Authority, stranger: Authority, best: Callable[..., str]
) -> None:
    served = {**authority.issue("server").served, "tls_client_ca": str(authority.cert)}
    with running(bundle, **served) as server:
        assert best(server.target, ca=authority.cert, **authority.issue("shop").shown)
        refused(best, server.target, "by TLS", ca=authority.cert, **stranger.issue("thief").shown)
        refused(best, server.target, "by TLS", ca=authority.cert)


def test_old_protocols_are_refused(bundle: Path, authority: Authority) -> None:
    with running(bundle, **authority.issue("server").served) as server:
        host, _, port = server.target.rpartition(":")

        def agreed(version: ssl.TLSVersion) -> str | None:
            context = ssl.create_default_context(cafile=authority.cert)
            context.set_ciphers("ALL:@SECLEVEL=0")  # else this client would be the one to refuse
            context.minimum_version = context.maximum_version = version
            with (
                socket.create_connection((host, int(port)), timeout=10) as plain,
                context.wrap_socket(plain, server_hostname=host) as wrapped,
            ):
                return wrapped.version()

        assert agreed(ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
        assert agreed(ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
        with (
            pytest.warns(DeprecationWarning, match="deprecated"),
            pytest.raises(OSError, match=r"EOF|reset"),
        ):
            agreed(ssl.TLSVersion.TLSv1_1)


def test_a_new_certificate_holds_for_new_connections_while_old_ones_live_on(
    bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("server")
    with caplog.at_level(logging.INFO), running(bundle, **pair.served) as server:
        trust = grpc.ssl_channel_credentials(authority.cert.read_bytes())
        with grpc.secure_channel(server.target, trust) as channel:
            feed = Feed()
            replies = pb_grpc.RecommenderStub(channel).RecommendStream(iter(feed))
            feed.send(user_id="1")
            assert next(replies).status.code == 0
            first = serial_in(pair)
            assert serial_of(server.target, authority.cert) == first

            pair.put(authority.issue("next"))
            assert serial_in(pair) != first
            assert serial_of(server.target, authority.cert) == serial_in(pair)

            kept = serial_in(pair)
            pair.cert.write_text("not a certificate")
            assert serial_of(server.target, authority.cert) == kept
            assert serial_of(server.target, authority.cert) == kept
            said = [record for record in caplog.records if "the old certificate stays" in record.getMessage()]
            assert len(said) == 1, "said once, not at every handshake"
            pair.cert.unlink()
            assert serial_of(server.target, authority.cert) == kept
            pair.put(authority.issue("last"))
            assert serial_of(server.target, authority.cert) == serial_in(pair)

            feed.send(user_id="2")
            assert next(replies).status.code == 0, "the stream of the first certificate"
            feed.close()
            assert list(replies) == []


def test_a_new_ca_for_clients(bundle: Path, tmp_path: Path) -> None:
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    trusted = tmp_path / "clients.pem"
    trusted.write_bytes(old.cert.read_bytes())
    with running(bundle, **old.issue("server").served, tls_client_ca=str(trusted)) as server:
        shop, other = old.issue("shop").shown, new.issue("other").shown
        assert by_threads(server.target, ca=old.cert, **shop)
        refused(by_threads, server.target, "by TLS", ca=old.cert, **other)
        trusted.write_bytes(new.cert.read_bytes())
        assert by_threads(server.target, ca=old.cert, **other)
        refused(by_threads, server.target, "by TLS", ca=old.cert, **shop)


def test_files_that_cannot_be_used(bundle: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    one, two = authority.issue("one"), authority.issue("two")
    locked = authority.issue("locked", password=b"secret")
    junk = tmp_path / "junk.pem"
    junk.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")

    def said(**settings: Any) -> str:
        with pytest.raises(ConfigError) as caught, running(bundle, **settings):
            pass
        return str(caught.value)

    assert "give both --tls-cert and --tls-key" in said(tls_cert=str(one.cert))
    assert "give both --tls-cert and --tls-key" in said(tls_key=str(one.key))
    assert "which needs TLS" in said(tls_client_ca=str(authority.cert))
    assert f"--tls-cert {tmp_path / 'none.pem'} cannot be read: No such file" in said(
        tls_cert=str(tmp_path / "none.pem"), tls_key=str(one.key)
    )
    assert "is not the key of --tls-cert" in said(tls_cert=str(one.cert), tls_key=str(two.key))
    assert "does not hold a certificate" in said(tls_cert=str(junk), tls_key=str(one.key))
    assert "does not hold a certificate" in said(tls_cert=str(one.key), tls_key=str(one.key))
    assert "is not a private key" in said(tls_cert=str(one.cert), tls_key=str(one.cert))
    assert "encrypted with a password" in said(**locked.served)
    short = rsa.generate_private_key(65537, 1024)
    for number, key in enumerate(
        (ed25519.Ed25519PrivateKey.generate(), short, ec.generate_private_key(ec.SECP521R1()))
    ):
        assert "RSA of 2048 " in said(**authority.issue(f"odd{number}", key=key).served)
    assert "--tls-client-ca" in said(**one.served, tls_client_ca=str(junk))


def test_what_should_worry_is_logged(bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority = Authority(tmp_path)
    ended = authority.issue("ended", days=-1)
    ended.key.chmod(0o644)
    with caplog.at_level(logging.INFO), running(bundle, load=False, **ended.served):
        pass
    assert "clients will refuse it now" in caplog.text
    assert re.search(r"other users can read or change .*ended\.key", caplog.text)
    caplog.clear()
    with caplog.at_level(logging.WARNING), running(bundle, load=False, **authority.issue("ending", 3).served):
        pass
    assert "CN=ending" in caplog.text
    assert "other users" not in caplog.text


def test_nothing_listens_beyond_this_machine_in_plain(
    bundle: Path, authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--model", str(bundle), "--port", "0", "--host", "0.0.0.0"]) == 2
    error = capsys.readouterr().err
    assert "--host 0.0.0.0 can be reached from other machines" in error
    assert "--tls-cert and --tls-key, or --insecure true" in error
    with running(bundle, host="0.0.0.0", **authority.issue("server").served) as server:
        assert by_threads(f"127.0.0.1:{server.target.rpartition(':')[2]}", ca=authority.cert)
