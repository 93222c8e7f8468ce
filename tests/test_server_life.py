"""From start to drain: health, back-pressure, cancellation, limits on calls."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from serving import Feed, Running, eventually, recommend, running

from server.app import Server
from server.pb import recommender_pb2 as pb
from server.pb import recommender_pb2_grpc as pb_grpc
from server.served import ServedModel
from server.settings import ServerSettings
from widedeep.errors import ConfigError

pytest_plugins = ["serving_fixtures"]
SERVICE = "widedeep.v1.Recommender"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def health_of(channel: grpc.Channel, name: str) -> int:
    return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name)).status


def test_not_serving_until_the_model_is_there(bundle: Path) -> None:
    with (
        running(bundle, load=False) as started,
        grpc.insecure_channel(started.target) as channel,
        started.stub() as stub,
    ):
        assert [health_of(channel, name) for name in ("", SERVICE)] == [NOT_SERVING] * 2
        with pytest.raises(grpc.RpcError) as caught:
            recommend(stub, user_id="1")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        started.run(started.server.load())
        assert [health_of(channel, name) for name in ("", SERVICE)] == [SERVING] * 2
        assert recommend(stub, user_id="1").item_ids
        with pytest.raises(grpc.RpcError) as caught:
            health_of(channel, "something.else")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_drain_ends_what_waits_and_finishes_what_works(bundle: Path) -> None:
    with (
        running(bundle, grace=60.0) as started,
        started.stub() as stub,
        grpc.insecure_channel(started.target) as channel,
    ):
        feed = Feed()
        idle = stub.RecommendStream(iter(feed))
        feed.send(user_id="1")
        assert next(idle).response.item_ids
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert next(watch).status == SERVING

        release = threading.Event()
        started.server.lanes.rankings.executor.submit(release.wait, 30)
        working = stub.Recommend.future(pb.RecommendRequest(user_id="1"), timeout=30)
        assert eventually(lambda: started.server.calls.active == 2)

        begun = time.monotonic()
        draining = asyncio.run_coroutine_threadsafe(started.server.drain(), started.loop)
        assert next(watch).status == NOT_SERVING
        with pytest.raises(grpc.RpcError) as caught:
            next(idle)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert not draining.done()
        release.set()
        assert working.result().item_ids, "it was in flight"
        draining.result(20)
        assert time.monotonic() - begun < 20, "neither the idle stream nor the watcher held the grace"
        feed.close()
        with pytest.raises(grpc.RpcError) as caught:
            recommend(stub, user_id="1")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_drain_lets_a_stream_answer_what_it_has_read(bundle: Path) -> None:
    with running(bundle, grace=30.0) as started, started.stub() as stub:
        feed = Feed()
        stream = stub.RecommendStream(iter(feed))
        feed.send(user_id="1")
        assert next(stream).response.item_ids
        release = threading.Event()
        started.server.lanes.rankings.executor.submit(release.wait, 30)
        feed.send(user_id="2", request_id="last")
        (open_stream,) = started.server.calls.streams
        assert eventually(lambda: open_stream.unanswered == 1)
        draining = asyncio.run_coroutine_threadsafe(started.server.drain(), started.loop)
        assert eventually(lambda: started.server.calls._draining)
        release.set()
        assert next(stream).response.request_id == "last"
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        draining.result(20)
        feed.close()


def test_drain_cuts_off_what_outlasts_the_grace(bundle: Path) -> None:
    with running(bundle, grace=0.3) as started, started.stub() as stub:
        release = threading.Event()
        started.server.lanes.rankings.executor.submit(release.wait, 30)
        working = stub.Recommend.future(pb.RecommendRequest(user_id="1"), timeout=30)
        assert eventually(lambda: started.server.calls.active == 1)
        begun = time.monotonic()
        started.run(started.server.drain())
        assert time.monotonic() - begun < 10
        assert working.exception(10) is not None
        release.set()


def test_calls_that_are_cut_off_are_over_before_the_loop_is(
    bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """gRPC logs a traceback for each call that the loop's end has to cancel."""
    release = threading.Event()

    def compute() -> None:
        """Holds the interpreter's lock, as a model does: gRPC's threads have to wait for it."""
        while not release.is_set():
            sum(range(1000))

    async def life() -> None:
        server = Server(ServerSettings(model=str(bundle), port=0, device="cpu", grace=0.1))
        await server.start()
        await server.load()
        server.lanes.rankings.executor.submit(compute)
        with grpc.insecure_channel(server.address) as channel:
            stub = pb_grpc.RecommenderStub(channel)
            calls = [stub.Recommend.future(pb.RecommendRequest(user_id="1"), timeout=30) for _ in range(30)]
            while server.calls.active < len(calls):
                await asyncio.sleep(0.01)
            await server.drain()

    asyncio.run(life())
    release.set()
    assert "30 calls were cut off" in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_cancelled_calls_are_neither_computed_nor_kept(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []
    release = threading.Event()
    real = ServedModel.recommend

    def held_back(model: ServedModel, asked: Any) -> Any:
        computed.append(len(asked))
        assert release.wait(30)
        return real(model, asked)

    with running(bundle) as started, started.stub() as stub:
        monkeypatch.setattr(ServedModel, "recommend", held_back)
        first = stub.Recommend.future(pb.RecommendRequest(user_id="1"))
        assert eventually(lambda: computed == [1])
        calls = [stub.Recommend.future(pb.RecommendRequest(user_id="1")) for _ in range(20)]
        feeds = [Feed() for _ in range(5)]
        streams = [stub.RecommendStream(iter(feed)) for feed in feeds]
        assert eventually(lambda: started.server.calls.active == 26)
        for call in (*calls, *streams):
            call.cancel()
        assert eventually(lambda: started.server.calls.active == 1)
        release.set()
        for feed in feeds:
            feed.close()
        assert first.result().item_ids
        assert recommend(stub, user_id="1").item_ids
        assert computed == [1, 1]
        assert eventually(lambda: started.server.lanes.rankings.queued == 0)


def test_a_client_that_does_not_read_is_held_back(bundle: Path) -> None:
    sent = 0

    def requests() -> Iterator[pb.RecommendStreamRequest]:
        nonlocal sent
        large = pb.RecommendRequest(candidate_item_ids=["1"] + [f"{number:0250}x" for number in range(200)])
        message = pb.RecommendStreamRequest(request=large)  # 50 KB, and so is its response
        for _ in range(20_000):
            sent += 1
            yield message

    with running(bundle, grace=0.2) as started, started.stub() as stub:
        stream = stub.RecommendStream(requests())
        previous = -1
        while sent != previous:
            previous = sent
            time.sleep(0.5)
        assert 0 < sent < 10_000
        with started.stub() as other:
            assert recommend(other, user_id="1").item_ids, "others are served"
        stream.cancel()


def test_calls_beyond_the_limit_are_refused(bundle: Path) -> None:
    with running(bundle, max_concurrent_calls=3) as started, started.stub() as stub:
        feeds = [Feed() for _ in range(3)]
        streams = [stub.RecommendStream(iter(feed)) for feed in feeds]
        for feed, stream in zip(feeds, streams, strict=True):
            feed.send(user_id="1")
            next(stream)
        with pytest.raises(grpc.RpcError) as caught:
            recommend(stub, user_id="1")
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        for feed in feeds:
            feed.close()
        assert [list(stream) for stream in streams] == [[], [], []]
        assert recommend(stub, user_id="1").item_ids


def test_a_taken_port_is_an_error(server: Running, bundle: Path) -> None:
    port = int(server.target.rpartition(":")[2])
    with pytest.raises(ConfigError, match="port is taken"), running(bundle, port=port):
        pass


def test_warns_beyond_loopback(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), running(bundle, host="0.0.0.0", insecure=True) as started:
        assert any("other machines" in record.getMessage() for record in caplog.records)
        port = started.target.rpartition(":")[2]
        with socket.create_connection(("127.0.0.1", int(port)), timeout=5):
            pass
