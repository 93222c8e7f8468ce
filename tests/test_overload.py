"""Overload: what is refused and how, what is held back, and the benchmark, run small."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from serving import Feed, Running, eventually, recommend, running

from experiments.benchmarks import overload, overload_client
from experiments.benchmarks.serving_targets import SERVICE
from server.batcher import Lane
from server.pb import recommender_pb2 as pb

pytest_plugins = ["serving_fixtures"]


@contextmanager
def busy(lane: Lane) -> Iterator[threading.Event]:
    """The lane's thread does nothing in the block, unless it is set free."""
    free = threading.Event()
    lane.executor.submit(free.wait, 60)
    try:
        yield free
    finally:
        free.set()


def details_of(error: grpc.RpcError, kind: type[Message]) -> Message:
    status = rpc_status.from_call(error)
    assert status is not None
    found = kind()
    assert any(detail.Unpack(found) for detail in status.details)
    return found


def test_overload_is_refused_before_there_is_a_request_and_says_when_to_come_back(bundle: Path) -> None:
    with running(bundle, max_wait=0.001) as server, server.stub() as stub:
        recommend(stub, user_id="1")  # so that the lane knows what a ranking costs
        lane = server.server.lanes.rankings
        with busy(lane):
            request = pb.RecommendRequest(user_id="1")
            calls = [stub.Recommend.future(request, timeout=60) for _ in range(90)]
            assert eventually(lambda: lane.counts.overloaded > 0, 30)
            nothing = Feed()
            with grpc.insecure_channel(server.target) as channel, pytest.raises(grpc.RpcError) as caught:
                next(channel.stream_stream(f"{SERVICE}Recommend")(iter(nothing), timeout=20))
            nothing.close()
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            with grpc.insecure_channel(server.target) as channel, pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(f"{SERVICE}Recommend")(b"\xff no message", timeout=20)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert details_of(caught.value, error_details_pb2.ErrorInfo).reason == "OVERLOADED"
            assert details_of(caught.value, error_details_pb2.RetryInfo).retry_delay.ToMicroseconds() > 0
            assert stub.Score(pb.ScoreRequest(user_id="1", item_ids=["1"]), timeout=20).probabilities
        codes = {call.code() for call in calls if call.exception(60)}
        assert codes == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        answered = sum(call.exception() is None for call in calls)
        assert answered == lane.counts.queries - 1 > 0, "what was let in is answered"


def test_a_stream_is_held_back_not_refused(bundle: Path) -> None:
    with running(bundle, max_wait=0.001) as server, server.stub() as stub:
        recommend(stub, user_id="1")
        lane = server.server.lanes.rankings
        count = 200
        messages = (
            pb.RecommendStreamRequest(request=pb.RecommendRequest(user_id="1", request_id=str(number)))
            for number in range(count)
        )
        with busy(lane) as free:
            replies = stub.RecommendStream(messages, timeout=60)
            assert eventually(lambda: lane.queued >= server.server.settings.stream_in_flight - 5)
            free.set()
            found = list(replies)
        assert [reply.status.code for reply in found] == [0] * count
        assert lane.counts.overloaded == 0
        assert lane.queued == 0


def test_calls_come_at_their_times_and_each_is_accounted_for(server: Running) -> None:
    body = pb.ScoreRequest(user_id="1", item_ids=["1", "2"]).SerializeToString()
    port = int(server.target.rpartition(":")[2])
    found = overload_client.offer(
        port, f"{SERVICE}Score", [body], rate=100, seconds=1, deadline=20, connections=3
    )
    assert (found.offered, len(found.seconds), found.late, found.reset) == (100, 100, 0, 0)
    assert 0 < found.answers <= 150  # of the counted second, and of half a second before it what came late
    refused = overload_client.offer(
        port, f"{SERVICE}Score", [b"\xff"], rate=50, seconds=0.5, deadline=20, connections=1
    )
    assert (refused.answers, refused.codes) == (0, {3: 25})
    late = overload_client.offer(
        port, f"{SERVICE}Score", [body], rate=50, seconds=0.5, deadline=0.0, connections=1
    )
    assert (late.answers, late.offered, late.late, late.unsent) == (0, 25, 25, 25)


def test_what_waits_until_the_counted_time_is_over_is_no_answer_in_it(server: Running) -> None:
    body = pb.ScoreRequest(user_id="1", item_ids=["1", "2"]).SerializeToString()
    port = int(server.target.rpartition(":")[2])
    with busy(server.server.lanes.scores) as free:
        timer = threading.Timer(3, free.set)
        timer.start()
        found = overload_client.offer(
            port, f"{SERVICE}Score", [body], rate=50, seconds=0.5, deadline=20, connections=2
        )
        timer.join()
    assert (found.answers, len(found.seconds), found.late) == (0, 25, 0)


def test_overload_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert overload.main(["--quick", "--only", "Score", "--out", str(tmp_path)]) == 0, capsys.readouterr().err
    found = json.loads((tmp_path / "results.json").read_text())
    rows = {(row["name"], row["metric"]): row["value"] for row in found["rows"]}
    assert rows["Score", "capacity, by a rising rate"] > 0
    best = max(rows["Score at 3", "goodput"], rows["Score at 1", "goodput"])
    assert rows["Score at 3", "goodput"] / best == pytest.approx(found["ratios"]["Score at 3/at its best"])
    for factor in (1, 3):
        assert 0 < rows[f"Score at {factor}", "p50 of the answered"] <= 1e3 * overload.DEADLINE
    assert (tmp_path / "overload.png").read_bytes().startswith(b"\x89PNG")
