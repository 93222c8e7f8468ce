"""What is counted of calls and batches, and all that Prometheus reads.

Calls have the names that gRPC servers of other languages give them (go-grpc-prometheus), so that their dashboards
fit. Counts are plain numbers which the event loop alone writes: those of prometheus_client take a lock, and four times
as long. Whoever reads them, on whatever thread, is at most one call behind.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.rpc import code_pb2
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from server.call import Call
from server.pb import recommender_pb2 as pb
from server.work import Batch

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = tuple(float(2**power) for power in range(15))
CALL_LABELS = ["grpc_type", "grpc_service", "grpc_method"]
REASONS = {
    value: name.removeprefix("COLD_START_REASON_").lower()
    for name, value in pb.ColdStartReason.items()
    if value
}
VERSIONS_KEPT = 50  # whose answers are counted; the oldest is forgotten first


def _go_name(code: str) -> str:
    """As Go writes a status code: DEADLINE_EXCEEDED is DeadlineExceeded."""
    if code in ("OK", "CANCELLED"):
        return {"OK": "OK", "CANCELLED": "Canceled"}[code]
    return "".join(word.capitalize() for word in code.split("_"))


CODES = [_go_name(code_pb2.Code.Name(number)) for number in range(len(code_pb2.Code.keys()))]


class Distribution:
    """How often values fell up to each bound."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        buckets, so_far = [], 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), list(self._counts), strict=True):
            so_far += count
            buckets.append((bound, so_far))
        family.add_metric(labels, buckets, self._sum)


class MethodCounts:
    """Of one method."""

    def __init__(self, method: MethodDescriptor) -> None:
        self.is_stream: bool = method.client_streaming
        kind = "bidi_stream" if self.is_stream else "unary"
        self.labels = [kind, method.containing_service.full_name, method.name]
        self.started = 0
        self.received = 0
        self.sent = 0
        self.handled = [0] * len(CODES)
        self.seconds = Distribution(SECONDS)
        self.messages = [0] * len(CODES)  # of streams, by how they were answered
        self.message_seconds = Distribution(SECONDS)
        fields = method.output_type.fields_by_name
        if self.is_stream:
            fields = fields["response"].message_type.fields_by_name
        self.names_model = {"request_id", "model"} <= set(fields)
        self.cold_starts = dict.fromkeys(REASONS, 0) if "cold_start_reason" in fields else None

    def answered(self, response: Any) -> None:
        if self.cold_starts is not None and response.cold_start:
            self.cold_starts[response.cold_start_reason] += 1


class LaneCounts:
    """Of one lane's batches."""

    def __init__(self) -> None:
        self.queries = Distribution(SIZES)
        self.items = Distribution(SIZES)
        self.seconds = Distribution(SECONDS)
        self.waits = Distribution(SECONDS)


