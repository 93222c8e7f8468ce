"""The operator's service of one process: what it serves, how busy it is, and the handles."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from server import describe
from server.admin_port import Context, explained, grace_of, version_of
from server.pb import admin_pb2 as pb

if TYPE_CHECKING:
    from server.app import Server


class Admin:
    """The methods of widedeep.admin.v1.Admin."""

    def __init__(self, server: Server, number: int = 0) -> None:
        """number  of this process among the workers"""
        self._server = server
        self._number = number
        self._started = time.monotonic()

    async def GetStatus(self, _: pb.GetStatusRequest, __: Context) -> pb.GetStatusResponse:
        return pb.GetStatusResponse(workers=[self._status()])

    async def Reload(self, _: pb.ReloadRequest, __: Context) -> pb.ReloadResponse:
        with explained():
            await self._server.store.reload()
        return pb.ReloadResponse(workers=[self._status()])

    async def Pin(self, request: pb.PinRequest, _: Context) -> pb.PinResponse:
        version = version_of(request)
        with explained():
            await self._server.store.pin(version)
        return pb.PinResponse(workers=[self._status()])

    async def Unpin(self, _: pb.UnpinRequest, __: Context) -> pb.UnpinResponse:
        with explained():
            await self._server.store.unpin()
        return pb.UnpinResponse(workers=[self._status()])

    async def RereadSettings(self, _: pb.RereadSettingsRequest, __: Context) -> pb.RereadSettingsResponse:
        with explained():
            return pb.RereadSettingsResponse(names=await self._server.reread())

    async def Drain(self, request: pb.DrainRequest, _: Context) -> pb.DrainResponse:
        self._server.end(grace_of(request))
        return pb.DrainResponse(workers=[self._status()])

    async def GetMetrics(self, _: pb.GetMetricsRequest, __: Context) -> pb.GetMetricsResponse:
        return pb.GetMetricsResponse(text=self._server.metrics_text())

    def _status(self) -> pb.WorkerStatus:
        server, store = self._server, self._server.store.status()
        state = pb.WORKER_STATE_SERVING if server.is_ready else pb.WORKER_STATE_LOADING
        return pb.WorkerStatus(
            number=self._number,
            pid=os.getpid(),
            state=pb.WORKER_STATE_DRAINING if server.ending.is_set() else state,
            uptime_seconds=time.monotonic() - self._started,
            call_count=server.calls.active,
            stream_count=len(server.calls.streams),
            pinned_version=server.store.pinned,
            lanes=[
                pb.LaneStatus(name=lane.name, queued_count=lane.queued, queue_limit=lane.most_queued)
                for lane in (server.lanes.rankings, server.lanes.scores)
            ],
            models=describe.to_models_response(store).models,
            registry=describe.to_registry_status(store),
        )
