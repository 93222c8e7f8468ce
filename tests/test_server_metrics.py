"""What Prometheus reads: each number against what was done to the server."""

from __future__ import annotations

import math
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families
from registries import NAME, Releases, registry
from serving import Feed, Running, eventually, free_port, recommend, running, score_message

from server.merge_metrics import merged
from server.metrics import SECONDS, Distribution, Metrics
from server.pb import recommender_pb2 as pb

pytest_plugins = ["serving_fixtures"]
SERVICE = "widedeep.v1.Recommender"


class Read:
    """The samples of one text."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.samples = [sample for family in self.families.values() for sample in family.samples]

    def __call__(self, name: str, **labels: str) -> float:
        """The sum over what has these labels; NaN if nothing has."""
        found = [
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(found) if found else math.nan


def read(started: Running) -> Read:
    return Read(started.server.metrics.text()[0].decode())


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
        assert (
            read(started)("grpc_server_handled_total", grpc_method="RecommendStream", grpc_code="Canceled")
            == 1
        )


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


@pytest.fixture
def releases(tmp_path: Path) -> Iterator[Releases]:
    with registry(tmp_path) as made:
        yield made


def test_reloads_refusals_and_the_registry_are_told(releases: Releases, tmp_path: Path) -> None:
    first, second = releases.add(), releases.add()
    bad = releases.add(releases.changed())
    releases.move(first)
    settings = {"tracking_uri": releases.uri, "cache_dir": str(tmp_path / "cache"), "poll_seconds": 0.05}
    with running(f"models:/{NAME}@champion", **settings) as started, started.stub() as stub:
        recommend(stub, user_id="1")
        assert read(started)("widedeep_model_cache_lookups_total", result="miss") == 1
        releases.move(second)
        assert eventually(lambda: read(started)("widedeep_reloads_total") == 1, 20)
        recommend(stub, user_id="1")
        releases.move(bad)
        assert eventually(lambda: read(started)("widedeep_versions_refused_total") == 1, 20)
        after = read(started)
        assert after("widedeep_model_info", version=second, alias="champion", state="serving") == 1
        assert after("widedeep_model_info", version=bad, state="refused") == 1
        assert after("widedeep_answers_total", version=first, alias="champion") == 1
        assert after("widedeep_answers_total", version=second) == 1
        assert after("widedeep_registry_reachable") == 1
        assert after("widedeep_registry_answer_timestamp_seconds") > 1e9
        with releases.away():
            assert eventually(lambda: read(started)("widedeep_registry_reachable") == 0, 20)
            assert read(started)("widedeep_registry_failures_total") >= 1
            assert read(started)("widedeep_registry_error") == 1
        assert eventually(lambda: read(started)("widedeep_registry_reachable") == 1, 20)
        releases.move(first)
        assert eventually(lambda: read(started)("widedeep_reloads_total") == 2, 20)
        assert read(started)("widedeep_model_cache_lookups_total", result="hit") == 1
        assert read(started)("widedeep_model_from_cache") == 0


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
    one = server.server.metrics.text()[0].decode()
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
