"""Errors as gRPC statuses, decided here and nowhere else.

InvalidQueryError      INVALID_ARGUMENT     BadRequest(field), ErrorInfo(INVALID_QUERY)
UnknownItemError       NOT_FOUND            BadRequest(field), ErrorInfo(UNKNOWN_ITEM)
ColdStartError         FAILED_PRECONDITION  BadRequest(field), ErrorInfo(COLD_START, cold_start_reason)
VersionNotServedError  FAILED_PRECONDITION  BadRequest(field), ErrorInfo(VERSION_NOT_SERVED)
TokenMissingError      UNAUTHENTICATED      ErrorInfo(TOKEN_MISSING)
TokenUnknownError      UNAUTHENTICATED      ErrorInfo(TOKEN_UNKNOWN)
TokenExpiredError      UNAUTHENTICATED      ErrorInfo(TOKEN_EXPIRED)
ScopeError             PERMISSION_DENIED    ErrorInfo(SCOPE_MISSING)
OverloadedError        RESOURCE_EXHAUSTED   ErrorInfo(OVERLOADED), RetryInfo
RateLimitError         RESOURCE_EXHAUSTED   ErrorInfo(RATE_LIMITED), RetryInfo
SlowReaderError        RESOURCE_EXHAUSTED   ErrorInfo(SLOW_READER)
DeadlineError          DEADLINE_EXCEEDED    ErrorInfo(DEADLINE)
IdleError              DEADLINE_EXCEEDED    ErrorInfo(IDLE)
UnavailableError       UNAVAILABLE          ErrorInfo(UNAVAILABLE)
RefusedError           FAILED_PRECONDITION  ErrorInfo(REFUSED), for operators
anything else          INTERNAL             RequestInfo(request_id): nothing of the error leaves the server
                                            but the id under which it is logged
"""

from __future__ import annotations

import functools
import logging
import math
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import grpc
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from widedeep.errors import ColdStartError, RequestError, UnknownItemError, WideDeepError

logger = logging.getLogger(__name__)

DOMAIN = "widedeep"
OPERATOR_LIMIT = 500  # characters of what an operator is told
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

    @property
    def retry_steps(self) -> int:
        return math.ceil(self.retry_after / RETRY_STEP)


class RateLimitError(OverloadedError):
    """One caller sends more than it may. `retry_after`: seconds until it may send again."""


class TokenMissingError(WideDeepError):
    """A call without a token."""


class TokenUnknownError(WideDeepError):
    """A call with a token that is not among the server's."""


class TokenExpiredError(WideDeepError):
    """A call with a token whose time is over."""


class ScopeError(WideDeepError):
    """The token is good, but not for this method."""


class DeadlineError(WideDeepError):
    """The deadline cannot be met, or has passed."""


class IdleError(WideDeepError):
    """Nothing happened on a stream for too long."""


class SlowReaderError(WideDeepError):
    """The client does not read its answers."""


class RefusedError(WideDeepError):
    """What an operator asked for cannot be done, and all is as before."""


RETRY_STEP = (
    0.02  # seconds: delays are given in whole steps, so that a refusal's bytes are mostly made already
)

OF_THE_SERVER: dict[type[Exception], tuple[int, str]] = {
    UnavailableError: (code_pb2.UNAVAILABLE, "UNAVAILABLE"),
    RefusedError: (code_pb2.FAILED_PRECONDITION, "REFUSED"),
    TokenMissingError: (code_pb2.UNAUTHENTICATED, "TOKEN_MISSING"),
    TokenUnknownError: (code_pb2.UNAUTHENTICATED, "TOKEN_UNKNOWN"),
    TokenExpiredError: (code_pb2.UNAUTHENTICATED, "TOKEN_EXPIRED"),
    ScopeError: (code_pb2.PERMISSION_DENIED, "SCOPE_MISSING"),
    RateLimitError: (code_pb2.RESOURCE_EXHAUSTED, "RATE_LIMITED"),
    OverloadedError: (code_pb2.RESOURCE_EXHAUSTED, "OVERLOADED"),
    SlowReaderError: (code_pb2.RESOURCE_EXHAUSTED, "SLOW_READER"),
    DeadlineError: (code_pb2.DEADLINE_EXCEEDED, "DEADLINE"),
    IdleError: (code_pb2.DEADLINE_EXCEEDED, "IDLE"),
}


def of(error: Exception) -> status_pb2.Status:
    """The status of an error, with its details."""
    if isinstance(error, RequestError):
        return _of_request(error)
    if isinstance(error, OverloadedError):
        return _overloaded(OF_THE_SERVER[type(error)][1], str(error), error.retry_steps)
    if type(error) in OF_THE_SERVER:
        code, reason = OF_THE_SERVER[type(error)]
        limit = OPERATOR_LIMIT if isinstance(error, RefusedError) else TEXT_LIMIT
        return _status(code, _shortened(str(error), limit), _info(reason))
    incident = uuid.uuid4().hex
    logger.error("internal error %s", incident, exc_info=error, extra={"fields": {"incident": incident}})
    return _status(
        code_pb2.INTERNAL,
        f"The server failed on this request. Its log has the reason under {incident}.",
        error_details_pb2.RequestInfo(request_id=incident),
        _info("INTERNAL"),
    )


def ending(error: Exception) -> tuple[int, grpc.Status]:
    """The code, and what a call is ended with."""
    if isinstance(error, OverloadedError):
        reason = OF_THE_SERVER[type(error)][1]
        return code_pb2.RESOURCE_EXHAUSTED, _overloaded_ending(reason, str(error), error.retry_steps)
    found = of(error)
    return found.code, rpc_status.to_status(found)


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


@functools.lru_cache(1024)
def _overloaded(reason: str, text: str, retry_steps: int) -> status_pb2.Status:
    """Kept, as a server has no time for it when it is overloaded."""
    return _status(
        code_pb2.RESOURCE_EXHAUSTED, _shortened(text), _info(reason), _retry_info(retry_steps * RETRY_STEP)
    )


@functools.lru_cache(1024)
def _overloaded_ending(reason: str, text: str, retry_steps: int) -> grpc.Status:
    return rpc_status.to_status(_overloaded(reason, text, retry_steps))


def _info(reason: str) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN)


def _retry_info(seconds: float) -> error_details_pb2.RetryInfo:
    found = error_details_pb2.RetryInfo()
    found.retry_delay.FromTimedelta(timedelta(seconds=seconds))
    return found


def _shortened(text: str, limit: int = TEXT_LIMIT) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
