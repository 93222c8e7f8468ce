"""Half an hour of mixed load at half of what the server can do, with alias moves now and then: does it keep memory?

    python -m experiments.benchmarks.survival_soak [--quick] --out DIR [--minutes 30] [--share 0.5]

The load is that of `reload`: every answer is compared with what the version that it names says without a server.
"""

from __future__ import annotations

import collections
import itertools
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.context import SpawnContext
from pathlib import Path

import numpy as np

from experiments.benchmarks import form, reload_load, reload_versions, survival_load, survival_server
from experiments.benchmarks.opponents.process import OpponentFailed
from experiments.benchmarks.opponents.servers import Target
from experiments.benchmarks.reload_load import Sent
from experiments.benchmarks.reload_versions import Versions

ABOUT = (
    "Load the server for long, at half of what it can do, and move its alias now and then; watch its memory."
)
SHAPE = (2000, 3000, 100_000)  # users, items, interactions
MINUTES, QUICK_SECONDS, SHARE = 30.0, 6.0, 0.5
GOOD, QUESTIONS = 2, 50
MOVE_EVERY = 60.0  # seconds
TRIED, QUICK_TRIED = 15.0, 2.0  # seconds at the rate below, to see what a request costs
TRIED_RATE, MOST_RATE = (
    10.0,
    60.0,
)  # requests/s by each method; more would be the client's load, not the server's
LIVE_LIMIT = 180.0  # seconds
SETTLED = 1 / 3  # of the run, after which memory is to be flat
SAMPLES = 200

Tell = Callable[[str], None]


class Client:
    """The load, in a process of its own."""

    def __init__(self, target: Target, versions: Versions, rate: float) -> None:
        context: SpawnContext = multiprocessing.get_context("spawn")
        begun, self._stop, self._results = context.Event(), context.Event(), context.Queue()
        arguments = (
            target.port,
            versions.questions,
            versions.answers,
            rate,
            begun,
            self._stop,
            self._results,
        )
        self._process = context.Process(target=reload_load.drive, args=arguments, daemon=True)
        self._process.start()
        if not begun.wait(120):
            self._process.kill()
            raise OpponentFailed("the client's process has not begun 120 s after its start")

    def end(self) -> list[Sent]:
        self._stop.set()
        try:
            return list(self._results.get(timeout=3 * reload_load.PATIENCE))
        finally:
            self._process.kill()
            self._process.join()


def affordable(target: Target, versions: Versions, seconds: float, share: float) -> float:
    """Requests a second, by each method, that take this share of a core."""
    client, before, begun = Client(target, versions, TRIED_RATE), target.cpu(), time.monotonic()
    time.sleep(seconds)
    cpu, lasted = target.cpu() - before, time.monotonic() - begun
    client.end()
    return min(share * TRIED_RATE / max(cpu / lasted, 0.001), MOST_RATE)


def soaked(
    target: Target, versions: Versions, rate: float, seconds: float, every: float, tell: Tell
) -> tuple[list[Sent], list[tuple[float, float]], int]:
    """What was sent, (seconds, MiB), and how often the alias was moved."""
    client = Client(target, versions, rate)
    begun = time.monotonic()
    memory: list[tuple[float, float]] = []
    moves = 0
    while (now := time.monotonic() - begun) < seconds:
        memory.append((now, survival_server.resident(target)))
        if now >= (moves + 1) * every:
            moves += 1
            _move(target, versions, moves)
        tell(f"{now:.0f} of {seconds:.0f} s, {memory[-1][1]:.0f} MiB, {moves} moves")
        time.sleep(min(seconds / SAMPLES, max(0.0, begun + seconds - time.monotonic())))
    sent = client.end()
    memory.append((time.monotonic() - begun, survival_server.resident(target)))
    return sent, memory, moves


def _move(target: Target, versions: Versions, number: int) -> None:
    """Every third to a damaged version, which must be refused."""
    version = versions.good[number % len(versions.good)] if number % 3 else versions.add_bad(number)
    refused = survival_server.served(target).registry.refused_count
    versions.move(version)
    end = time.monotonic() + LIVE_LIMIT
    while time.monotonic() < end:
        found = survival_server.served(target)
        if found.model.version == version or found.registry.refused_count > refused:
            return
        time.sleep(0.1)
    raise OpponentFailed(f"version {version} is neither served nor refused after {LIVE_LIMIT:g} s")


