"""gRPC's errors and statuses as ClientErrors."""

from __future__ import annotations

from typing import Any

from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from server.client.values import ClientError

START = "Is one running there? Start it with: python -m server --model models:/widedeep@champion"


def of_status(status: status_pb2.Status) -> ClientError:
    """What a server said, with its details."""
    known = status.code in code_pb2.Code.values()
    field, reason, retry_after = "", "", None
    for detail in status.details:
        request = error_details_pb2.BadRequest()
        info = error_details_pb2.ErrorInfo()
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(request) and request.field_violations:
            field = request.field_violations[0].field
        elif detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToMilliseconds() / 1000
    return ClientError(
        code_pb2.Code.Name(status.code) if known else "UNKNOWN",
        status.message or "the server gave no reason.",
        field,
        reason,
        retry_after,
    )


def of_call(error: Any, target: str, timeout: float | None, tls: bool) -> ClientError:
    """A failed call.

    error    a grpc.RpcError, of either kind of channel
    timeout  seconds that the call was given
    """
    code = error.code().name
    text = error.details() or "the server gave no reason."
    status = rpc_status.from_call(error)
    if status is not None:  # a server that is there but cannot answer sends details
        return of_status(status)
    if code == "DEADLINE_EXCEEDED" and timeout is not None:
        return ClientError(code, f"no answer from {target} within {timeout:g} s. {START}")
    if code == "UNAVAILABLE" and tls:
        return ClientError(code, f"cannot reach a server at {target} by TLS: {' '.join(text.split())}")
    if code == "UNAVAILABLE" and "Socket closed" in text:
        return ClientError(
            code,
            f"the server at {target} hung up: it was stopped, or it wants TLS, or takes no more connections.",
        )
    if code == "UNAVAILABLE":
        return ClientError(code, f"cannot reach a server at {target}. {START}")
    return ClientError(code, text)
