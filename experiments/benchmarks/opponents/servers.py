"""The servers of the serving benchmark, each a process of its own on the first core."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from experiments.benchmarks.opponents.process import ROOT, OpponentFailed

SERVER_CORE, CLIENT_CORE = 0, 1
EPHEMERAL = 32_768  # where the system begins to give ports to outgoing connections
START_LIMIT = 600  # seconds: a big model is read, checked and warmed up
SETTINGS = {
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONWARNINGS": "ignore",
}


def apart() -> bool:
    """Whether servers and clients have a core each."""
    return hasattr(os, "sched_setaffinity") and {SERVER_CORE, CLIENT_CORE} <= os.sched_getaffinity(0)


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """What is started in the block runs on this core, where there are two; so does the block itself.

    core  None: on all
    """
    if core is None or not apart():
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(process: psutil.Process) -> float:
    """That it has taken so far. On Linux by its own clock: psutil counts hundredths, and a short load may not fill one.

    Source  clock_getcpuclockid(3), whose number for a process this is
    """
    if sys.platform == "linux":
        return time.clock_gettime(~process.pid << 3 | 2)
    spent = process.cpu_times()
    return float(spent.user + spent.system)


@dataclass
class Target:
    """A server that answers `Score`, and how it is asked.

    path     the gRPC method's, or the URL's of a server that speaks REST
    score    the bytes of a request: a user and some items
    cores    the server's and the load's; None: all
    """

    name: str
    command: list[str]
    port: int
    path: str
    score: Callable[[str, list[str]], bytes]
    rest: bool = False
    log: Path = field(default=Path(os.devnull))
    cores: tuple[int, int] | tuple[None, None] = (SERVER_CORE, CLIENT_CORE)

    def start(self) -> None:
        with on_core(self.cores[0]), self.log.open("w") as log:
            self._process = subprocess.Popen(
                self.command,
                env=os.environ | SETTINGS,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def await_answer(self, ask: Callable[[], object]) -> None:
        """Ask until there is an answer; `ask` raises OSError while there is none.

        Raises  OpponentFailed: the process ended, or it takes too long
        """
        give_up = time.monotonic() + START_LIMIT
        while True:
            try:
                ask()
                return
            except OSError as error:
                if self._process.poll() is not None:
                    lines = self.log.read_text().strip().splitlines() or ["no message"]
                    raise OpponentFailed(f"{self.name}: the process ended, {lines[-1]}") from error
                if time.monotonic() > give_up:
                    raise OpponentFailed(
                        f"{self.name}: no answer after {START_LIMIT} s, {error!s:.200}"
                    ) from error
                time.sleep(0.2)

    @property
    def pid(self) -> int:
        return self._process.pid

    def cpu(self) -> float:
        """Seconds of CPU that the process and its children have taken so far."""
        root = psutil.Process(self.pid)
        return sum(cpu_seconds(process) for process in (root, *root.children(recursive=True)))

    def wait(self, seconds: float) -> int:
        """The exit status.  Raises  OpponentFailed: the process does not end in time"""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise OpponentFailed(f"{self.name}: the process has not ended after {seconds:g} s") from error

    def stop(self) -> None:
        """End the process and its children."""
        try:
            root = psutil.Process(self.pid)
        except psutil.NoSuchProcess:
            return
        processes = [*root.children(recursive=True), root]
        for process in processes:
            process.kill()
        self._process.wait()
        psutil.wait_procs(processes)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, and that the system gives to no outgoing connection."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(EPHEMERAL // 2, EPHEMERAL)
        with socket.socket() as one, contextlib.suppress(OSError):  # somebody has it
            one.bind(("127.0.0.1", port))
            if port not in found:
                found.append(port)
    return found


def run_once(name: str, command: list[str]) -> str:
    """What a short command of an opponent prints.  Raises  OpponentFailed"""
    done = subprocess.run(
        command, env=os.environ | SETTINGS, cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise OpponentFailed(f"{name}: {' '.join(command[1:4])} ended with: {last}")
    return done.stdout


def module(name: str) -> list[str]:
    return [sys.executable, "-m", f"experiments.benchmarks.opponents.{name}"]
