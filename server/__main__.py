"""Serve a model over gRPC.

python -m server --model models:/widedeep@champion --host 127.0.0.1 --port 50051 --device auto
python -m server --model models:/widedeep@champion=95,challenger=5 --settings-file server.toml
python -m server --model model.pth
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

# Before grpc is imported: sockets are read by the thread that answers, which costs less CPU a call (grpc#43092).
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")

from server import logs
from server.command_line import settings_from
from server.memory import keep_one_heap, settle
from server.settings import ServerSettings
from server.worker import Worker
from server.workers import supervise
from widedeep.errors import WideDeepError

logger = logging.getLogger("server")


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns  exit status: 0 after a drain, 2 for settings or a model that cannot be served"""
    keep_one_heap()
    source = functools.partial(settings_from, arguments, os.environ)
    worker = Worker.of(os.environ)
    try:
        settings = source()
    except WideDeepError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    logs.configure(settings, worker.number if worker else None)
    try:
        if settings.workers > 1 and worker is None:
            words = sys.argv[1:] if arguments is None else arguments
            return asyncio.run(supervise(settings, words))  # uvloop forks, which gRPC's threads do not like
        run(serve(settings, source, worker))
    except WideDeepError as error:
        if settings.log_format == "json":
            logger.critical("%s", error)
        else:
            print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    """As asyncio.run, on uvloop where it is there."""
    if sys.platform == "win32":
        asyncio.run(coroutine)
        return
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(coroutine)


async def serve(
    settings: ServerSettings, source: Callable[[], ServerSettings], worker: Worker | None = None
) -> None:
    """Serve until SIGTERM, SIGINT or an operator's word, then drain. A second signal ends the process at once. SIGHUP
    has the settings read anew.

    source  reads them
    """
    from server.app import Server  # imports torch, which the parent of workers has no use for

    signals: list[signal.Signals] = []
    rereading: set[asyncio.Task[None]] = set()
    server = Server(settings, source, worker)

    def on_signal(number: signal.Signals) -> None:
        if signals:
            os._exit(128 + number)
        logger.info("%s", number.name)
        signals.append(number)
        server.ending.set()

    def on_parents_end() -> None:
        loop.remove_reader(0)
        logger.warning("the parent process is gone")
        server.ending.set()

    async def reread() -> None:
        with contextlib.suppress(WideDeepError):  # it is in the log
            await server.reread()

    def on_hangup() -> None:
        logger.info("SIGHUP")
        if server.ending.is_set():
            return
        task = asyncio.create_task(reread())
        rereading.add(task)
        task.add_done_callback(rereading.discard)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    if hasattr(signal, "SIGHUP"):
        loop.add_signal_handler(signal.SIGHUP, on_hangup)
    if worker:
        loop.add_reader(0, on_parents_end)  # nothing is ever written to it
    await server.start()
    loading = asyncio.create_task(server.load(settle))
    stopped = asyncio.create_task(server.ending.wait())
    try:
        await asyncio.wait((loading, stopped), return_when=asyncio.FIRST_COMPLETED)
        if not loading.done():
            await server.close_admin()
            os._exit(0)  # nothing was served yet, and a thread that loads cannot be interrupted
        loading.result()
        await stopped
    finally:
        await server.drain()
    if server.store.is_loading:
        logging.shutdown()
        os._exit(0)  # everything was answered, and a thread that loads cannot be interrupted


if __name__ == "__main__":
    sys.exit(main())
