"""Traces as a receiver gets them: OTLP over HTTP, from a real server."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from ports import free_port
from serving import eventually, recommend, running, score_message

from server import tracing
from server.app import Server
from server.pb import recommender_pb2 as pb
from server.settings import ServerSettings
from widedeep.errors import ConfigError

pytest_plugins = ["serving_fixtures"]
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TRACEPARENT = (("traceparent", f"00-{TRACE}-{PARENT}-01"),)


class Receiver:
    """Spans by their name, as they were sent."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []

    @property
    def spans(self) -> list[Any]:
        return [
            span
            for request in list(self.requests)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]

    @property
    def service(self) -> str:
        return attributes(self.requests[0].resource_spans[0].resource)["service.name"]


def attributes(of: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in of.attributes}


@contextmanager
def receiving() -> Iterator[tuple[str, Receiver]]:
    """Its URL, and what it has received."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.requests.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", receiver
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")


def test_a_call_is_traced_to_the_device_under_its_caller(bundle: Path) -> None:
    with receiving() as (url, receiver):
        with running(bundle, otlp_endpoint=url) as started, started.stub() as stub:
            request = pb.RecommendRequest(user_id="1", request_id="r-1")
            answer = stub.Recommend(request, metadata=TRACEPARENT, timeout=20)
        (call,) = receiver.named("widedeep.v1.Recommender/Recommend")
        (queue,), (batch,) = receiver.named("queue"), receiver.named("batch")
    assert receiver.service == "widedeep"
    assert {span.trace_id.hex() for span in receiver.spans} == {TRACE}
    assert call.parent_span_id.hex() == PARENT
    assert call.kind == call.SPAN_KIND_SERVER
    assert attributes(call) == {
        "rpc.system": "grpc",
        "rpc.service": "widedeep.v1.Recommender",
        "rpc.method": "Recommend",
        "rpc.grpc.status_code": 0,
        "widedeep.request_id": "r-1",
        "widedeep.model.version": answer.model.version,
    }
    assert queue.parent_span_id == batch.parent_span_id == call.span_id
    assert attributes(batch) == {
        "widedeep.lane": "ranking",
        "widedeep.batch.queries": 1,
        "widedeep.batch.items": 1,
    }
    assert queue.start_time_unix_nano <= queue.end_time_unix_nano == batch.start_time_unix_nano
    assert batch.start_time_unix_nano < batch.end_time_unix_nano
    slack = 5_000_000_000  # of two clocks that are read one after the other, on a busy machine
    assert call.start_time_unix_nano - slack < queue.start_time_unix_nano
    assert batch.end_time_unix_nano < call.end_time_unix_nano + slack


def test_calls_of_a_batch_link_to_each_other(bundle: Path) -> None:
    with receiving() as (url, receiver):
        with running(bundle, otlp_endpoint=url) as started, started.stub() as stub:
            release = threading.Event()
            started.server.lanes.rankings.executor.submit(release.wait, 30)
            first = stub.Recommend.future(pb.RecommendRequest(user_id="1"))
            lane = started.server.lanes.rankings
            assert eventually(lambda: lane._busy_until is not None and not lane.queued)
            others = [stub.Recommend.future(pb.RecommendRequest(user_id=user)) for user in "234"]
            assert eventually(lambda: lane.queued == 3)
            release.set()
            for call in (first, *others):
                assert call.result(20).item_ids
        calls = receiver.named("widedeep.v1.Recommender/Recommend")
        batches = receiver.named("batch")
    assert len({span.trace_id for span in calls}) == 4, "each is a trace of its own"
    alone = [span for span in batches if attributes(span)["widedeep.batch.queries"] == 1]
    together = [span for span in batches if attributes(span)["widedeep.batch.queries"] == 3]
    assert (len(alone), len(together)) == (1, 3)
    by_links = sorted(together, key=lambda span: len(span.links))
    leader = by_links[-1]
    members = {span.parent_span_id for span in together}
    assert {link.span_id for link in leader.links} == members
    for span in by_links[:-1]:
        assert [link.span_id for link in span.links] == [leader.span_id]
    assert len({(span.start_time_unix_nano, span.end_time_unix_nano) for span in together}) == 1


def test_messages_of_a_stream_are_traced_under_it(bundle: Path) -> None:
    with receiving() as (url, receiver):
        with running(bundle, otlp_endpoint=url) as started, started.stub() as stub:
            messages = [score_message(["1"], request_id="a"), score_message(["x"], request_id="b")]
            assert len(list(stub.ScoreStream(iter(messages), metadata=TRACEPARENT))) == 2
        (stream,) = receiver.named("widedeep.v1.Recommender/ScoreStream")
        spans = receiver.named("widedeep.v1.Recommender/ScoreStream message")
    assert {span.trace_id.hex() for span in receiver.spans} == {TRACE}
    assert stream.parent_span_id.hex() == PARENT
    assert {span.parent_span_id for span in spans} == {stream.span_id}
    codes = {
        attributes(span)["widedeep.request_id"]: attributes(span)["rpc.grpc.status_code"] for span in spans
    }
    assert codes == {"a": 0, "b": grpc.StatusCode.NOT_FOUND.value[0]}
    assert {span.parent_span_id for span in receiver.named("batch")} == {span.span_id for span in spans}


def test_faults_are_told_from_mistakes(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    with receiving() as (url, receiver):
        with running(bundle, load=False, otlp_endpoint=url) as started, started.stub() as stub:
            for request in (pb.RecommendRequest(k=-1), pb.RecommendRequest()):
                with pytest.raises(grpc.RpcError):
                    stub.Recommend(request, metadata=(("traceparent", "no such thing"),))
        spans = {attributes(span)["rpc.grpc.status_code"]: span for span in receiver.spans}
    mistake = spans[grpc.StatusCode.INVALID_ARGUMENT.value[0]]
    fault = spans[grpc.StatusCode.UNAVAILABLE.value[0]]
    assert mistake.status.code == mistake.status.STATUS_CODE_UNSET
    assert fault.status.code == fault.status.STATUS_CODE_ERROR
    assert "loading its model" in fault.status.message
    logged = [record.fields["trace_id"] for record in caplog.records if record.name == "server.requests"]  # type: ignore[attr-defined]
    assert logged == [mistake.trace_id.hex(), fault.trace_id.hex()], "a line of the log leads to its trace"
    assert mistake.trace_id != fault.trace_id


def test_what_the_caller_does_not_sample_is_not_sent(bundle: Path) -> None:
    with receiving() as (url, receiver):
        with running(bundle, otlp_endpoint=url) as started, started.stub() as stub:
            unsampled = (("traceparent", f"00-{TRACE}-{PARENT}-00"),)
            assert stub.Recommend(pb.RecommendRequest(user_id="1"), metadata=unsampled).item_ids
            assert recommend(stub, user_id="1").item_ids
        assert len(receiver.spans) == 3
        assert TRACE not in {span.trace_id.hex() for span in receiver.spans}


def test_a_receiver_that_is_away_holds_up_nothing(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracing, "PATIENCE", 0.2)
    with running(bundle, otlp_endpoint=f"http://127.0.0.1:{free_port()}") as started, started.stub() as stub:
        assert recommend(stub, user_id="1").item_ids
        started.run(started.server.drain())
    assert not [record for record in caplog.records if record.exc_info]


def test_without_the_extra_it_serves_and_says_what_is_missing(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "server.tracing")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)  # not to be found
    with running(bundle) as started, started.stub() as stub:
        assert recommend(stub, user_id="1").item_ids
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[otel\]'"):
        Server(ServerSettings(model=str(bundle), otlp_endpoint="http://127.0.0.1:1"))
