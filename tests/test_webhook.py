"""MLflow's signed webhook: what is taken for one, and a real one from a real MLflow server."""

from __future__ import annotations

import asyncio
import http.client
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tracking_servers
from ports import free_port
from registries import NAME, Releases
from serving import running

from server import http_listener
from server.command_line import settings_from
from server.settings import ServerSettings
from server.webhook import Webhook, secret_of
from widedeep.errors import ConfigError

SECRET = "a secret of ours"
BODY = b'{"entity": "model_version_alias", "action": "created", "data": {}}'


def signed(
    body: bytes = BODY, secret: str = SECRET, age: float = 0.0, signature: str | None = None
) -> dict[str, str]:
    """The headers that MLflow's own code signs a message with."""
    from mlflow.webhooks.delivery import _generate_hmac_signature

    stamp = str(int(time.time() - age))
    return {
        "X-MLflow-Delivery-Id": "d-1",
        "X-MLflow-Timestamp": stamp,
        "X-MLflow-Signature": signature
        or _generate_hmac_signature(secret, "d-1", stamp, body.decode("latin-1")),
    }


@dataclass
class Listening:
    port: int
    woken: int = 0

    async def send(self, method: str, body: bytes, headers: dict[str, str]) -> int:
        def send() -> int:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            connection.request(method, "/any/path", body, headers)
            status = connection.getresponse().status
            connection.close()
            return status

        return await asyncio.to_thread(send)


@asynccontextmanager
async def listening() -> AsyncIterator[Listening]:
    made = Listening(free_port())

    def wake() -> None:
        made.woken += 1

    settings = ServerSettings(webhook_port=made.port, webhook_secret=SECRET)
    listener = await Webhook.listening(settings, wake)
    try:
        yield made
    finally:
        await listener.close()


@pytest.mark.parametrize(
    ("method", "body", "headers", "status"),
    [
        ("POST", BODY, signed, 204),
        ("POST", b"", lambda: signed(b""), 204),
        ("POST", BODY, lambda: signed(age=200), 204),
        ("POST", BODY, lambda: signed(age=-200), 204),
        ("POST", BODY, lambda: signed(age=400), 401),
        ("POST", BODY, lambda: signed(age=-400), 401),
        ("POST", BODY, lambda: signed(secret="another"), 401),
        ("POST", BODY + b" ", signed, 401),
        ("POST", BODY, lambda: signed(signature="v1,"), 401),
        ("POST", BODY, lambda: signed(signature="v1,\xff"), 401),
        ("POST", BODY, dict, 401),
        ("POST", BODY, lambda: {**signed(), "X-MLflow-Delivery-Id": "d-2"}, 401),
        ("POST", BODY, lambda: {**signed(), "X-MLflow-Timestamp": "9" * 400}, 401),
        ("POST", BODY, lambda: {**signed(), "X-MLflow-Timestamp": "²"}, 401),
        ("POST", bytes(http_listener.MAX_BODY + 1), dict, 413),
        ("POST", BODY, lambda: {**signed(), "Content-Length": "-1"}, 411),
        ("POST", BODY, lambda: {**signed(), "Filling": "x" * http_listener.MAX_HEAD}, 431),
        ("GET", BODY, signed, 405),
    ],
)
def test_only_what_was_signed_just_now_wakes(
    method: str, body: bytes, headers: Callable[[], dict[str, str]], status: int
) -> None:
    """The headers are made when they are sent: what was signed when the tests were collected may be old by then."""

    async def life() -> None:
        async with listening() as made:
            assert await made.send(method, body, headers()) == status
            assert made.woken == (status == 204)

    asyncio.run(life())


def test_slow_and_many_clients_do_not_keep_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_listener, "PATIENCE", 0.5)

    async def life() -> None:
        async with listening() as made:
            slow = [
                await asyncio.open_connection("127.0.0.1", made.port)
                for _ in range(http_listener.MAX_CONNECTIONS + 5)
            ]
            for _, writer in slow:
                writer.write(b"POST / HTTP/1.1\r\n")  # and no more
            await asyncio.sleep(1.0)
            ended = await asyncio.gather(*(reader.read() for reader, _ in slow), return_exceptions=True)
            assert all(end == b"" or isinstance(end, OSError) for end in ended), "all were cut off"
            assert await made.send("POST", BODY, signed()) == 204

    asyncio.run(life())


def test_a_webhook_needs_its_secret(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="WIDEDEEP_WEBHOOK_SECRET or --webhook-secret-file"):
        secret_of(ServerSettings(webhook_port=1))
    file = tmp_path / "secret"
    with pytest.raises(ConfigError, match="cannot be read"):
        secret_of(ServerSettings(webhook_secret_file=str(file)))
    file.write_text("from a file\n")
    flags = ["--webhook-secret-file", str(file)]
    assert secret_of(settings_from(flags, {})) == "from a file"
    by_variable = settings_from([], {"WIDEDEEP_WEBHOOK_SECRET": "by variable"})
    assert secret_of(by_variable) == "by variable"
    assert "by variable" not in repr(by_variable)
    with pytest.raises(SystemExit):  # all users of the machine see flags
        settings_from(["--webhook-secret", "x"], {})


def test_a_taken_port_is_said() -> None:
    async def life() -> None:
        async with listening() as made:
            settings = ServerSettings(webhook_port=made.port, webhook_secret=SECRET)
            with pytest.raises(ConfigError, match="Cannot listen for webhooks"):
                await Webhook.listening(settings, lambda: None)

    asyncio.run(life())


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Releases]:
    """An MLflow server in a process of its own, that may call this machine."""
    import mlflow

    folder = tmp_path_factory.mktemp("server")
    allowed = {"MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true", "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "https,http"}
    before = dict(os.environ)
    try:
        with tracking_servers.mlflow_server(folder, **allowed) as uri:
            mlflow.set_tracking_uri(uri)
            made = OnServer(folder, mlflow.MlflowClient())
            made.client.create_registered_model(NAME)
            made.at = uri
            yield made
    finally:
        mlflow.set_tracking_uri(None)
        os.environ.clear()
        os.environ.update(before)


class OnServer(Releases):
    """Versions whose files go through the server, as it refuses folders of its own machine."""

    at = ""

    @property
    def uri(self) -> str:
        return self.at

    def registered(self, path: Path, tags: dict[str, str]) -> Any:
        run = self.client.create_run("0")
        self.client.log_artifact(run.info.run_id, str(path), "model")
        source = f"{run.info.artifact_uri}/model"
        return self.client.create_model_version(NAME, source, run_id=run.info.run_id, tags=tags)


def test_a_move_is_live_at_once_without_a_look(mlflow_server: Releases, tmp_path: Path) -> None:
    port = free_port()
    mlflow_server.client.create_webhook(  # before any move: MLflow remembers for a minute that there is none
        "widedeep", f"http://127.0.0.1:{port}/", ["model_version_alias.created"], secret=SECRET
    )
    first, second = mlflow_server.add(), mlflow_server.add()
    mlflow_server.move(first)
    settings = {
        "tracking_uri": mlflow_server.uri,
        "cache_dir": str(tmp_path),
        "poll_seconds": 600.0,
        "webhook_port": port,
        "webhook_secret": SECRET,
    }
    with running(f"models:/{NAME}@champion", **settings) as started:
        for version in (second, first):
            mlflow_server.move(version)
            moved = time.monotonic()
            while started.server.store.current.version != version:  # type: ignore[union-attr]
                assert time.monotonic() - moved < 20
                time.sleep(0.01)
            print(f"live after {time.monotonic() - moved:.2f} s")
        assert started.server.store.status().counts.reloads == 2
