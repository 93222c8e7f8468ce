"""What Prometheus reads: each number against what was done to the server."""

from __future__ import annotations

import threading
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import pytest
from metrics_text import Read, read
from ports import free_port
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from serving import Feed, Running, eventually, recommend, running, score_message

from server.merge_metrics import merged
from server.metrics import SECONDS, Distribution, Metrics
from server.pb import recommender_pb2 as pb

pytest_plugins = ["serving_fixtures"]
SERVICE = "widedeep.v1.Recommender"


def refused(call: Any, code: grpc.StatusCode) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert caught.value.code() is code


def test_calls_are_counted_by_how_they_ended(bundle: Path) -> None:
    with running(bundle) as started, started.stub() as stub:
        fresh = read(started)
        assert fresh("grpc_server_handled_total", grpc_method="Score", grpc_code="Internal") == 0, (
            "from the start"
        )
        for user in ("1", "2", "nobody"):
            recommend(stub, user_id=user)
        refused(lambda: stub.Recommend(pb.RecommendRequest(k=-1)), grpc.StatusCode.INVALID_ARGUMENT)
        refused(lambda: stub.Score(pb.ScoreRequest(item_ids=["x"])), grpc.StatusCode.NOT_FOUND)
        assert eventually(lambda: read(started)("grpc_server_handled_total") == 5)
        after = read(started)
        labels = {"grpc_type": "unary", "grpc_service": SERVICE, "grpc_method": "Recommend"}
        assert after("grpc_server_started_total", **labels) == 4
        assert after("grpc_server_handled_total", **labels, grpc_code="OK") == 3
        assert after("grpc_server_handled_total", **labels, grpc_code="InvalidArgument") == 1
        assert after("grpc_server_handled_total", grpc_method="Score", grpc_code="NotFound") == 1
        assert after("grpc_server_handling_seconds_count", **labels) == 4
        assert after("grpc_server_handling_seconds_bucket", **labels, le="+Inf") == 4
        assert 0 < after("grpc_server_handling_seconds_sum", **labels) < 60
        assert after("grpc_server_msg_received_total", **labels) == 4
        assert after("grpc_server_msg_sent_total", **labels) == 3
        assert after("widedeep_cold_start_answers_total", grpc_method="Recommend", reason="unknown_user") == 1
        assert after("widedeep_cold_start_answers_total") == 1
        version = started.server.store.current.version  # type: ignore[union-attr]
        assert after("widedeep_answers_total", model="model.pth", version=version, alias="") == 3
        assert after("widedeep_model_info", version=version, state="serving") == 1
        assert after("process_resident_memory_bytes") > 10**7
        assert after("widedeep_ready") == 1


def test_streams_and_their_messages_are_counted_apart(bundle: Path) -> None:
    with running(bundle) as started, started.stub() as stub:
        messages = [
            score_message(["1"]),
            score_message(["x"]),
            pb.ScoreStreamRequest(),
            score_message(["1", "2"]),
        ]
        assert len(list(stub.ScoreStream(iter(messages)))) == 4
        assert eventually(lambda: read(started)("grpc_server_handled_total") == 1)
        after = read(started)
        labels = {"grpc_service": SERVICE, "grpc_method": "ScoreStream"}
        assert after("grpc_server_handled_total", **labels, grpc_type="bidi_stream", grpc_code="OK") == 1
        assert after("grpc_server_msg_received_total", **labels) == 4
        assert after("grpc_server_msg_sent_total", **labels) == 4
        assert after("widedeep_stream_messages_handled_total", **labels, grpc_code="OK") == 2
        assert after("widedeep_stream_messages_handled_total", **labels, grpc_code="NotFound") == 1
        assert after("widedeep_stream_messages_handled_total", **labels, grpc_code="InvalidArgument") == 1
        assert after("widedeep_stream_message_seconds_count", **labels) == 4
        assert after("widedeep_batch_items_sum", lane="scoring") == 4, "the unknown item was asked for, too"
        assert after("widedeep_answers_total") == 2

        feed = Feed()
        stream = stub.RecommendStream(iter(feed))
        feed.send(user_id="1")
        next(stream)
        assert read(started)("widedeep_streams_in_flight") == 1
        assert read(started)("widedeep_calls_in_flight") == 1
        stream.cancel()
        feed.close()
        assert eventually(lambda: read(started)("widedeep_streams_in_flight") == 0)
        ended = {"grpc_method": "RecommendStream"}
        assert eventually(lambda: read(started)("grpc_server_handled_total", **ended) == 1)
        codes = [
            read(started)("grpc_server_handled_total", **ended, grpc_code=code) for code in ("Canceled", "OK")
        ]
        assert sum(codes) == 1, "to the reader of a stream a cancel may look like its end"


