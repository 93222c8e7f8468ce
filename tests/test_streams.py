"""Streams over a real channel: order, bounds, ends."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from serving import Feed, eventually, recommend, running, score_message

from server import calls
from server.pb import recommender_pb2 as pb
from server.served import ServedModel

pytest_plugins = ["serving_fixtures"]


def reason_of(error: Any) -> str:
    for detail in rpc_status.from_call(error).details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info.reason
    return ""


def test_a_message_that_is_answered_at_once_does_not_wait_for_those_before_it(bundle: Path) -> None:
    release = threading.Event()
    with running(bundle) as started, started.stub() as stub:
        started.server.lanes.rankings.executor.submit(release.wait, 30)
        feed = Feed()
        stream = stub.RecommendStream(iter(feed), timeout=30)
        feed.send(user_id="1", request_id="good")
        feed.send(k=-1, request_id="bad")
        assert next(stream).request_id == "bad"
        release.set()
        assert next(stream).request_id == "good"
        feed.close()
        assert list(stream) == []


def test_every_message_is_answered_once_after_the_client_has_ended_its_side(stub: Any) -> None:
    wanted = [str(number) for number in range(1000)]
    messages = (score_message(["1", "2"], user_id=str(int(name) % 50), request_id=name) for name in wanted)
    replies = list(stub.ScoreStream(messages, timeout=60))
    assert sorted(reply.request_id for reply in replies) == sorted(wanted)
    by_user: dict[int, set[tuple[float, ...]]] = {}
    for reply in replies:
        assert reply.status.code == 0
        by_user.setdefault(int(reply.request_id) % 50, set()).add(tuple(reply.response.probabilities))
    alone = {
        user: stub.Score(pb.ScoreRequest(user_id=str(user), item_ids=["1", "2"])).probabilities
        for user in by_user
    }
    for user, found in by_user.items():
        for probabilities in found:
            assert list(probabilities) == pytest.approx(list(alone[user]), abs=1e-6)


def test_no_more_is_read_than_may_be_in_flight(bundle: Path) -> None:
    release = threading.Event()
    sent = 0

    def messages() -> Iterator[Any]:
        nonlocal sent
        for number in range(20_000):
            sent = number
            yield score_message(["1"] * 10_000, user_id="1", request_id=str(sent))  # 30 KB

    with running(bundle, stream_in_flight=5) as started, started.stub() as stub:
        started.server.lanes.scores.executor.submit(release.wait, 30)
        stream = stub.ScoreStream(messages(), timeout=60)
        assert eventually(lambda: started.server.calls.streams)
        (open_stream,) = started.server.calls.streams
        assert eventually(lambda: open_stream.in_flight == 5)
        time.sleep(0.3)
        assert open_stream.in_flight == 5
        assert started.server.lanes.scores.queued <= 5 * 10_000
        assert sent < 10_000, "the transport holds the client back"
        release.set()
        assert {next(stream).request_id for _ in range(20)} == {str(number) for number in range(20)}
        stream.cancel()


def test_an_idle_stream_is_ended_and_a_busy_one_is_not(bundle: Path) -> None:
    release = threading.Event()
    with running(bundle, stream_idle=0.4) as started, started.stub() as stub:
        started.server.lanes.rankings.executor.submit(release.wait, 30)
        feed, quiet = Feed(), Feed()
        working, idle = stub.RecommendStream(iter(feed)), stub.RecommendStream(iter(quiet))
        feed.send(user_id="1", request_id="slow")
        with pytest.raises(grpc.RpcError) as caught:
            next(idle)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert reason_of(caught.value) == "IDLE"
        time.sleep(0.6)
        release.set()
        assert next(working).request_id == "slow"
        with pytest.raises(grpc.RpcError):
            next(working)
        assert eventually(lambda: started.server.calls.active == 0)
        feed.close()
        quiet.close()


def test_a_client_that_does_not_read_is_cut_off_with_a_reason(bundle: Path) -> None:
    sent = 0

    def messages() -> Iterator[Any]:
        nonlocal sent
        large = pb.RecommendRequest(candidate_item_ids=["1"] + [f"{number:0250}x" for number in range(200)])
        for number in range(20_000):
            sent = number
            yield pb.RecommendStreamRequest(request=large)  # 50 KB, and so is its response

    with running(bundle, stream_stall=0.5) as started, started.stub() as stub:
        stream = stub.RecommendStream(messages())
        assert eventually(lambda: started.server.calls.active == 1)
        over = eventually(lambda: started.server.calls.active == 0, 40.0)
        assert over, "though nobody has read"
        assert 0 < sent < 10_000
        assert recommend(stub, user_id="1").item_ids, "others are served"
        with pytest.raises(grpc.RpcError) as caught:
            list(stream)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert reason_of(caught.value) == "SLOW_READER"


def test_a_cancelled_stream_leaves_nothing_behind(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []
    release = threading.Event()
    real = ServedModel.score

    def held_back(model: ServedModel, asked: Any) -> Any:
        computed.append(len(asked))
        assert release.wait(30)
        return real(model, asked)

    with running(bundle, scores_at_once=4) as started, started.stub() as stub:
        monkeypatch.setattr(ServedModel, "score", held_back)
        stream = stub.ScoreStream(score_message(["1"]) for _ in range(30))
        assert eventually(lambda: computed and started.server.lanes.scores.queued == 30 - computed[0])
        stream.cancel()
        assert eventually(lambda: started.server.calls.active == 0)
        release.set()
        assert eventually(lambda: started.server.lanes.scores.queued == 0)
        assert len(computed) == 1
        assert computed[0] <= 4
        tasks = started.run(_names_of_tasks())
        assert not [name for name in tasks if "Stream" in name], tasks


async def _names_of_tasks() -> list[str]:
    return [repr(task.get_coro()) for task in asyncio.all_tasks()]


def test_streams_that_open_in_a_drain_are_refused(bundle: Path) -> None:
    with running(bundle, grace=20.0) as started, started.stub() as stub:
        assert recommend(stub, user_id="1").item_ids
        started.server.calls.end_streams()
        with pytest.raises(grpc.RpcError) as caught:
            next(stub.RecommendStream(iter(Feed())))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_drain_that_begins_while_a_stream_is_refused_is_the_others_alone(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = calls._abort

    async def drained_first(context: grpc.aio.ServicerContext, ending: Any) -> None:
        started.server.calls.end_streams()
        await real(context, ending)

    with running(bundle, grace=20.0) as started, started.stub() as stub:
        started.server.calls.end_streams()
        monkeypatch.setattr(calls, "_abort", drained_first)
        with pytest.raises(grpc.RpcError) as caught:
            next(stub.RecommendStream(iter(Feed())))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "stopping" in caught.value.details()
