"""Errors as gRPC statuses, decided here and nowhere else.

InvalidQueryError      INVALID_ARGUMENT     BadRequest(field), ErrorInfo(INVALID_QUERY)
UnknownItemError       NOT_FOUND            BadRequest(field), ErrorInfo(UNKNOWN_ITEM)
ColdStartError         FAILED_PRECONDITION  BadRequest(field), ErrorInfo(COLD_START, cold_start_reason)
VersionNotServedError  FAILED_PRECONDITION  BadRequest(field), ErrorInfo(VERSION_NOT_SERVED)
OverloadedError        RESOURCE_EXHAUSTED   ErrorInfo(OVERLOADED), RetryInfo
SlowReaderError        RESOURCE_EXHAUSTED   ErrorInfo(SLOW_READER)
DeadlineError          DEADLINE_EXCEEDED    ErrorInfo(DEADLINE)
IdleError              DEADLINE_EXCEEDED    ErrorInfo(IDLE)
UnavailableError       UNAVAILABLE          ErrorInfo(UNAVAILABLE)
anything else          INTERNAL             RequestInfo(request_id): nothing of the error leaves the server
                                            but the id under which it is logged
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from widedeep.errors import ColdStartError, RequestError, UnknownItemError, WideDeepError

logger = logging.getLogger(__name__)

DOMAIN = "widedeep"
TEXT_LIMIT = 200  # characters: a text stands in HTTP/2 headers three times, escaped, and they end at 8 KB

# Where a part of a query stands in the request.
WIRE_FIELDS = {
    "candidates": "candidate_item_ids",
    "exclude_items": "exclude_item_ids",
    "history": "history.item_ids",
    "history_ratings": "history.ratings",
}


class VersionNotServedError(RequestError):
    """A request is bound to a version that the server does not hold."""

    def __init__(self, version: str, held: str) -> None:
        """held  the versions that may be asked for"""
        text = f"version {version[:20]} is not served here. Served now: {held}. Name one of them, or leave it out."
        super().__init__("model_version", text)


class UnavailableError(WideDeepError):
    """The server cannot answer now: it is loading its model, or it is about to stop."""


class OverloadedError(WideDeepError):
    """More waits than the server takes. `retry_after`: seconds of work that wait."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DeadlineError(WideDeepError):
    """The deadline cannot be met, or has passed."""


class IdleError(WideDeepError):
    """Nothing happened on a stream for too long."""


class SlowReaderError(WideDeepError):
    """The client does not read its answers."""


OF_THE_SERVER: dict[type[Exception], tuple[int, str]] = {
    UnavailableError: (code_pb2.UNAVAILABLE, "UNAVAILABLE"),
    OverloadedError: (code_pb2.RESOURCE_EXHAUSTED, "OVERLOADED"),
    SlowReaderError: (code_pb2.RESOURCE_EXHAUSTED, "SLOW_READER"),
    DeadlineError: (code_pb2.DEADLINE_EXCEEDED, "DEADLINE"),
    IdleError: (code_pb2.DEADLINE_EXCEEDED, "IDLE"),
}


def of(error: Exception) -> status_pb2.Status:
    """The status of an error, with its details."""
    if isinstance(error, RequestError):
        return _of_request(error)
    if type(error) in OF_THE_SERVER:
        code, reason = OF_THE_SERVER[type(error)]
        details: list[Message] = [_info(reason)]
        if isinstance(error, OverloadedError):
            details.append(_retry_info(error.retry_after))
        return _status(code, _shortened(str(error)), *details)
    incident = uuid.uuid4().hex
    logger.error("internal error %s", incident, exc_info=error)
    return _status(
        code_pb2.INTERNAL,
        f"The server failed on this request. Its log has the reason under {incident}.",
        error_details_pb2.RequestInfo(request_id=incident),
        _info("INTERNAL"),
    )


@contextmanager
def reported(target: status_pb2.Status) -> Iterator[None]:
    """Turn an error of the block into `target`: a stream's way to answer a bad message and live on."""
    try:
        yield
    except Exception as error:
        target.CopyFrom(of(error))


def _of_request(error: RequestError) -> status_pb2.Status:
    name, bracket, index = error.field.partition("[")
    field = WIRE_FIELDS.get(name, name) + bracket + index
    description = _shortened(error.description)
    violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=description)
    code, info = code_pb2.INVALID_ARGUMENT, _info("INVALID_QUERY")
    if isinstance(error, UnknownItemError):
        code, info = code_pb2.NOT_FOUND, _info("UNKNOWN_ITEM")
    elif isinstance(error, VersionNotServedError):
        code, info = code_pb2.FAILED_PRECONDITION, _info("VERSION_NOT_SERVED")
    elif isinstance(error, ColdStartError):
        code, info = code_pb2.FAILED_PRECONDITION, _info("COLD_START")
        info.metadata["cold_start_reason"] = error.reason.name
    return _status(
        code,
        f"{field}: {description}",
        error_details_pb2.BadRequest(field_violations=[violation]),
        info,
    )


def _status(code: int, text: str, *details: Message) -> status_pb2.Status:
    status = status_pb2.Status(code=code, message=text)
    for detail in details:
        status.details.add().Pack(detail)
    return status


def _info(reason: str) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN)


def _retry_info(seconds: float) -> error_details_pb2.RetryInfo:
    found = error_details_pb2.RetryInfo()
    found.retry_delay.FromTimedelta(timedelta(seconds=seconds))
    return found


def _shortened(text: str) -> str:
    return text if len(text) <= TEXT_LIMIT else text[: TEXT_LIMIT - 1] + "…"
