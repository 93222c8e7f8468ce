"""The log: how a line looks, and which requests get one.

With --log-format json each line is an object: time (ISO 8601, UTC), level, logger, message; request_id and trace_id
where it is about a request that has them; exception, a traceback; and what is particular to the line (a request's line
has the fields of `RequestLog`, an internal error its `incident`).
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import os
import sys
import time
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import Message
from google.rpc import code_pb2

from server.call import CURRENT, Call
from server.settings import ServerSettings

logger = logging.getLogger("server.requests")

QUIET = (code_pb2.OK, code_pb2.CANCELLED)  # nothing that anybody has to look at


SAID = {"method", "code", "seconds", "incident"}  # what the message has, where it is for people


def configure(settings: ServerSettings, worker: int | None = None) -> None:
    """Log to standard error, for the whole process.

    worker  which of several it is, if it is one: every line says so
    """
    level = settings.log_level.upper()
    json_wanted = settings.log_format == "json"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(worker) if json_wanted else TextFormatter(worker))
    logging.basicConfig(level=level, handlers=[handler], force=json_wanted)
    if json_wanted:
        os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")  # else it writes lines of its own format
        logging.getLogger("alembic").setLevel(logging.WARNING)  # as MLflow has it: it says much of its start
        logging.captureWarnings(True)
        sys.excepthook = lambda kind, error, trace: logger.critical("ended", exc_info=(kind, error, trace))


class TextFormatter(logging.Formatter):
    """A line for people."""

    def __init__(self, worker: int | None = None) -> None:
        who = "" if worker is None else f"worker {worker}: "
        super().__init__(f"%(asctime)s %(levelname)s {who}%(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """What a client has sent is quoted: it may hold the end of a line."""
        rest = [f" {name}={json.dumps(value)}" for name, value in _known(record).items() if name not in SAID]
        return super().formatMessage(record) + "".join(rest)


class JsonFormatter(logging.Formatter):
    """A line is one object, whatever the message holds."""

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._worker = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **self._worker,
            **_known(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _known(record: logging.LogRecord) -> dict[str, Any]:
    """Of the request that the line is about, and what the line itself adds."""
    call = CURRENT.get()
    return (ids_of(call) if call is not None else {}) | getattr(record, "fields", {})


def ids_of(call: Call) -> dict[str, str]:
    """By which a request is found elsewhere: those that it has."""
    found = {"request_id": call.request_id}
    if call.span is not None:
        found["trace_id"] = f"{call.span.get_span_context().trace_id:032x}"
    return {name: value for name, value in found.items() if value}


class RequestLog:
    """A Watcher: a line for each request that failed, or for each.

    method, code, seconds  always
    error                  what was said of it
    caller, peer           whose token it had; the address that it came from
    request_id, trace_id   if it has one
    model_version, items   what answered it, and how many items the answer has
    """

    def __init__(self, which: str, most: int) -> None:
        """
        which  off, errors or all
        most   lines a second; how many more there would have been is said a second later
        """
        self._off = which == "off"
        self._all = which == "all"
        self._most = most
        self._lines = 0  # in this second

    def began(self, call: Call) -> None:
        """Nothing is known yet."""

    def ended(self, call: Call, response: Message | None) -> None:
        if self._off or (call.code == code_pb2.OK and not self._all):
            return
        if not self._lines:  # of a new second; the line at its end is about no call
            asyncio.get_running_loop().call_later(1.0, self._next_second, context=contextvars.Context())
        self._lines += 1
        if self._lines > self._most:
            return
        fields = _fields(call, response)
        level = logging.INFO if call.code in QUIET else logging.WARNING
        text = "%s %s after %.1f ms"
        logger.log(
            level, text, fields["method"], fields["code"], 1e3 * fields["seconds"], extra={"fields": fields}
        )

    message_began = began
    message_ended = ended

    def _next_second(self) -> None:
        if self._lines > self._most:
            logger.warning("%d more requests were not logged in the last second", self._lines - self._most)
        self._lines = 0


def _fields(call: Call, response: Any) -> dict[str, Any]:
    fields = {
        "method": call.name + (" message" if call.stream else ""),
        "code": code_pb2.Code.Name(call.code),
        "seconds": round(time.monotonic() - call.started, 6),
        "error": call.text,
        "caller": call.caller,
        "peer": call.context.peer(),
        **ids_of(call),
    }
    if response is not None and hasattr(response, "model"):
        fields["model_version"] = response.model.version
        fields["items"] = len(getattr(response, "item_ids", ()) or getattr(response, "probabilities", ()))
    return {name: value for name, value in fields.items() if value != ""}
