"""The operator's service of several workers: each is asked, and the answer is that of all."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

import grpc

from server.admin_port import Context, grace_of, version_of
from server.child import PATIENCE, Child
from server.merge_metrics import merged
from server.pb import admin_pb2 as pb
from server.status import RefusedError, UnavailableError
from widedeep.errors import WideDeepError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

NOT_NOW = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
}
LONGEST = 600.0  # seconds that a worker may take to load a version, where nobody waits


class Fleet(Protocol):
    """Whose workers they are."""

    children: list[Child]
    pinned: str  # the version that a worker begins with, if it is not what the flags say

    def end(self) -> None:
        """Drain all."""


class WorkersAdmin:
    """The methods of widedeep.admin.v1.Admin.

    What loads a model goes from worker to worker, so that the others answer meanwhile.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def GetStatus(self, _: pb.GetStatusRequest, __: Context) -> pb.GetStatusResponse:
        return pb.GetStatusResponse(workers=await self._statuses())

    async def Reload(self, request: pb.ReloadRequest, context: Context) -> pb.ReloadResponse:
        await self._each("Reload", request, _until(context))
        return pb.ReloadResponse(workers=await self._statuses())

    async def Pin(self, request: pb.PinRequest, context: Context) -> pb.PinResponse:
        """All workers or none."""
        version_of(request)
        # To its end even if the caller leaves: half of the workers must not stay on another version.
        failure = await asyncio.shield(self._soon(self._pin(request, _until(context))))
        if failure:
            raise failure
        return pb.PinResponse(workers=await self._statuses())

    async def Unpin(self, request: pb.UnpinRequest, context: Context) -> pb.UnpinResponse:
        self._fleet.pinned = ""
        await self._each("Unpin", request, _until(context))
        return pb.UnpinResponse(workers=await self._statuses())

    async def RereadSettings(
        self, request: pb.RereadSettingsRequest, context: Context
    ) -> pb.RereadSettingsResponse:
        answers = await self._each("RereadSettings", request, _until(context))
        return pb.RereadSettingsResponse(names=sorted({name for answer in answers for name in answer.names}))

    async def Drain(self, request: pb.DrainRequest, _: Context) -> pb.DrainResponse:
        grace, before = grace_of(request), await self._statuses()
        if grace is not None:  # at once, even while a version is being loaded
            until = time.monotonic() + PATIENCE
            asked = [_ask(child, "Drain", request, until) for child in self._alive()]
            for failure in await asyncio.gather(*asked, return_exceptions=True):
                if isinstance(failure, BaseException):
                    logger.warning("%s; it keeps the grace that it was started with", failure)
        self._fleet.end()
        return pb.DrainResponse(workers=before)

    async def GetMetrics(self, _: pb.GetMetricsRequest, __: Context) -> pb.GetMetricsResponse:
        texts = await self.metrics()
        joined = merged({number: text.decode() for number, text in texts.items()})
        return pb.GetMetricsResponse(text=joined.encode())

    async def metrics(self) -> dict[str, bytes]:
        """The metrics of each worker that is there, by its number."""
        children, until = self._alive(), time.monotonic() + PATIENCE
        request = pb.GetMetricsRequest()
        found = await asyncio.gather(
            *(_ask(child, "GetMetrics", request, until) for child in children), return_exceptions=True
        )
        return {
            str(child.number): answer.text
            for child, answer in zip(children, found, strict=True)
            if not isinstance(answer, BaseException)
        }

    def ask_soon(self, method: str, request: Any) -> None:
        """For whom no answer can reach: what goes wrong is logged."""

        async def ask() -> None:
            try:
                await self._each(method, request, time.monotonic() + LONGEST)
            except WideDeepError as error:
                logger.error("%s: %s", method, error)

        self._soon(ask())

    async def _each(self, method: str, request: Any, until: float | None) -> list[Any]:
        """The answers of all.  Raises  UnavailableError, RefusedError: the first failure, when all were asked"""
        answers, failures = [], []
        async with self._turn:
            for child in self._alive():
                try:
                    answers.append(await _ask(child, method, request, until))
                except WideDeepError as error:
                    failures.append(error)
        if failures:
            raise failures[0]
        return answers

    async def _pin(self, request: pb.PinRequest, until: float | None) -> WideDeepError | None:
        """Why not, if all is as before."""
        async with self._turn:
            before = self._fleet.pinned
            self._fleet.pinned = request.version  # also of a worker that starts meanwhile
            asked = []
            try:
                for child in self._alive():
                    asked.append(child)
                    await _ask(child, "Pin", request, until)
            except WideDeepError as error:
                self._fleet.pinned = before
                if isinstance(error, RefusedError):
                    asked.pop()  # it is as before
                for child in asked:
                    await self._put_back(child, before)
                logger.warning("not pinned to version %s: %s", request.version, error)
                return error
        return None

    async def _put_back(self, child: Child, version: str) -> None:
        until = time.monotonic() + LONGEST
        try:
            if version:
                await _ask(child, "Pin", pb.PinRequest(version=version), until)
            else:
                await _ask(child, "Unpin", pb.UnpinRequest(), until)
        except WideDeepError as error:
            logger.error("%s; it was not put back to what it served before", error)

    async def _statuses(self) -> list[pb.WorkerStatus]:
        return list(await asyncio.gather(*(child.status() for child in self._fleet.children)))

    def _alive(self) -> list[Child]:
        return [child for child in self._fleet.children if child.is_alive]

    def _soon(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _ask(child: Child, method: str, request: Any, until: float | None) -> Any:
    """
    until   on the clock of time.monotonic; None: as long as it takes
    Raises  UnavailableError: it is gone, or cannot do it now, or takes too long
            RefusedError: it does not do it, and is as before
    """
    seconds = None if until is None else max(0.0, until - time.monotonic())
    try:
        return await getattr(child.stub, method)(request, timeout=seconds, wait_for_ready=True)
    except grpc.aio.AioRpcError as error:
        text = f"worker {child.number}: {error.details()}"
        away = error.code() in NOT_NOW
        raise (UnavailableError if away else RefusedError)(text) from error


def _until(context: Context) -> float | None:
    """When the caller gives up, on the clock of time.monotonic."""
    seconds = context.time_remaining()
    return None if seconds is None else time.monotonic() + seconds
