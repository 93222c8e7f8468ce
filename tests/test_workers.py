"""Several processes on one port: started, killed, pinned together, drained."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from metrics_text import Read
from ports import free_port
from processes import ROOT, started
from registries import NAME, registry
from serving import Feed, Running, eventually

from server import shared_port
from server.__main__ import main
from server.client import Client, ClientError
from server.client.admin import AdminClient, Worker
from server.pb import recommender_pb2_grpc as pb_grpc
from server.settings import ServerSettings
from server.turns import turn
from server.worker import VARIABLE
from server.worker import Worker as Told
from widedeep.errors import ConfigError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux, which shares ports")
pytest_plugins = ["serving_fixtures"]
LONG = 240.0  # seconds; a process starts in a few


def served(workers: tuple[Worker, ...]) -> list[tuple[str, str, str]]:
    return [
        (worker.state, worker.models[0].model.version if worker.models else "", worker.pinned)
        for worker in workers
    ]


def test_two_workers_live_as_one_server(tmp_path: Path) -> None:
    with registry(tmp_path) as releases, ExitStack() as stack:
        for content in (None, None, releases.changed()):
            releases.add(content)
        releases.move("1")
        port, metrics_port = free_port(), free_port()
        process = stack.enter_context(
            started(
                "--model", f"models:/{NAME}@champion", "--tracking-uri", releases.uri, "--port", "0",
                "--cache-dir", str(tmp_path / "cache"), "--device", "cpu", "--workers", "2",
                "--admin-port", str(port), "--poll-seconds", "3600",
                "--metrics-port", str(metrics_port),
            )
        )  # fmt: skip
        target = process.wait_for(r"serving on (\S+) with 2 workers", LONG).group(1)
        admin = stack.enter_context(AdminClient(f"127.0.0.1:{port}", timeout=LONG))
        assert served(admin.status()) == [("SERVING", "1", "")] * 2

        all_are_told_of_in_one_place(f"http://127.0.0.1:{metrics_port}", admin)
        connections_are_spread(target, admin)
        a_pin_is_for_all_or_none(admin)
        a_killed_worker_is_missed_by_nobody_and_comes_back_pinned(target, admin)

        assert served(admin.unpin()) == [("SERVING", "1", "")] * 2
        admin.drain(1.0)
        assert process.end() == 0
        assert "all workers have ended" in process.log
        assert "Traceback" not in process.log


def all_are_told_of_in_one_place(url: str, admin: AdminClient) -> None:
    for path in ("readyz", "livez"):
        with urllib.request.urlopen(f"{url}/{path}", timeout=LONG) as answer:
            assert answer.status == 200
    with urllib.request.urlopen(f"{url}/metrics", timeout=LONG) as answer:
        found = Read(answer.read().decode())
    for text in (found, Read(admin.metrics())):
        assert [text("widedeep_ready", worker=number) for number in "01"] == [1, 1]
        assert text("process_resident_memory_bytes", worker="0") > 2**20


def connections_are_spread(target: str, admin: AdminClient) -> None:
    """Each connection to one worker; that all of these go to one would be a chance of one in 2^39."""
    feed, streams = Feed(), []
    with ExitStack() as stack:
        for _ in range(40):
            options = [("grpc.use_local_subchannel_pool", 1)]  # else channels share a connection
            channel = stack.enter_context(grpc.insecure_channel(target, options))
            streams.append(pb_grpc.RecommenderStub(channel).RecommendStream(iter(feed)))
        assert eventually(lambda: sum(worker.streams for worker in admin.status()) == 40, LONG)
        assert all(worker.streams for worker in admin.status())
        feed.close()


def a_pin_is_for_all_or_none(admin: AdminClient) -> None:
    assert served(admin.pin("2")) == [("SERVING", "2", "2")] * 2
    with pytest.raises(ClientError, match="FAILED_PRECONDITION: worker 0: The model answers otherwise"):
        admin.pin("3")
    assert served(admin.status()) == [("SERVING", "2", "2")] * 2
    second = admin.status()[1].pid
    os.kill(second, signal.SIGSTOP)
    with AdminClient(admin.target, timeout=2) as hasty, pytest.raises(ClientError):
        hasty.pin("1")
    assert eventually(lambda: admin.status()[0].pinned == "2", LONG), "put back while the other one hangs"
    os.kill(second, signal.SIGCONT)
    assert eventually(lambda: served(admin.status()) == [("SERVING", "2", "2")] * 2, LONG)


def a_killed_worker_is_missed_by_nobody_and_comes_back_pinned(target: str, admin: AdminClient) -> None:
    first, second = admin.status()
    with Client(target, timeout=LONG) as client:
        os.kill(second.pid, signal.SIGKILL)
        for _ in range(50):
            assert client.recommend("1", k=3).model.version == "2"
    back = [("SERVING", "2", "2")] * 2
    assert eventually(lambda: served(admin.status()) == back, LONG)
    assert [worker.pid == second.pid for worker in admin.status()] == [False, False]
    assert admin.status()[0].pid == first.pid


def test_a_worker_ends_with_its_parent(bundle: Path, tmp_path: Path) -> None:
    told = Told(0, free_port(), f"unix:{tmp_path / 'admin'}")
    worker = subprocess.Popen(
        [sys.executable, "-m", "server", "--model", str(bundle), "--device", "cpu", "--workers", "2"],
        cwd=ROOT, env=told.environment(2), stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with Client(f"127.0.0.1:{told.port}", timeout=1) as client:
        assert eventually(lambda: health(client) == "SERVING", LONG)
        _, log = worker.communicate(timeout=LONG)  # closes its input, as the parent's end does
    assert worker.returncode == 0
    assert "worker 0: the parent process is gone" in log


def health(client: Client) -> str:
    try:
        return client.health()
    except ClientError as error:
        return error.code


def test_what_no_worker_can_serve_is_said_once(tmp_path: Path) -> None:
    with started("--model", str(tmp_path / "missing.pth"), "--port", "0", "--workers", "2") as process:
        assert process.end(LONG) == 2
    assert process.log.count("missing.pth does not exist") == 1
    assert "Traceback" not in process.log


def test_a_server_that_is_there_already_is_noticed(
    server: Running, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = server.target.rpartition(":")[2]
    assert main(["--model", str(bundle), "--port", port, "--workers", "2"]) == 2
    assert f"Cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err
    assert main(["--model", str(bundle), "--host", "203.0.113.1", "--port", "0", "--workers", "2"]) == 2
    assert "Cannot listen on 203.0.113.1:0" in capsys.readouterr().err


def test_a_reserved_port_is_nobody_elses() -> None:
    with (
        shared_port.reserved("127.0.0.1", 0) as port,
        pytest.raises(ConfigError, match="Cannot listen"),
        shared_port.reserved("127.0.0.1", port),
    ):
        pass
    with shared_port.reserved("localhost", port) as again:
        assert again == port


def test_workers_need_a_system_that_shares_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ConfigError, match="--workers needs Linux"), shared_port.reserved("127.0.0.1", 0):
        pass


def test_workers_take_turns_to_load(tmp_path: Path) -> None:
    path = str(tmp_path / "loading")
    code = f"from server.turns import turn\nwith turn({path!r}): print('mine', flush=True); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "mine\n"
    held = threading.Event()

    def wait() -> None:
        with turn(path):
            held.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert not held.wait(0.3)
    other.kill()  # with the lock in its hands
    assert held.wait(LONG)
    waiting.join()
    other.communicate()
    with turn(""):
        pass


def test_what_a_worker_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    told = Told(3, 50051, "unix:/run/x", "/run/lock", "7")
    environment = told.environment(3)
    assert Told.of(environment) == told
    assert Told.of({}) is None
    assert environment["OMP_NUM_THREADS"] == "2"
    settings = told.settings(ServerSettings(workers=3, admin_port=1, webhook_port=2, port=0))
    assert (settings.port, settings.workers, settings.admin_port, settings.webhook_port) == (50051, 1, 0, 0)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert told.environment(3)["OMP_NUM_THREADS"] == "5"
    assert VARIABLE in environment
