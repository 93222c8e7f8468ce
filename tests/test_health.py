"""Readiness and liveness, over gRPC and over HTTP: before a model, with one, in a drain, and with a blocked loop."""

from __future__ import annotations

import asyncio
import socket
import threading
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from ports import free_port
from serving import Running, eventually, recommend, running

from server import health, http_listener
from server.pb import recommender_pb2 as pb
from widedeep.errors import ConfigError

pytest_plugins = ["serving_fixtures"]
SERVICE = "widedeep.v1.Recommender"
READY = ("", "readiness", SERVICE)
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def grpc_health(started: Running) -> dict[str, int]:
    with grpc.insecure_channel(started.target) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        return {
            name: check(health_pb2.HealthCheckRequest(service=name), timeout=10).status
            for name in (*READY, "liveness")
        }


def asked(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_server_is_alive_before_it_is_ready_and_while_it_drains(bundle: Path) -> None:
    port = free_port()
    with running(bundle, load=False, metrics_port=port, grace=30.0) as started, started.stub() as stub:
        assert grpc_health(started) == {**dict.fromkeys(READY, NOT_SERVING), "liveness": SERVING}
        assert asked(port, "/livez") == (200, "ok\n")
        assert asked(port, "/readyz") == (503, "the model is being loaded\n")

        started.run(started.server.load())
        assert grpc_health(started) == dict.fromkeys((*READY, "liveness"), SERVING)
        assert asked(port, "/readyz") == (200, "ok\n")

        with grpc.insecure_channel(started.target) as channel:
            watched = {
                name: health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=name))
                for name in (*READY, "liveness")
            }
            assert {next(watch).status for watch in watched.values()} == {SERVING}
            release = threading.Event()
            started.server.lanes.rankings.executor.submit(release.wait, 30)
            working = stub.Recommend.future(pb.RecommendRequest(user_id="1"), timeout=30)
            assert eventually(lambda: started.server.calls.active == 1)
            draining = asyncio.run_coroutine_threadsafe(started.server.drain(), started.loop)
            assert [next(watched[name]).status for name in READY] == [NOT_SERVING] * 3
            assert asked(port, "/readyz") == (503, "the server is draining\n")
            assert asked(port, "/livez") == (200, "ok\n")
            release.set()
            assert working.result().item_ids
            draining.result(30)
            with pytest.raises(grpc.RpcError):  # it was SERVING until the connection ended
                next(watched["liveness"])


def test_a_load_that_ends_during_a_drain_does_not_make_it_ready(bundle: Path) -> None:
    with running(bundle, load=False) as started:
        started.run(started.server.health.drain())
        started.run(started.server.load())
        assert grpc_health(started) == {**dict.fromkeys(READY, NOT_SERVING), "liveness": SERVING}


def test_a_blocked_loop_is_not_alive(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "BEAT", 0.05)
    monkeypatch.setattr(health, "STALLED", 1.0)
    port = free_port()
    with running(bundle, metrics_port=port) as started:
        assert eventually(lambda: asked(port, "/livez")[0] == 200)
        release = threading.Event()
        started.loop.call_soon_threadsafe(release.wait, 30)
        assert eventually(lambda: asked(port, "/livez")[0] == 503)
        assert "the event loop has not turned for" in asked(port, "/livez")[1]
        assert asked(port, "/metrics")[0] == 200, "they are most wanted now"
        release.set()
        assert eventually(lambda: asked(port, "/livez")[0] == 200)
        assert eventually(lambda: started.server.health.delay < 0.5)


def test_what_is_not_there_is_said(bundle: Path) -> None:
    port = free_port()
    with running(bundle, metrics_port=port) as started:
        assert asked(port, "/")[0] == 404
        assert "/metrics, /livez and /readyz" in asked(port, "/x")[1]
        assert asked(port, "/metrics", "POST")[0] == 405
        assert asked(port, "/readyz", "HEAD") == (200, "")
        assert asked(port, "/readyz?verbose") == (200, "ok\n")
        taken = pytest.raises(ConfigError, match=f"Cannot listen for metrics on 127.0.0.1:{port}")
        with taken, running(bundle, metrics_port=port):
            pass
        assert grpc_health(started)[""] == SERVING


def test_slow_readers_are_cut_off(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_listener, "PATIENCE", 0.5)
    port = free_port()
    with running(bundle, metrics_port=port):
        slow = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(20)]
        for one in slow:
            one.sendall(b"GET /met")  # and no more
        assert eventually(lambda: _answers(port))
        for one in slow:
            with one:
                assert _ended(one)


def _answers(port: int) -> bool:
    try:
        return asked(port, "/readyz")[0] == 200
    except OSError:  # as many as are taken are open
        return False


def _ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def test_reflection_names_the_services_and_their_messages(server: Running) -> None:
    with grpc.insecure_channel(server.target) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert set(database.get_services()) == {
            SERVICE,
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        file = database.FindFileContainingSymbol(SERVICE)
        assert "ScoreStream" in {method.name for method in file.service[0].method}


def test_a_probe_costs_no_request(server: Running) -> None:
    """Health is asked every few seconds: it is neither counted nor logged."""
    with server.stub() as stub:
        recommend(stub, user_id="1")
        before = server.server.telemetry.metrics.text()[0]
        grpc_health(server)
        after = server.server.telemetry.metrics.text()[0]
    assert b"grpc.health" not in after
    calls = [line for line in before.splitlines() if line.startswith(b"grpc_server_")]
    assert calls == [line for line in after.splitlines() if line.startswith(b"grpc_server_")]
