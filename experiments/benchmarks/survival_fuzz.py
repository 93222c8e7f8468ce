"""A million hostile requests: does the server crash, fail, or keep memory?

    python -m experiments.benchmarks.survival_fuzz [--quick] --out DIR [--requests 1000000] [--seed 0]

Valid messages with values that nobody sends, damaged messages and random bytes, by every method, most of them over
streams. INTERNAL and UNKNOWN are faults, as is a stream that ends or does not answer each message once. What led to a
fault is printed as hex.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.rpc import code_pb2

from experiments.benchmarks import form, serving_models, survival_server
from experiments.benchmarks.opponents.servers import Target
from experiments.benchmarks.serving_targets import SERVICE
from experiments.benchmarks.survival_messages import BUILDERS, Hostile
from server.pb import recommender_pb2 as pb

ABOUT = "Send hostile requests by every method; count what fails, and watch the server's memory."
REQUESTS, QUICK = 1_000_000, 3000
POOL, QUICK_POOL = 4000, 300  # valid messages of a method
STREAMS: dict[str, Any] = {
    "RecommendStream": pb.RecommendStreamResponse,
    "ScoreStream": pb.ScoreStreamResponse,
}
UNARY = [name for name in BUILDERS if name not in STREAMS] + ["NoSuchMethod"]
SHARE = 0.85  # of the requests that go over streams
AT_ONCE = 32  # messages in flight on a stream
MESSAGES = 2000  # on one stream, before the next is opened
CALLERS = 6  # of unary calls
FAULTS = {"INTERNAL", "UNKNOWN", "UNAVAILABLE"}
PATIENCE = 120.0  # seconds without an answer
SETTLED = 0.3  # of the run, after which memory is to be flat

Tell = Callable[[str], None]


@dataclass
class Found:
    """codes: by method and status;  faults: what was sent, as hex, with what came of it;  memory: (requests, MiB)"""

    codes: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    memory: list[tuple[int, float]] = field(default_factory=list)

    @property
    def count(self) -> int:
        return sum(self.codes.values())

    def add(self, method: str, code: str, sent: bytes) -> None:
        self.codes[method, code] += 1
        if code in FAULTS:
            self.faults.append(f"{method} {code}: {sent.hex()}")


class Fuzz:
    """The load on one server."""

    def __init__(self, target: Target, requests: int, seed: int, pool: int) -> None:
        self.found = Found()
        self._target = target
        self._requests = requests
        self._seed = seed
        self._pool = pool
        self._left = requests

    async def run(self, tell: Tell) -> Found:
        async with survival_server.channel(self._target) as channel:
            watch = asyncio.create_task(self._watch(tell))
            on_streams = round(SHARE * self._requests)
            await asyncio.gather(
                *(
                    self._stream(channel, name, on_streams // len(STREAMS), number)
                    for number, name in enumerate(STREAMS)
                ),
                *(
                    self._unary(channel, (self._requests - on_streams) // CALLERS, 100 + number)
                    for number in range(CALLERS)
                ),
            )
            watch.cancel()
        return self.found

    async def _unary(self, channel: Any, count: int, number: int) -> None:
        hostile = Hostile(self._seed * 1000 + number)
        calls = {name: channel.unary_unary(SERVICE + name) for name in UNARY}
        for _ in range(count):
            name = hostile.draw.choice(UNARY)
            sent = hostile.message(name if name in BUILDERS else "Score", self._pool)
            try:
                await calls[name](sent, timeout=PATIENCE)
                code = "OK"
            except grpc.aio.AioRpcError as error:
                code = error.code().name
            self.found.add(name, code, sent)

    async def _stream(self, channel: Any, name: str, count: int, number: int) -> None:
        hostile = Hostile(self._seed * 1000 + number)
        while count > 0:
            some = min(count, MESSAGES)
            await self._one_stream(channel, name, some, hostile)
            count -= some

    async def _one_stream(self, channel: Any, name: str, count: int, hostile: Hostile) -> None:
        """Messages are answered in any order, and not all of them have ids: answers are counted."""
        call = channel.stream_stream(SERVICE + name)()
        room = asyncio.Semaphore(AT_ONCE)
        window: dict[int, bytes] = {}

        async def write() -> None:
            for number in range(count):
                await room.acquire()
                window[number] = hostile.message(name, self._pool)
                window.pop(number - 4 * AT_ONCE, None)
                await call.write(window[number])
            await call.done_writing()

        writing = asyncio.create_task(write())
        answered = 0
        try:
            async with asyncio.timeout(PATIENCE + count * 0.1):
                while (raw := await call.read()) is not grpc.aio.EOF:
                    answered += 1
                    room.release()
                    code = code_pb2.Code.Name(STREAMS[name].FromString(raw).status.code)
                    self.found.codes[name, code] += 1
                    if code in FAULTS:
                        self._suspect(name, code, window)
                await writing
            if answered != count:
                self._suspect(name, f"{answered} answers to {count} messages", window)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError):
            code = "no answer" if not call.done() else (await call.code()).name
            self._suspect(name, f"the stream ended: {code}", window)
        finally:
            writing.cancel()
            call.cancel()

    def _suspect(self, name: str, what: str, window: dict[int, bytes]) -> None:
        self.found.faults.append(f"{name} {what}; one of: {' '.join(sent.hex() for sent in window.values())}")

    async def _watch(self, tell: Tell) -> None:
        started = time.monotonic()
        while True:
            self.found.memory.append((self.found.count, survival_server.resident(self._target)))
            tell(
                f"{self.found.count:,} of {self._requests:,} after {time.monotonic() - started:.0f} s, "
                f"{self.found.memory[-1][1]:.0f} MiB, {len(self.found.faults)} faults"
            )
            await asyncio.sleep(min(5.0, self._requests / 10_000))


def growth(memory: list[tuple[int, float]], settled: float = SETTLED) -> float | None:
    """MiB for 100,000 requests, fitted to what came after the first part of the run; None of too few looks."""
    counts, sizes = np.array(memory).T
    late = counts >= settled * counts[-1]
    if late.sum() <= 10:
        return None
    return float(np.polyfit(counts[late], sizes[late], 1)[0] * 100_000)


def run(requests: int, seed: int, pool: int, folder: Path, tell: Tell) -> form.Report:
    """Raises  OpponentFailed: the server does not start"""
    bundle = serving_models.bundle_of(survival_server.SHAPE, folder)
    target = survival_server.started(survival_server.target(str(bundle), folder))
    try:
        before = survival_server.resident(target)
        begun = time.monotonic()
        found = asyncio.run(Fuzz(target, requests, seed, pool).run(tell))
        lasted = time.monotonic() - begun
        after = survival_server.resident(target)
        found.memory.append((found.count, after))
        leases = survival_server.leases(target)
        complaints = survival_server.complaints(target)
    finally:
        target.stop()
    users, items, _ = survival_server.SHAPE
    report = form.Report(
        "Survival: hostile requests",
        f"{requests:,} requests with seed {seed} on a model of {items} items and {users} users, {SHARE:.0%} of them "
        f"over streams, {len(STREAMS) * AT_ONCE + CALLERS} in flight.",
    )
    report.add("ours", "requests", found.count, "")
    report.add("ours", "faults", len(found.faults), "")
    report.add("ours", "tracebacks and internal errors in the log", len(complaints), "")
    report.add("ours", "leases left", leases, "")
    for code, count in sorted(_by_code(found).items()):
        report.add("ours", f"ended with {code}", count, "")
    report.add("ours", "rate", found.count / lasted, "requests/s")
    report.add("ours", "memory before", before, "MiB")
    report.add("ours", "memory after", after, "MiB")
    if (slope := growth(found.memory)) is not None:
        report.add("ours", f"memory, slope after {SETTLED:.0%}", slope, "MiB/100,000 requests")
    report.notes += [f"fault: {fault:.4000}" for fault in found.faults[:20]]
    report.notes += [f"log: {line:.300}" for line in complaints[:20]]
    return report


def _by_code(found: Found) -> Counter[str]:
    codes: Counter[str] = Counter()
    for (_, code), count in found.codes.items():
        codes[code] += count
    return codes


def main(arguments: list[str] | None = None) -> int:
    flags = form.parser("survival_fuzz", ABOUT)
    flags.add_argument("--requests", type=int, help=f"how many (default {REQUESTS:,})")
    flags.add_argument("--seed", type=int, default=0, help="of what is sent (default: %(default)s)")
    given = flags.parse_args(arguments)
    requests = given.requests or (QUICK if given.quick else REQUESTS)
    tell = (lambda line: print(line, file=sys.stderr)) if sys.stderr.isatty() else (lambda _line: None)
    pool = QUICK_POOL if given.quick else POOL
    with tempfile.TemporaryDirectory() as folder:
        return form.deliver(lambda: run(requests, given.seed, pool, Path(folder), tell), given.out)


if __name__ == "__main__":
    sys.exit(main())
