"""The load on a server: h2load, or this process where there is no h2load, and single calls, one after the other."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np

from experiments.benchmarks.opponents.process import OpponentFailed
from experiments.benchmarks.opponents.servers import CLIENT_CORE, Target, on_core

TIMEOUT = 120.0
WINDOW = "24"  # bits of HTTP/2's flow control windows: never what is waited for
NOT_YET = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
}
MISSING = (
    "h2load was not found (Debian and Ubuntu: apt-get install nghttp2-client): the load came from a Python client, "
    "which is slower than some of the servers, so requests/s say little; CPU per request is the server's all the same."
)


@dataclass(frozen=True)
class Load:
    """What one run was: requests, seconds on the clock, seconds of the server's CPU."""

    requests: int
    seconds: float
    cpu: float

    @property
    def cpu_microseconds(self) -> float:
        return 1e6 * self.cpu / self.requests

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


def is_there() -> bool:
    return shutil.which("h2load") is not None


def framed(messages: Iterable[bytes]) -> bytes:
    """As gRPC sends them: a byte for no compression, four of length."""
    return b"".join(struct.pack(">BI", 0, len(message)) + message for message in messages)


def ask(target: Target, body: bytes, path: str = "") -> bytes:
    """One call.  Raises  ConnectionError: the server does not answer yet; OpponentFailed: it refuses"""
    path = path or target.path
    if target.rest:
        return _post(http.client.HTTPConnection("127.0.0.1", target.port, timeout=TIMEOUT), path, body)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{target.port}") as channel:
            answer: bytes = channel.unary_unary(path)(body, timeout=TIMEOUT)
            return answer
    except grpc.RpcError as error:
        if error.code() in NOT_YET:
            raise ConnectionError(error.details()) from error
        raise OpponentFailed(f"{target.name}: {error.code().name}, {error.details()}") from error


def one_by_one(target: Target, path: str, bodies: Sequence[bytes]) -> list[float]:
    """Seconds that each call took, one after the other on one connection."""
    seconds = []
    with on_core(CLIENT_CORE), grpc.insecure_channel(f"127.0.0.1:{target.port}") as channel:
        call = channel.unary_unary(path)
        call(bodies[0], timeout=TIMEOUT)  # connects
        for body in bodies:
            started = time.perf_counter()
            call(body, timeout=TIMEOUT)
            seconds.append(time.perf_counter() - started)
    return seconds


def unary(
    target: Target, body: bytes, requests: int, concurrency: int, folder: Path, connections: int = 1
) -> Load:
    """`requests` times the same request, `concurrency` of them in flight over so many connections of h2load.

    Raises  OpponentFailed: some were not answered
    """
    with on_core(target.cores[1]):
        if not is_there():
            return _timed(target, requests, lambda: _python(target, body, requests, concurrency))
        if target.rest:
            flags = ["--h1", "-c", str(concurrency), "-H", "content-type: application/json"]
        else:
            flags, body = ["-c", str(connections), "-m", str(concurrency // connections)], framed([body])
        return _h2load(target, target.path, body, requests, requests, flags, folder)


def stream(target: Target, path: str, messages: Sequence[bytes], folder: Path) -> Load:
    """All messages on one stream, sent as fast as they are taken.

    Raises  OpponentFailed: not as many answers as messages
    """
    with on_core(CLIENT_CORE):
        if not is_there():
            return _timed(target, len(messages), lambda: _python_stream(target, path, messages))
        flags = ["-c", "1", "-m", "1"]
        return _h2load(target, path, framed(messages), 1, len(messages), flags, folder)


def _h2load(
    target: Target, path: str, body: bytes, requests: int, answers: int, flags: list[str], folder: Path
) -> Load:
    """requests  of HTTP, which bring so many `answers`; all answers are of one size"""
    file = folder / "body"
    file.write_bytes(body)
    command = ["h2load", "-n", str(requests), "-w", WINDOW, "-W", WINDOW, "-d", str(file), *flags]
    if not target.rest:
        command += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    before = target.cpu()
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{target.port}{path}"], capture_output=True, text=True, check=False
    )
    cpu = target.cpu() - before
    finished = re.search(r"finished in ([\d.]+)(us|ms|s)", done.stdout)
    answered = re.search(r"status codes: (\d+) 2xx", done.stdout)
    data = re.search(r"\((\d+)\) data", done.stdout)
    if not finished or not answered or not data or int(answered[1]) != requests:
        raise OpponentFailed(f"{target.name}: h2load got {(done.stdout + done.stderr).strip()[-300:]!r}")
    # A call that gRPC refuses has status 200, too, but no message.
    if int(data[1]) < answers or (not target.rest and int(data[1]) % answers):
        raise OpponentFailed(
            f"{target.name}: {data[1]} bytes are no {answers} answers of one size; some calls were refused"
        )
    seconds = float(finished[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[finished[2]]
    return Load(answers, seconds, cpu)


def _timed(target: Target, answers: int, run: Callable[[], None]) -> Load:
    before, started = target.cpu(), time.perf_counter()
    run()
    return Load(answers, time.perf_counter() - started, target.cpu() - before)


def _python(target: Target, body: bytes, requests: int, concurrency: int) -> None:
    if target.rest:
        with ThreadPoolExecutor(concurrency) as pool:
            local = threading.local()

            def post(_: int) -> None:
                if not hasattr(local, "connection"):
                    local.connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=TIMEOUT)
                _post(local.connection, target.path, body)

            list(pool.map(post, range(requests)))
        return
    room = threading.Semaphore(concurrency)
    with grpc.insecure_channel(f"127.0.0.1:{target.port}") as channel:
        call, calls = channel.unary_unary(target.path), []
        for _ in range(requests):
            room.acquire()
            calls.append(call.future(body, timeout=TIMEOUT))
            calls[-1].add_done_callback(lambda _: room.release())
        refused = {call.code().name for call in calls} - {grpc.StatusCode.OK.name}
    if refused:
        raise OpponentFailed(f"{target.name}: calls ended with {', '.join(sorted(refused))}")


def _python_stream(target: Target, path: str, messages: Sequence[bytes]) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{target.port}") as channel:
        count = sum(1 for _ in channel.stream_stream(path)(iter(messages), timeout=TIMEOUT))
    if count != len(messages):
        raise OpponentFailed(f"{target.name}: {count} answers to {len(messages)} messages")


def _post(connection: http.client.HTTPConnection, path: str, body: bytes) -> bytes:
    connection.request("POST", path, body, {"content-type": "application/json"})
    response = connection.getresponse()
    answer = response.read()
    if response.status != 200:
        raise OpponentFailed(f"{path}: status {response.status}, {answer[:200]!r}")
    return answer


def holds(target: Target, answer: bytes, expected: np.ndarray, tolerance: float = 1e-5) -> bool:
    """Whether an answer has these numbers: in JSON, or one float32 after the other, as both protocols pack them."""
    if target.rest:
        found = np.array(json.loads(answer)["predictions"])
        return found.shape == expected.shape and np.allclose(found, expected, atol=tolerance, rtol=0)
    size = expected.nbytes
    return any(
        np.allclose(np.frombuffer(answer[start : start + size], "<f4"), expected, atol=tolerance, rtol=0)
        for start in range(len(answer) - size + 1)
    )
