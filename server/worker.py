"""What a worker is told by the process that has started it, beside the flags that both have."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from server.settings import ServerSettings

VARIABLE = "WIDEDEEP_WORKER"


@dataclass(frozen=True)
class Worker:
    """One of several processes that share a port. Its standard input ends when its parent does.

    port     the shared one
    admin    where it is to listen for its parent: unix:PATH
    lock     file by which workers take turns to load
    pinned   the version to begin with; empty: what the flags say
    """

    number: int
    port: int
    admin: str
    lock: str = ""
    pinned: str = ""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Worker | None:
        """What this process is, if it is a worker."""
        text = environment.get(VARIABLE)
        return cls(**json.loads(text)) if text else None

    def environment(self, count: int) -> dict[str, str]:
        """For its process, one of `count`: this, and its share of the cores."""
        threads = max(1, (os.cpu_count() or 1) // count)
        return {"OMP_NUM_THREADS": str(threads), **os.environ, VARIABLE: json.dumps(dataclasses.asdict(self))}

    def settings(self, settings: ServerSettings) -> ServerSettings:
        """Without what the parent does for all."""
        return dataclasses.replace(
            settings, port=self.port, workers=1, admin_port=0, webhook_port=0, metrics_port=0
        )
