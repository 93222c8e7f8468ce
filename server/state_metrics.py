"""What the server knows and counts anyway, as metrics: read when they are asked for, and not before."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import torch
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from server.calls import Calls
from server.health import Health
from server.lanes import Lanes
from server.model_store import ModelStore
from server.shadow import Agreement
from server.store_status import ModelState, RegistryStatus, StoreStatus

Samples = Sequence[tuple[Sequence[str], float]]  # values of labels, and the number


class StateMetrics(Collector):
    """Reads numbers of the event loop from any thread: each is whole, though not all are of the same moment."""

    def __init__(
        self,
        health: Health,
        store: ModelStore,
        lanes: Lanes,
        calls: Calls,
        most_calls: int,
        agreement: Callable[[], Agreement],
    ) -> None:
        """agreement  the shadow's, as it stands when metrics are asked for"""
        self._agreement = agreement
        self._health = health
        self._store = store
        self._lanes = lanes
        self._calls = calls
        self._most_calls = most_calls

    def collect(self) -> Iterable[Metric]:
        yield from self._of_calls()
        yield from self._of_lanes()
        status = self._store.status()
        yield from _of_models(status)
        yield from _of_reloads(status)
        if status.registry is not None:
            yield from _of_registry(status.registry)
        yield from _of_shadow(self._agreement())
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            yield from _of_device()

    def _of_calls(self) -> Iterable[Metric]:
        streams = list(self._calls.streams)  # in one step: the loop goes on opening them
        yield _gauge("ready", "1 if calls are answered: a model is served, and no drain has begun.",
                     not self._health.unready)  # fmt: skip
        yield _gauge(
            "event_loop_delay_seconds", "By which the event loop came late last.", self._health.delay
        )
        yield _gauge("calls_in_flight", "Calls in flight, streams included.", self._calls.active)
        yield _gauge("calls_limit", "Calls that may be in flight; those beyond are refused and not counted.",
                     self._most_calls)  # fmt: skip
        yield _gauge("streams_in_flight", "Open streams.", len(streams))
        yield _gauge("stream_messages_in_flight", "Messages of streams, unanswered or unread by the client.",
                     sum(stream.in_flight for stream in streams))  # fmt: skip

    def _of_lanes(self) -> Iterable[Metric]:
        lanes, by_lane = list(self._lanes), ["lane"]
        yield _gauges(
            "queue_items", "Items that wait.", by_lane, [((lane.name,), lane.queued) for lane in lanes]
        )
        yield _gauges("queue_limit_items", "Items that may wait.", by_lane,
                      [((lane.name,), lane.most_queued) for lane in lanes])  # fmt: skip
        yield _counters(
            "queue_refused",
            "Queries that were never computed: overloaded (the queue was full), hopeless (the deadline could not be "
            "met) or dropped (it passed in the queue, or the client went away).",
            ["lane", "reason"],
            [
                ((lane.name, reason), getattr(lane.counts, reason))
                for lane in lanes
                for reason in ("overloaded", "hopeless", "dropped")
            ],
        )


def _of_models(status: StoreStatus) -> Iterable[Metric]:
    names = ["model", "version", "alias"]
    states, leases, since = {}, Counter[tuple[str, ...]](), {}  # a version registered anew may be here twice
    for model in status.models:
        label = (model.name, model.version, model.alias)
        states[*label, model.state.value] = 1
        if model.state in (ModelState.SERVING, ModelState.RETIRING):
            leases[label] += model.leases
        if model.state is ModelState.SERVING:
            since[label] = model.since.timestamp()
    yield _gauges(
        "model_info",
        "1 for each version that the server holds or has refused.",
        [*names, "state"],
        list(states.items()),
    )
    yield _gauges("model_leases", "Requests that hold the version.", names, list(leases.items()))
    yield _gauges("model_since_timestamp_seconds", "Since when it is served.", names, list(since.items()))


def _of_reloads(status: StoreStatus) -> Iterable[Metric]:
    counts, cache = status.counts, status.cache
    yield _counter("reloads", "Versions that took over from another.", counts.reloads)
    yield _counter("versions_refused", "Versions that failed a check and were not served.", counts.refused)
    yield _counter("registry_failures", "Attempts to reach the registry that failed.", counts.failures)
    yield _counters(
        "model_cache_lookups",
        "Versions that were looked for among the kept bundles.",
        ["result"],
        [(("hit",), cache.hits), (("miss",), cache.misses), (("damaged",), cache.damaged)],
    )


def _of_shadow(agreement: Agreement) -> Iterable[Metric]:
    """Sums, so that a mean of any stretch of time is one rate over another."""
    if not agreement.version:
        return
    labels, values = ["version", "compared_to"], (agreement.version, agreement.compared)
    for name, text, value in (
        ("rankings", "Rankings of the shadow that were compared with the answer.", agreement.rankings),
        ("overlap", "Summed shares of items that are in both lists.", agreement.overlap),
        ("same_first", "Rankings whose first items are the same.", agreement.same_first),
        ("scored_requests", "Scored requests that were compared with the answer.", agreement.scores),
        ("score_difference", "Summed mean absolute differences of probabilities.", agreement.difference),
        ("dropped", "Requests that the shadow had no time for.", agreement.dropped),
        ("failed", "Requests that the shadow could not answer.", agreement.failed),
    ):
        yield _counters(f"shadow_{name}", text, labels, [(values, value)])


def _of_registry(registry: RegistryStatus) -> Iterable[Metric]:
    yield _gauge("registry_following", "1 if the served version moves with an alias.", registry.following)
    yield _gauge(
        "registry_reachable", "1 if the registry and its files could be reached last.", registry.reachable
    )
    yield _gauge("registry_error", "1 if they cannot be reached, or the registry has no such alias.",
                 bool(registry.error))  # fmt: skip
    if registry.seconds_since_answer >= 0:
        yield _gauge("registry_answer_timestamp_seconds", "When the registry answered last.",
                     time.time() - registry.seconds_since_answer)  # fmt: skip
    yield _gauge("model_from_cache", "1 if the served version came from the cache, unconfirmed by the registry.",
                 registry.from_cache)  # fmt: skip


def _of_device() -> Iterable[Metric]:
    devices = [(f"cuda:{number}", number) for number in range(torch.cuda.device_count())]
    yield _gauges("device_memory_allocated_bytes", "Of the device, in tensors.", ["device"],
                  [((name,), torch.cuda.memory_allocated(number)) for name, number in devices])  # fmt: skip
    yield _gauges("device_memory_reserved_bytes", "Of the device, held by this process.", ["device"],
                  [((name,), torch.cuda.memory_reserved(number)) for name, number in devices])  # fmt: skip


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"widedeep_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"widedeep_{name}", text, value=value)


def _gauges(name: str, text: str, labels: list[str], samples: Samples) -> Metric:
    family = GaugeMetricFamily(f"widedeep_{name}", text, labels=labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family


def _counters(name: str, text: str, labels: list[str], samples: Samples) -> Metric:
    family = CounterMetricFamily(f"widedeep_{name}", text, labels=labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family
