"""The metrics of several processes as one text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

WORKER = "worker"


class _Read(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def merged(texts: Mapping[str, str]) -> str:
    """Every sample of every text, with its process as the label `worker`. Nothing is summed: Prometheus does that.

    texts   by the process' name; in Prometheus' plain format, 0.0.4
    Raises  ValueError: one of them is of another format
    """
    families: dict[str, Metric] = {}
    for worker, text in texts.items():
        for found in text_string_to_metric_families(text):
            family = families.setdefault(found.name, Metric(found.name, found.documentation, found.type))
            for sample in found.samples:
                family.samples.append(sample._replace(labels={WORKER: worker, **sample.labels}))
    registry = CollectorRegistry()
    registry.register(_Read(list(families.values())))
    return generate_latest(registry).decode()
