"""Traces of calls, through the queue to the device and back, sent by OTLP over HTTP. Needs the extra `otel`.

widedeep.v1.Recommender/Score   a call, under the caller's span if its metadata has a `traceparent`
├─ queue                        it waits in a lane
└─ batch                        it is computed, together with others: see the links

A message of a stream has a span under the stream's, with the same children. The first call's `batch` links to all calls
of the batch, the others' to the first's. The variables OTEL_* of the SDK say the rest: OTEL_TRACES_SAMPLER,
OTEL_EXPORTER_OTLP_HEADERS, OTEL_SERVICE_NAME, OTEL_BSP_SCHEDULE_DELAY and others.

OpenTelemetry's interceptor for grpc.aio is not used: it breaks methods that read and write their streams themselves.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import Any

from google.protobuf.message import Message
from google.rpc import code_pb2
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from server.call import Call
from server.work import Batch

logger = logging.getLogger(__name__)

SERVICE_NAME = "widedeep"
PATH = "/v1/traces"
MOST_LINKS = 128  # of a span; the SDK drops more
PATIENCE = 3.0  # seconds that the last spans have to be sent when the server stops
FAULTS = {  # of the server, as OpenTelemetry's conventions for RPC have it; other codes are the client's
    code_pb2.UNKNOWN,
    code_pb2.DEADLINE_EXCEEDED,
    code_pb2.UNIMPLEMENTED,
    code_pb2.INTERNAL,
    code_pb2.UNAVAILABLE,
    code_pb2.DATA_LOSS,
}


class Tracing:
    """A Watcher of calls, and an observer of batches."""

    def __init__(self, endpoint: str) -> None:
        """endpoint  of the receiver, such as http://localhost:4318"""
        own = Resource.create({"service.name": SERVICE_NAME})
        self._provider = TracerProvider(
            resource=own.merge(OTELResourceDetector().detect()), shutdown_on_exit=False
        )
        url = endpoint if endpoint.endswith(PATH) else endpoint.rstrip("/") + PATH
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(url)))
        self._tracer = self._provider.get_tracer("server")
        self._propagator = TraceContextTextMapPropagator()

    async def close(self) -> None:
        """Send what is left, if the receiver takes it in time."""
        sending = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        sending.start()
        await asyncio.to_thread(sending.join, PATIENCE)
        if sending.is_alive():
            logger.warning("the last spans were not sent within %g s", PATIENCE)

    def began(self, call: Call) -> None:
        carrier = {name: call.metadata(name) for name in self._propagator.fields}
        call.span = self._tracer.start_span(
            call.name,
            self._propagator.extract({name: value for name, value in carrier.items() if value}),
            SpanKind.SERVER,
            {"rpc.system": "grpc", "rpc.service": call.service, "rpc.method": call.method},
        )

    def ended(self, call: Call, response: Message | None) -> None:
        span = call.span
        if span.is_recording():
            span.set_attribute("rpc.grpc.status_code", call.code)
            if request_id := call.request_id:
                span.set_attribute("widedeep.request_id", request_id)
            if response is not None and hasattr(response, "model"):
                span.set_attribute("widedeep.model.version", response.model.version)
            if call.code in FAULTS:
                span.set_status(Status(StatusCode.ERROR, call.text))
        span.end()

    def message_began(self, call: Call) -> None:
        parent = _under(call.stream.span) if call.stream else None
        call.span = self._tracer.start_span(f"{call.name} message", parent)

    message_ended = ended

    def batch(self, batch: Batch) -> None:
        traced = [work for work in batch.works if work.call is not None and work.call.span.is_recording()]
        if not traced:
            return
        offset = time.time_ns() - time.monotonic_ns()  # spans are told by the wall's clock
        started, ended = _ns(batch.started, offset), _ns(batch.started + batch.seconds, offset)
        attributes: dict[str, str | int] = {
            "widedeep.lane": batch.lane,
            "widedeep.batch.queries": len(batch.works),
            "widedeep.batch.items": batch.cost,
        }
        links = [Link(work.call.span.get_span_context()) for work in traced[:MOST_LINKS] if work.call]
        for work in traced:
            assert work.call is not None
            parent = _under(work.call.span)
            queue = self._tracer.start_span(
                "queue", parent, attributes={"widedeep.lane": batch.lane}, start_time=_ns(work.since, offset)
            )
            queue.end(started)
            span = self._tracer.start_span(
                "batch", parent, attributes=attributes, links=links, start_time=started
            )
            span.end(ended)
            if work is traced[0]:
                links = [Link(span.get_span_context())]


def _under(span: Any) -> Any:
    """The context in which a span becomes a child of this one."""
    return trace.set_span_in_context(span)


def _ns(seconds: float, offset: int) -> int:
    """A moment of time.monotonic in nanoseconds since 1970."""
    return int(seconds * 1e9) + offset
