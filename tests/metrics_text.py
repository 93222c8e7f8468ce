"""The metrics of a server, by name and labels."""

from __future__ import annotations

import math

from prometheus_client.parser import text_string_to_metric_families
from serving import Running


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
    return Read(started.server.telemetry.metrics.text()[0].decode())