def test_queues_and_batches_are_measured(bundle: Path) -> None:
    with running(bundle, queued_rankings=3) as started, started.stub() as stub:
        release = threading.Event()
        started.server.lanes.rankings.executor.submit(release.wait, 30)
        first = stub.Recommend.future(pb.RecommendRequest(user_id="1"))
        assert eventually(lambda: started.server.lanes.rankings._busy_until is not None)
        assert eventually(lambda: started.server.lanes.rankings.queued == 0)
        others = [stub.Recommend.future(pb.RecommendRequest(user_id="2")) for _ in range(3)]
        assert eventually(lambda: read(started)("widedeep_queue_items", lane="ranking") == 3)
        assert read(started)("widedeep_queue_limit_items", lane="ranking") == 3
        refused(lambda: recommend(stub, user_id="3"), grpc.StatusCode.RESOURCE_EXHAUSTED)
        others[0].cancel()
        assert eventually(lambda: started.server.calls.active == 3)
        release.set()
        assert first.result().item_ids
        assert others[1].result().item_ids
        assert others[2].result().item_ids
        after = read(started)
        assert after("widedeep_queue_refused_total", lane="ranking", reason="overloaded") == 1
        assert after("widedeep_queue_refused_total", lane="ranking", reason="dropped") == 1
        assert after("widedeep_queue_items", lane="ranking") == 0
        assert after("widedeep_batch_queries_count", lane="ranking") == 2
        assert after("widedeep_batch_queries_sum", lane="ranking") == 3
        assert after("widedeep_batch_queries_bucket", lane="ranking", le="1.0") == 1
        assert after("widedeep_batch_queries_bucket", lane="ranking", le="2.0") == 2
        assert after("widedeep_batch_seconds_count", lane="ranking") == 2
        assert after("widedeep_queue_wait_seconds_count", lane="ranking") == 3


def test_both_formats_are_read_by_their_parsers(bundle: Path) -> None:
    port = free_port()
    with running(bundle, metrics_port=port) as started, started.stub() as stub:
        recommend(stub, user_id="1")

        def get(accept: str) -> tuple[str, str]:
            request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept})
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.headers["Content-Type"], answer.read().decode()

        kind, text = get("*/*")
        assert kind.startswith("text/plain; version=0.0.4")
        assert Read(text)("grpc_server_started_total", grpc_method="Recommend") == 1
        kind, text = get("application/openmetrics-text; version=1.0.0; charset=utf-8")
        assert kind.startswith("application/openmetrics-text; version=1.0.0")
        names = {family.name for family in open_metrics(text)}
        assert {"grpc_server_started", "widedeep_batch_seconds"} <= names


def test_values_fall_up_to_their_bounds() -> None:
    found = Distribution((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 7.0):
        found.observe(value)

    family = HistogramMetricFamily("x", "text", labels=["lane"])
    found.add_to(family, ["a"])
    values = {(sample.name, sample.labels.get("le")): sample.value for sample in family.samples}
    assert values == {
        ("x_bucket", "1.0"): 2,
        ("x_bucket", "2.0"): 4,
        ("x_bucket", "+Inf"): 5,
        ("x_count", None): 5,
        ("x_sum", None): 12.0,
    }
    assert sorted(SECONDS) == list(SECONDS)


def test_the_metrics_of_workers_stand_side_by_side(server: Running) -> None:
    with server.stub() as stub:
        recommend(stub, user_id="1")
    one = server.server.telemetry.metrics.text()[0].decode()
    other = Metrics([SERVICE]).text()[0].decode()
    both = Read(merged({"0": one, "1": other}))
    name = "grpc_server_started_total"
    assert both(name, worker="0", grpc_method="Recommend") == Read(one)(name, grpc_method="Recommend") >= 1
    assert both(name, worker="1", grpc_method="Recommend") == 0
    assert all("worker" in sample.labels for sample in both.samples)
    assert len(both.samples) == len(Read(one).samples) + len(Read(other).samples)
    kinds = {name: family.type for name, family in Read(one).families.items()}
    assert {name: family.type for name, family in both.families.items()} == kinds
    assert merged({}) == ""