def run(
    shape: tuple[int, int, int],
    seconds: float,
    every: float,
    tried: float,
    share: float,
    folder: Path,
    tell: Tell,
) -> form.Report:
    """Raises  OpponentFailed: the server does not start, or a move is not followed"""
    tell("training the versions")
    versions = reload_versions.make(folder, shape, GOOD, QUESTIONS)
    versions.move(versions.good[0])
    target = survival_server.started(survival_load.following(versions, folder))
    try:
        before = survival_server.resident(target)
        rate = affordable(target, versions, tried, share)
        sent, memory, moves = soaked(target, versions, rate, seconds, every, tell)
        leases, complaints = survival_server.leases(target), survival_server.complaints(target)
    finally:
        target.stop()
    report = form.Report(
        "Survival: soak",
        f"{seconds / 60:.3g} minutes of {rate:.1f} requests/s by each of {', '.join(reload_load.METHODS)}, "
        f"{share:.0%} of a core or {MOST_RATE:g} requests/s; {moves} moves of the alias, every third to a damaged "
        f"version; {shape[1]:,} items.",
    )
    fill(report, sent, memory)
    report.add("ours", "alias moves", moves, "")
    report.add("ours", "leases left", leases, "")
    report.add("ours", "tracebacks and internal errors in the log", len(complaints), "")
    report.add("ours", "memory before", before, "MiB")
    report.notes += [f"log: {line:.300}" for line in complaints[:20]]
    return report


def fill(report: form.Report, sent: Sequence[Sent], memory: Sequence[tuple[float, float]]) -> None:
    lost = [one for one in sent if one.fault.startswith("lost")]
    wrong = [one for one in sent if one.fault and not one.fault.startswith("lost")]
    seconds = [one.seconds for one in sent if not np.isnan(one.seconds)]
    report.add("ours", "requests", len(sent), "")
    report.add("ours", "requests lost", len(lost), "")
    report.add("ours", "answers that are not their version's own", len(wrong), "")
    for version, count in sorted(collections.Counter(one.version for one in sent if one.version).items()):
        report.add("ours", f"answers by version {version}", count, "")
    for share in (0.5, 0.99):
        report.add("ours", f"p{share * 100:.0f}", 1e3 * float(np.quantile(seconds, share)), "ms")
    times, sizes = np.array(memory).T
    late = times >= SETTLED * times[-1]
    for part in (SETTLED, 2 / 3, 1.0):
        near = sizes[(times >= (part - 0.1) * times[-1]) & (times <= part * times[-1])]
        if near.size:
            report.add(
                "ours", f"memory, median of the tenth before {part:.0%}", float(np.median(near)), "MiB"
            )
    if late.sum() > 10:
        slope = float(np.polyfit(times[late], sizes[late], 1)[0]) * 3600
        report.add("ours", f"memory, slope after {SETTLED:.0%}", slope, "MiB/hour")
    report.notes += sorted({f"{one.method}: {one.fault}" for one in itertools.chain(lost, wrong)})[:10]


def main(arguments: list[str] | None = None) -> int:
    flags = form.parser("survival_soak", ABOUT)
    flags.add_argument("--minutes", type=float, help=f"how long (default {MINUTES:g})")
    flags.add_argument(
        "--share", type=float, default=SHARE, help="of a core that is used (default: %(default)s)"
    )
    given = flags.parse_args(arguments)
    seconds = 60 * given.minutes if given.minutes else QUICK_SECONDS if given.quick else 60 * MINUTES
    every, tried = (2.0, QUICK_TRIED) if given.quick else (MOVE_EVERY, TRIED)
    shape = survival_server.SHAPE if given.quick else SHAPE
    tell = (lambda line: print(line, file=sys.stderr)) if sys.stderr.isatty() else (lambda _line: None)
    with tempfile.TemporaryDirectory() as folder:
        return form.deliver(
            lambda: run(shape, seconds, every, tried, given.share, Path(folder), tell), given.out
        )


if __name__ == "__main__":
    sys.exit(main())
