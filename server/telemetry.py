"""What is told of a server's calls: metrics, traces and the request log, together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from server.call import Watcher
from server.logs import RequestLog
from server.metrics import Metrics
from server.settings import ServerSettings
from server.work import Batch
from widedeep.errors import ConfigError

if TYPE_CHECKING:
    from server.tracing import Tracing


class Telemetry:
    def __init__(self, settings: ServerSettings, service: str) -> None:
        """Raises  ConfigError: traces are wanted and cannot be sent"""
        self.metrics = Metrics([service])
        self._tracing = _tracing(settings.otlp_endpoint) if settings.otlp_endpoint else None
        log = RequestLog(settings.log_requests, settings.log_requests_most)
        self.watchers: list[Watcher] = [self.metrics, log]
        self.observers: list[Callable[[Batch], None]] = [self.metrics.batch]
        if self._tracing:
            self.watchers.insert(0, self._tracing)  # first: the log names the trace
            self.observers.append(self._tracing.batch)

    async def close(self) -> None:
        if self._tracing:
            await self._tracing.close()


def _tracing(endpoint: str) -> Tracing:
    try:
        from server.tracing import Tracing
    except ImportError as error:
        raise ConfigError(
            f"--otlp-endpoint needs what is not installed ({error}): pip install -e '.[otel]'."
        ) from error
    return Tracing(endpoint)
