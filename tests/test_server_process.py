"""`python -m server` as a person runs it: flags, environment, signals, exit statuses."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from processes import ROOT, started
from serving import Running

from server import addresses
from server.__main__ import main
from server.client import Client
from server.command_line import settings_from
from server.pb import recommender_pb2 as pb
from server.pb import recommender_pb2_grpc as pb_grpc
from server.settings import DEFAULT_TRACKING_URI
from widedeep.errors import ConfigError

pytest_plugins = ["serving_fixtures"]


def test_serves_a_bundle_without_mlflow_and_drains(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "mlflow.py").write_text("raise SystemExit('mlflow was imported')")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    with started("--model", str(bundle), "--port", "0", "--device", "cpu", PYTHONPATH=path) as server:
        target = server.wait_for(r"serving on (127\.0\.0\.1:\d+)").group(1)
        assert re.search(r"model model\.pth version [0-9a-f]{12} on cpu", server.log)
        client = subprocess.run(
            [sys.executable, "-m", "server.client", "recommend", "--target", target, "--user-id", "1", "--k", "3"],
            cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert client.returncode == 0, client.stderr
        assert re.search(r"^ +1 +\d+ +Film \d+ +-?\d+\.\d{4} +Comedy, Drama$", client.stdout, re.MULTILINE)

        with grpc.insecure_channel(target) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
            server.popen.send_signal(signal.SIGTERM)
            assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert server.end() == 0
        assert "stopped" in server.log
        assert "Traceback" not in server.log


def test_the_collector_has_little_to_go_through(bundle: Path, tmp_path: Path) -> None:
    count = "print('objects', gc.get_freeze_count(), len(gc.get_objects()), flush=True)"
    (tmp_path / "sitecustomize.py").write_text(f"import atexit, gc\natexit.register(lambda: {count})\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    with started("--model", str(bundle), "--port", "0", "--device", "cpu", PYTHONPATH=path) as server:
        with Client(server.wait_for(r"serving on (\S+)").group(1)) as client:
            for user in range(20):
                assert client.recommend(user_id=str(user), k=3).items
        server.popen.send_signal(signal.SIGTERM)
        assert server.end() == 0
        frozen, others = map(int, server.wait_for(r"objects (\d+) (\d+)").groups())
    assert frozen > 10 * others


@pytest.mark.skipif(sys.platform != "linux", reason="a matter of glibc")
def test_all_threads_take_memory_from_one_heap(bundle: Path, tmp_path: Path) -> None:
    """What a model leaves at the end of a heap of another thread would stay."""
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, ctypes\n"
        "libc = ctypes.CDLL(None)\n"
        "libc.fopen.restype, libc.malloc_info.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)\n"
        "libc.fclose.argtypes = (ctypes.c_void_p,)\n"
        "def tell():\n"
        f"    file = libc.fopen({bytes(tmp_path / 'heaps.xml')!r}, b'w')\n"
        "    libc.malloc_info(0, file)\n"
        "    libc.fclose(file)\n"
        "atexit.register(tell)\n"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    with started("--model", str(bundle), "--port", "0", "--device", "cpu", PYTHONPATH=path) as server:
        with Client(server.wait_for(r"serving on (\S+)").group(1)) as client:
            client.recommend("1", k=3)
        server.popen.send_signal(signal.SIGTERM)
        assert server.end() == 0
    assert (tmp_path / "heaps.xml").read_text().count("<heap nr=") == 1


def test_a_second_signal_ends_it_at_once(bundle: Path) -> None:
    with started("--model", str(bundle), "--grace", "60", WIDEDEEP_PORT="0", WIDEDEEP_DEVICE="cpu") as server:
        target = server.wait_for(r"serving on (\S+)").group(1)
        large = pb.RecommendRequest(candidate_item_ids=["1"] + [f"{number:0250}x" for number in range(200)])
        progress = [0]

        def messages() -> Iterator[pb.RecommendStreamRequest]:
            for progress[0] in range(20_000):
                yield pb.RecommendStreamRequest(request=large)

        with grpc.insecure_channel(target) as channel:
            stuck = pb_grpc.RecommenderStub(channel).RecommendStream(messages())  # it answers, nobody reads
            before = -1
            while not progress[0] or before != progress[0]:
                before = progress[0]  # standing still: no room for answers any more, hence none for requests
                time.sleep(3)
            assert 0 < before < 19_999
            server.popen.send_signal(signal.SIGINT)
            server.wait_for("draining: 1 calls in flight")
            time.sleep(0.5)
            assert server.popen.poll() is None, "it waits for the call"
            server.popen.send_signal(signal.SIGINT)
            assert server.end(5) == 130
            stuck.cancel()


def test_what_cannot_be_served_is_said_in_one_line(tmp_path: Path) -> None:
    with started("--model", str(tmp_path / "missing.pth"), "--port", "0") as server:
        assert server.end() == 2
    assert "missing.pth does not exist" in server.log
    assert "Traceback" not in server.log


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--port", "70000"], "--port must be from 0 to 65535, got 70000"),
        (["--port", "fifty"], "--port must be a whole number, got 'fifty'"),
        (["--grace", "nan"], "--grace must be from 0"),
        (["--grace", "-1"], "--grace must be from 0"),
        (["--max-k", "1001"], "--max-k must be from 1 to 1000"),
        (["--max-items", "0"], "--max-items must be from 1"),
        (["--model", ""], "model is empty"),
        (["--model", "models:/widedeep"], "models:/widedeep@champion"),
        (["--host", ""], "host is empty"),
        (["--host", "203.0.113.1", "--port", "0", "--insecure", "true"], "Cannot listen on 203.0.113.1:0"),
        (["--log-level", "loud"], "log_level must be one of"),
        (["--model", "models:/widedeep@champion", "--tracking-uri", "sqlite:///nowhere/x.db", "--port", "0"],
         "There is no MLflow store at sqlite:///nowhere/x.db"),
    ],
)  # fmt: skip
def test_unusable_flags(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str], bundle: Path
) -> None:
    if "--model" not in arguments:
        arguments = ["--model", str(bundle), *arguments]
    assert main(arguments) == 2
    assert text in capsys.readouterr().err


def test_a_taken_port_is_said(server: Running, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    port = server.target.rpartition(":")[2]
    assert main(["--model", str(bundle), "--port", port]) == 2
    assert "the port is taken" in capsys.readouterr().err
    with Client(server.target) as client:
        assert client.health() == "SERVING", "the first server is unharmed"


@pytest.mark.parametrize("arguments", [["--prot", "1"], ["--port"], ["extra"]])
def test_unknown_flags(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: python -m server" in capsys.readouterr().err


def test_flags_win_over_the_environment() -> None:
    environment = {
        "WIDEDEEP_PORT": "6000",
        "WIDEDEEP_HOST": "::1",
        "WIDEDEEP_MAX_K": "",
        "MLFLOW_TRACKING_URI": "http://store",
    }
    settings = settings_from(["--port", "7000"], environment)
    assert settings.address == "[::1]:7000"
    assert addresses.is_loopback(settings.host)
    assert settings.max_k == 1000, "an empty variable is none"
    assert settings.tracking_uri == "http://store"
    assert settings_from([], {}).tracking_uri == DEFAULT_TRACKING_URI
    assert settings_from(["--tracking-uri", "http://a"], environment).tracking_uri == "http://a"
    with pytest.raises(ConfigError, match="WIDEDEEP_PORT must be a whole number"):
        settings_from([], {"WIDEDEEP_PORT": "x"})


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("10.0.0.1", False), ("localhost.example.org", False)],
)  # fmt: skip
def test_loopback(host: str, loopback: bool) -> None:
    assert addresses.is_loopback(host) is loopback
