"""Reading a stream of grpc.aio, and the status with which the server ended it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import grpc

FAULT = "Internal error from Core"
PATIENCE, STEP = 1.0, 0.01  # seconds for the server's status to come after the fault's


class Reader:
    """Keeps the server's status from a fault of grpc.aio.

    Where a message is being written while the server ends the call, grpc.aio replaces the server's status by an
    INTERNAL "Internal error from Core" of its own, or is soon to replace that by the server's:
    https://github.com/grpc/grpc/issues/36066.
    """

    def __init__(self, call: Any) -> None:
        self._call = call
        self._ended: grpc.aio.AioRpcError | None = None
        call.add_done_callback(self._keep)

    async def read(self) -> Any:
        """The next message, or grpc.aio.EOF. Raises grpc.aio.AioRpcError."""
        try:
            return await self._call.read()
        except grpc.aio.AioRpcError as error:
            await self._wait_for_status()
            if self._ended is None:
                raise
            if self._ended.code() is grpc.StatusCode.OK:
                return grpc.aio.EOF
            raise self._ended from error

    async def _wait_for_status(self) -> None:
        waited = 0.0
        while self._ended is not None and self._ended.details() == FAULT and waited < PATIENCE:
            await asyncio.sleep(STEP)
            waited += STEP
            self._keep(self._call)

    def _keep(self, call: Any) -> None:
        if self._ended is None or self._ended.details() == FAULT:
            code, trailing, details = map(_now, (call.code(), call.trailing_metadata(), call.details()))
            self._ended = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, details=details)


def _now(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that has nothing to wait for, as those of a call that has ended."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("the call has not ended")