class Metrics(Collector):
    """A Watcher of calls and an observer of batches; and the text of all metrics."""

    def __init__(self, services: Sequence[str]) -> None:
        """services  full names: their methods are there from the start, so that a first error is an increase"""
        self._methods: dict[tuple[str, str], MethodCounts] = {}
        self._lanes: dict[str, LaneCounts] = {}
        self._answers: dict[tuple[str, str, str], int] = {}  # by model, version, alias
        for service in services:
            for method in descriptor_pool.Default().FindServiceByName(service).methods:
                self._method(service, method.name)
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._registry.register(self)

    def add(self, source: Collector) -> None:
        """Have `source` read, too, whenever metrics are."""
        self._registry.register(source)

    def text(self, accept: str = "") -> tuple[bytes, str]:
        """All metrics, and their content type: that which the header Accept prefers."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def began(self, call: Call) -> None:
        method = self._method(call.service, call.method)
        method.started += 1
        if not call.is_stream:
            method.received += 1

    def ended(self, call: Call, response: Message | None) -> None:
        method = self._method(call.service, call.method)
        method.handled[call.code] += 1
        method.seconds.observe(time.monotonic() - call.started)
        if response is not None:
            method.sent += 1
            self._answered(method, response)

    def message_began(self, call: Call) -> None:
        self._method(call.service, call.method).received += 1

    def message_ended(self, call: Call, response: Message | None) -> None:
        method = self._method(call.service, call.method)
        method.messages[call.code] += 1
        method.sent += call.code != code_pb2.CANCELLED
        method.message_seconds.observe(time.monotonic() - call.started)
        if response is not None:
            self._answered(method, response)

    def batch(self, batch: Batch) -> None:
        lane = self._lanes.get(batch.lane)
        if lane is None:
            lane = self._lanes[batch.lane] = LaneCounts()
        lane.queries.observe(len(batch.works))
        lane.items.observe(batch.cost)
        lane.seconds.observe(batch.seconds)
        for work in batch.works:
            lane.waits.observe(batch.started - work.since)

    def collect(self) -> Iterable[Metric]:
        methods = list(self._methods.values())  # in one step, as other threads may add one
        yield from self._of_calls(methods)
        yield from self._of_streams([method for method in methods if method.is_stream])
        yield from self._of_batches()
        yield from self._of_answers(methods)

    def _method(self, service: str, name: str) -> MethodCounts:
        found = self._methods.get((service, name))
        if found is None:
            descriptor = descriptor_pool.Default().FindServiceByName(service)
            found = self._methods[service, name] = MethodCounts(descriptor.methods_by_name[name])
        return found

    def _answered(self, method: MethodCounts, response: Any) -> None:
        if not method.names_model:
            return
        method.answered(response)
        model = response.model
        key = model.name, model.version, model.alias
        if key in self._answers:
            self._answers[key] += 1
            return
        self._answers[key] = 1
        while len(self._answers) > VERSIONS_KEPT:
            del self._answers[next(iter(self._answers))]

    def _of_calls(self, methods: list[MethodCounts]) -> Iterable[Metric]:
        started = CounterMetricFamily("grpc_server_started", "Calls that began.", labels=CALL_LABELS)
        handled = CounterMetricFamily(
            "grpc_server_handled", "Calls that ended, by status code.", labels=[*CALL_LABELS, "grpc_code"]
        )
        seconds = HistogramMetricFamily(
            "grpc_server_handling_seconds", "Seconds from a call's begin to its end.", labels=CALL_LABELS
        )
        received = CounterMetricFamily("grpc_server_msg_received", "Requests that came.", labels=CALL_LABELS)
        sent = CounterMetricFamily("grpc_server_msg_sent", "Responses that were given.", labels=CALL_LABELS)
        for method in methods:
            started.add_metric(method.labels, method.started)
            _by_code(handled, method.labels, method.handled)
            method.seconds.add_to(seconds, method.labels)
            received.add_metric(method.labels, method.received)
            sent.add_metric(method.labels, method.sent)
        return started, handled, seconds, received, sent

    def _of_streams(self, methods: list[MethodCounts]) -> Iterable[Metric]:
        labels = ["grpc_service", "grpc_method"]
        handled = CounterMetricFamily(
            "widedeep_stream_messages_handled",
            "Messages of streams that were answered, by the status code of their own.",
            labels=[*labels, "grpc_code"],
        )
        seconds = HistogramMetricFamily(
            "widedeep_stream_message_seconds",
            "Seconds from a message's arrival to its answer.",
            labels=labels,
        )
        for method in methods:
            _by_code(handled, method.labels[1:], method.messages)
            method.message_seconds.add_to(seconds, method.labels[1:])
        return handled, seconds

    def _of_batches(self) -> Iterable[Metric]:
        about = {
            "queries": "Queries that were computed together.",
            "items": "Items that were computed together: what a queue's limits count.",
            "seconds": "Seconds that a batch took on the device.",
            "waits": "Seconds that a query waited for its batch.",
        }
        names = {kind: f"widedeep_batch_{kind}" for kind in about} | {"waits": "widedeep_queue_wait_seconds"}
        lanes = list(self._lanes.items())
        for kind, text in about.items():
            family = HistogramMetricFamily(names[kind], text, labels=["lane"])
            for name, lane in lanes:
                getattr(lane, kind).add_to(family, [name])
            yield family

    def _of_answers(self, methods: list[MethodCounts]) -> Iterable[Metric]:
        by_version = CounterMetricFamily(
            "widedeep_answers", "Answers by the version that made them.", labels=["model", "version", "alias"]
        )
        for key, count in list(self._answers.items()):
            by_version.add_metric(key, count)
        cold = CounterMetricFamily(
            "widedeep_cold_start_answers",
            "Answers out of popularity, by why they could not be personal.",
            labels=["grpc_method", "reason"],
        )
        for method in methods:
            for reason, count in (method.cold_starts or {}).items():
                cold.add_metric([method.labels[2], REASONS[reason]], count)
        return by_version, cold


def _by_code(family: CounterMetricFamily, labels: list[str], counts: list[int]) -> None:
    for name, count in zip(CODES, counts, strict=True):
        family.add_metric([*labels, name], count)
