"""What one server takes: connections, streams, calls, bytes and seconds."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from serving import Feed, Running, eventually, recommend, running

from server import listening, tokens
from server.call import Call
from server.entrance import OpenServices
from server.pb import recommender_pb2 as pb
from server.pb import recommender_pb2_grpc as pb_grpc

pytest_plugins = ["serving_fixtures"]
OF_ITS_OWN = [("grpc.use_local_subchannel_pool", 1)]  # a connection that no other channel shares


def failed(call: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def explained(details: Any) -> tuple[str, float | None]:
    """The reason, and the seconds to wait."""
    reason, wait = "", None
    for detail in details:
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(retry):
            wait = retry.retry_delay.ToTimedelta().total_seconds()
    return reason, wait


def served(channel: grpc.Channel) -> bool:
    try:
        return bool(recommend(pb_grpc.RecommenderStub(channel), user_id="1").item_ids)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return False


@contextmanager
def blocked(server: Running) -> Iterator[threading.Event]:
    """Rankings wait for the event, or the block's end."""
    free = threading.Event()
    server.server.lanes.rankings.executor.submit(free.wait, 60)
    try:
        yield free
    finally:
        free.set()


def test_connections_beyond_the_limit_are_hung_up_on(bundle: Path) -> None:
    with running(bundle, max_connections=2) as server:
        channels = [grpc.insecure_channel(server.target, options=OF_ITS_OWN) for _ in range(3)]
        assert [served(channel) for channel in channels] == [True, True, False]
        assert served(channels[0])
        channels[1].close()
        assert eventually(lambda: served(channels[2])), "there is room again"
        for channel in channels:
            channel.close()


def test_who_says_nothing_is_hung_up_on(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "HANDSHAKE", 0.5)
    with running(bundle) as server:
        host, _, port = server.target.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=20) as silent:
            while silent.recv(4096):
                pass


def test_calls_beyond_those_of_a_connection_wait(bundle: Path) -> None:
    with running(bundle, max_streams=1) as server, server.stub() as stub:
        feed = Feed()
        replies = stub.RecommendStream(iter(feed))
        feed.send(user_id="1")
        next(replies)
        late = stub.Recommend.future(pb.RecommendRequest(user_id="1"), timeout=20)
        with grpc.insecure_channel(server.target, options=OF_ITS_OWN) as other:
            assert served(other)
        assert not late.done()
        feed.close()
        assert list(replies) == []
        assert late.result().item_ids


