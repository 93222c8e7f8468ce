"""Errors as gRPC statuses, decided here and nowhere else.

InvalidQueryError  INVALID_ARGUMENT  BadRequest(field), ErrorInfo(INVALID_QUERY)
UnknownItemError   NOT_FOUND         BadRequest(field), ErrorInfo(UNKNOWN_ITEM)
UnavailableError   UNAVAILABLE       ErrorInfo(UNAVAILABLE)
anything else      INTERNAL          RequestInfo(request_id): nothing of the error leaves the server but the
                                     id under which it is logged
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from widedeep.errors import InvalidQueryError, UnknownItemError, WideDeepError

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


class UnavailableError(WideDeepError):
    """The server cannot answer now: it is loading its model, or it is about to stop."""


def of(error: Exception) -> status_pb2.Status:
    """The status of an error, with its details."""
    if isinstance(error, InvalidQueryError | UnknownItemError):
        unknown = isinstance(error, UnknownItemError)
        name, bracket, index = error.field.partition("[")
        field = WIRE_FIELDS.get(name, name) + bracket + index
        description = _shortened(error.description)
        violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=description)
        return _status(
            code_pb2.NOT_FOUND if unknown else code_pb2.INVALID_ARGUMENT,
            f"{field}: {description}",
            error_details_pb2.BadRequest(field_violations=[violation]),
            _info("UNKNOWN_ITEM" if unknown else "INVALID_QUERY"),
        )
    if isinstance(error, UnavailableError):
        return _status(code_pb2.UNAVAILABLE, _shortened(str(error)), _info("UNAVAILABLE"))
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


def _status(code: int, text: str, *details: Message) -> status_pb2.Status:
    status = status_pb2.Status(code=code, message=text)
    for detail in details:
        status.details.add().Pack(detail)
    return status


def _info(reason: str) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN)


def _shortened(text: str) -> str:
    return text if len(text) <= TEXT_LIMIT else text[: TEXT_LIMIT - 1] + "…"
