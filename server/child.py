"""A worker, as its parent sees it: a process that is started again, and a service to ask it by."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import grpc

from server.pb import admin_pb2 as pb
from server.pb import admin_pb2_grpc as pb_grpc
from server.worker import Worker

LOOKS = 0.1  # seconds between two questions whether it serves
PATIENCE = 2.0  # seconds that an answer about its status may take


class Child:
    """Number `number` of the workers. To be used from one event loop."""

    def __init__(self, number: int, folder: Path) -> None:
        """folder  that this user alone can read"""
        self.number = number
        self.served = asyncio.Event()  # once, since the start of the whole server
        self._process: asyncio.subprocess.Process | None = None
        self._address = f"unix:{folder / str(number)}"
        self._lock = str(folder / "loading")
        self._channel = grpc.aio.insecure_channel(
            self._address,
            [
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 1000),
                ("grpc.enable_http_proxy", 0),
            ],
        )
        self.stub = pb_grpc.AdminStub(self._channel)  # type: ignore[no-untyped-call]

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    async def start(self, arguments: Sequence[str], port: int, count: int, pinned: str) -> None:
        """
        arguments  flags of the whole server
        count      of workers
        """
        worker = Worker(self.number, port, self._address, self._lock, pinned)
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "server",
            *arguments,
            env=worker.environment(count),
            stdin=asyncio.subprocess.PIPE,  # it ends with this process, however that ends
            start_new_session=True,  # Ctrl-C is for this process, which drains it
        )

    async def ended(self) -> int:
        """Watch it until its end: the exit status, negative for a signal's number."""
        assert self._process is not None, "it was started"
        watching = asyncio.create_task(self._watch())
        status = await self._process.wait()
        watching.cancel()
        return status

    async def _watch(self) -> None:
        while not self.served.is_set():
            if (await self.status()).state == pb.WORKER_STATE_SERVING:
                self.served.set()
            await asyncio.sleep(LOOKS)

    async def status(self) -> pb.WorkerStatus:
        """What it says of itself."""
        with contextlib.suppress(grpc.aio.AioRpcError):  # it is not there yet, or not any more
            answer = await self.stub.GetStatus(pb.GetStatusRequest(), timeout=PATIENCE)
            found: pb.WorkerStatus = answer.workers[0]
            return found
        return pb.WorkerStatus(number=self.number, pid=self.pid, state=pb.WORKER_STATE_DOWN)

    def send(self, number: signal.Signals) -> None:
        if self.is_alive:
            assert self._process is not None
            self._process.send_signal(number)

    async def close(self) -> None:
        await self._channel.close()