class Peers:
    """A gate that lets everybody in, and keeps where they came from."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def knows(self, _: object) -> bool:
        return True

    def admit(self, call: Call) -> None:
        self.seen.add(call.context.peer())

    def admit_message(self, call: Call) -> None:
        pass


def test_clients_connect_anew_and_lose_nothing(bundle: Path) -> None:
    with running(bundle, max_connection_age=0.2) as server, server.stub() as stub:
        server.server.calls._gate = peers = Peers()
        feed = Feed()
        replies = stub.RecommendStream(iter(feed))
        feed.send(user_id="1")
        assert next(replies).status.code == 0
        assert eventually(lambda: recommend(stub, user_id="1").item_ids and len(peers.seen) > 2)
        feed.send(user_id="2")
        assert next(replies).status.code == 0, "a stream has its old connection"
        feed.close()
        assert list(replies) == []


def test_calls_and_streams_beyond_the_limit_are_told_to_come_again(bundle: Path) -> None:
    with running(bundle, max_concurrent_calls=1) as server, server.stub() as stub:
        feed = Feed()
        replies = stub.RecommendStream(iter(feed))
        feed.send(user_id="1")
        next(replies)
        for call in (
            lambda: recommend(stub, user_id="1"),
            lambda: list(stub.ScoreStream(iter([pb.ScoreStreamRequest()]))),
        ):
            error = failed(call)
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            reason, wait = explained(rpc_status.from_call(error).details)
            assert (reason, bool(wait)) == ("OVERLOADED", True)
        feed.close()
        assert list(replies) == []
        assert recommend(stub, user_id="1").item_ids


def test_sizes_are_named(bundle: Path) -> None:
    with running(bundle, max_message_bytes=2000) as server, server.stub() as stub:
        long = {"user_id": "1", "exclude_item_ids": ["x" * 250] * 8}
        error = failed(lambda: recommend(stub, **long))
        size = len(pb.RecommendRequest(**long).SerializeToString())
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert f"{size} vs. 2000" in error.details()
        message = pb.RecommendStreamRequest(request=long)
        error = failed(lambda: list(stub.RecommendStream(iter([message]))))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "vs. 2000" in error.details()
        error = failed(lambda: stub.GetModel(pb.GetModelRequest(), metadata=(("x", "y" * 30_000),)))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "metadata" in error.details()


def test_a_call_without_a_deadline_ends(bundle: Path) -> None:
    with running(bundle, default_deadline=0.2) as server, server.stub() as stub:
        request = pb.RecommendRequest(user_id="1")
        with blocked(server):
            error = failed(lambda: stub.Recommend(request))
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert "within 0.2 s" in error.details()
            assert explained(rpc_status.from_call(error).details) == ("DEADLINE", None)
        assert stub.Recommend(request, timeout=20).item_ids, "a deadline of its own holds"


def test_no_call_takes_longer_than_the_server_lets_it(bundle: Path) -> None:
    with running(bundle, max_deadline=0.2) as server, server.stub() as stub, blocked(server):
        error = failed(lambda: recommend(stub, user_id="1"))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "lets any call take" in error.details()


def test_messages_of_a_stream_have_a_deadline(bundle: Path) -> None:
    with running(bundle, default_deadline=0.2, rankings_at_once=1) as server, server.stub() as stub:
        feed = Feed()
        replies = stub.RecommendStream(iter(feed))
        with blocked(server) as free:
            for user in ("1", "2"):
                feed.send(user_id=user, request_id=user)
            assert eventually(lambda: server.server.lanes.rankings.queued == 1), "behind the one at work"
            time.sleep(0.3)
            free.set()
            [second] = [reply for reply in (next(replies), next(replies)) if reply.request_id == "2"]
        assert second.status.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
        assert explained(second.status.details) == ("DEADLINE", None)
        feed.close()
        assert list(replies) == [], "the stream has lived on"


def test_nothing_of_a_traceback_leaves(server: Running) -> None:
    """Bytes that are no message, for every method there is and one that is not."""
    streams = ("RecommendStream", "ScoreStream")
    names = [method.name for method in pb.DESCRIPTOR.services_by_name["Recommender"].methods]
    paths = [f"/widedeep.v1.Recommender/{name}" for name in names]
    paths += ["/widedeep.v1.Recommender/Nothing", "/no.Service/Nothing", "/grpc.health.v1.Health/Check"]
    paths += ["/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"]
    with grpc.insecure_channel(server.target) as channel:
        for path in paths:
            if path.endswith("ServerReflectionInfo"):
                call = channel.stream_stream(path)
                error = failed(lambda call=call: list(call(iter([b"\xff\xff"]), timeout=20)))
                assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
                texts = [error.details()]
            elif path.endswith(streams):
                texts = [
                    pb.RecommendStreamResponse.FromString(raw).status.message
                    for raw in channel.stream_stream(path)(iter([b"\xff\xff"]), timeout=20)
                ]
                assert len(texts) == 1
            else:
                call = channel.unary_unary(path)
                texts = [str(failed(lambda call=call: call(b"\xff\xff", timeout=20)).details())]
            assert not any(word in texts[0] for word in ("Traceback", "File ", ".py", "line ", "<class")), (
                path
            )


def test_health_is_open_to_all_within_bounds(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenServices, "PLACES", 2)
    monkeypatch.setattr(OpenServices, "PATIENCE", 0.2)
    request = health_pb2.HealthCheckRequest()
    with running(bundle) as server, grpc.insecure_channel(server.target) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watches = [health.Watch(request) for _ in range(2)]
        assert [next(watch).status for watch in watches] == [1, 1]
        assert failed(lambda: health.Check(request)).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        with grpc.insecure_channel(server.target, options=OF_ITS_OWN) as other:
            assert health_pb2_grpc.HealthStub(other).Check(request, timeout=20).status == 1
        watches[0].cancel()

        def checked() -> bool:
            try:
                return health.Check(request, timeout=20).status == 1
            except grpc.RpcError:
                return False

        assert eventually(checked)
        error = failed(lambda: health.List(health_pb2.HealthListRequest()))
        assert (error.code(), error.details()) == (
            grpc.StatusCode.UNIMPLEMENTED, "The server does not have this method.",
        )  # fmt: skip
        unknown = health_pb2.HealthCheckRequest(service="nothing")
        assert failed(lambda: health.Check(unknown)).code() is grpc.StatusCode.NOT_FOUND
        silent = channel.stream_unary("/grpc.health.v1.Health/Check").future(Silence(), timeout=20)
        assert silent.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "No message came" in silent.details()


class Silence:
    """The messages of a call that never sends one."""

    def __iter__(self) -> Silence:
        return self

    def __next__(self) -> bytes:
        threading.Event().wait(2)
        raise StopIteration


def test_who_has_no_token_takes_no_place(bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    token = tokens.new(file, "shop", "serve")
    with (
        running(bundle, tokens_file=str(file)) as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        path = "/widedeep.v1.Recommender/Recommend"
        held = channel.stream_unary(path).future(
            Silence(), timeout=20, metadata=(("authorization", f"Bearer {token}"),)
        )
        refused = channel.stream_unary(path).future(Silence(), timeout=20)
        assert refused.code() is grpc.StatusCode.UNAUTHENTICATED, "at once, before there is a message"
        assert explained(rpc_status.from_call(refused).details) == ("TOKEN_MISSING", None)
        assert not held.done()
        held.cancel()
