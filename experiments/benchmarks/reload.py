"""Move the served alias a hundred times under load: is anything lost, is anything mixed, who waits for it?

    python -m experiments.benchmarks.reload [--quick] --out DIR [--moves 100] [--rate 20]

A real server follows `models:/reloaded@champion` of a real registry in an SQLite file, whose good versions give
other answers each. Every third move is to a damaged version, which must be refused. All four methods are under
steady load meanwhile, and each answer is compared with what the version that it names says without a server.
"""

from __future__ import annotations

import collections
import math
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from experiments.benchmarks import form, reload_load, reload_versions
from experiments.benchmarks.opponents.process import OpponentFailed
from experiments.benchmarks.opponents.servers import Target, free_ports
from experiments.benchmarks.reload_load import Sent
from experiments.benchmarks.reload_versions import ALIAS, NAME, Versions
from experiments.benchmarks.serving_load import ask
from experiments.benchmarks.serving_targets import PATIENT, SERVICE
from server.pb import recommender_pb2 as pb

ABOUT = "Move the served alias under load; count what is lost or mixed, and compare latency during swaps."
SHAPE, QUICK = (6040, 3706, 300_000), (300, 200, 9000)  # users, items, interactions
GOOD, QUESTIONS, MOVES, RATE = 3, 50, 100, 20.0
LIVE_LIMIT = 30.0  # seconds in which a moved alias must be served, or its version be refused
REFUSED_AFTER = 5.0  # seconds, where the server does not count what it refused
SETTLED = 0.5  # seconds after a swap that still count as part of it
STARTED = 120.0  # seconds until the client's process has started
WARM = 3.0  # seconds of load before the first move
BEHIND = 1.0  # seconds of p99 without a swap, beyond which requests wait for each other
GROUPS = 5  # of swaps, each with a p99 of its own
MILLISECONDS, MEGABYTE = 1e3, 2**20

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Move:
    """start, live  on the monotonic clock: the alias was moved; its version is served, or refused"""

    version: str
    is_good: bool
    start: float
    live: float


def run(shape: tuple[int, int, int], moves: int, rate: float, folder: Path, tell: Tell) -> form.Report:
    """Raises  OpponentFailed: the server does not start, or a move is not followed"""
    tell("training the versions")
    versions = reload_versions.make(folder, shape, GOOD, QUESTIONS)
    versions.move(versions.good[0])
    target = _server(versions, folder)
    target.start()
    try:
        target.await_answer(lambda: ask(target, b""))
        before = _memory(target)
        sent, made = _under_load(target, versions, moves, rate, tell)
        after = _memory(target)
    finally:
        target.stop()
    users, items, interactions = shape
    report = form.Report(
        "Reload",
        f"{moves} moves of models:/{NAME}@{ALIAS} among {GOOD} good versions, every third to a damaged one, of a "
        f"model of {items:,} items, {users:,} users and {interactions:,} interactions; {rate:g} requests a second by "
        f"each of {', '.join(reload_load.METHODS)}. Server and client on a core each, where there are two.",
    )
    fill(report, sent, made)
    report.add("ours", "memory before the first move", before / MEGABYTE, "MiB")
    report.add("ours", "memory after the last move", after / MEGABYTE, "MiB")
    return report


def _server(versions: Versions, folder: Path) -> Target:
    (port,) = free_ports(1)
    flags = ["--model", f"models:/{NAME}@{ALIAS}", "--tracking-uri", versions.uri, "--port", str(port)]
    flags += ["--device", "cpu", "--cache-dir", str(folder / "cache"), *PATIENT]
    command = [sys.executable, "-m", "server", *flags]
    return Target("ours", command, port, f"{SERVICE}GetModel", lambda *_: b"", log=folder / "server.log")


def _memory(target: Target) -> int:
    return int(psutil.Process(target.pid).memory_info().rss)


def _under_load(
    target: Target, versions: Versions, moves: int, rate: float, tell: Tell
) -> tuple[list[Sent], list[Move]]:
    context = multiprocessing.get_context("spawn")
    begun, stop, results = context.Event(), context.Event(), context.Queue()
    arguments = (target.port, versions.questions, versions.answers, rate, begun, stop, results)
    client = context.Process(target=reload_load.drive, args=arguments, daemon=True)
    client.start()
    try:
        if not begun.wait(STARTED):
            raise OpponentFailed(f"the client's process has not begun {STARTED:g} s after its start")
        time.sleep(WARM)
        made = []
        for number in range(1, moves + 1):
            made.append(_moved(target, versions, _version(versions, number)))
            took = made[-1].live - made[-1].start
            what = "live" if made[-1].is_good else "refused"
            tell(f"move {number} of {moves}: version {made[-1].version}, {what} after {took:.1f} s")
            time.sleep(SETTLED + took)  # as long again without a swap
        stop.set()
        return results.get(timeout=2 * reload_load.PATIENCE), made
    finally:
        client.kill()
        client.join()


def _version(versions: Versions, number: int) -> str:
    """The version of a move: every third is a new, damaged one, and no good one follows itself."""
    if number % 3 == 0:
        return versions.add_bad(number // 3)
    return versions.good[(number - number // 3) % len(versions.good)]


def _moved(target: Target, versions: Versions, version: str) -> Move:
    is_good, refused = version in versions.good, _served(target).registry.refused_count
    start = time.monotonic()
    versions.move(version)
    while (waited := time.monotonic() - start) < LIVE_LIMIT:
        served = _served(target)
        if is_good and served.model.version == version:
            return Move(version, is_good, start, time.monotonic())
        says = served.registry.following  # else nobody says what was refused, and it is given time
        if not is_good and (served.registry.refused_count > refused if says else waited > REFUSED_AFTER):
            return Move(version, is_good, start, time.monotonic())
        time.sleep(0.05)
    what = "is not served" if is_good else "is not refused"
    raise OpponentFailed(f"version {version} {what} {LIVE_LIMIT:g} s after the alias was moved to it")


def _served(target: Target) -> pb.GetModelResponse:
    answer: pb.GetModelResponse = pb.GetModelResponse.FromString(ask(target, b""))
    return answer


def fill(report: form.Report, sent: Sequence[Sent], moves: Sequence[Move]) -> None:
    """Counts, times and the ratio of the p99s."""
    lost = [one for one in sent if one.fault.startswith("lost")]
    wrong = [one for one in sent if one.fault and not one.fault.startswith("lost")]
    good = [move.live - move.start for move in moves if move.is_good]
    report.add("ours", "requests", len(sent), "")
    report.add("ours", "requests lost", len(lost), "")
    report.add("ours", "answers that are not their version's own", len(wrong), "")
    for version, count in sorted(collections.Counter(one.version for one in sent if one.version).items()):
        report.add("ours", f"answers by version {version}", count, "")
    if good:
        report.add("ours", "from the move to the first answer, median", statistics.median(good), "s")
        report.add("ours", "from the move to the first answer, longest", max(good), "s")
    during, without, ratios = [], [], []
    for group in np.array_split(np.arange(len(moves)), min(GROUPS, len(moves))):
        some = [moves[place] for place in group]
        span = (some[0].start, some[-1].live + (some[-1].live - some[-1].start) + SETTLED)
        inside, outside = _split(sent, some, span)
        if inside and outside:
            during.append(_p99(inside))
            without.append(_p99(outside))
            ratios.append(during[-1] / without[-1])
    if ratios:
        report.add("ours", "p99 during swaps", MILLISECONDS * statistics.median(during), "ms")
        report.add("ours", "p99 without", MILLISECONDS * statistics.median(without), "ms")
        report.add("ours", "p99 during swaps / p99 without", statistics.median(ratios), "times")
        if statistics.median(without) > BEHIND:
            report.notes.append(
                "The server could not keep up with the load: lower --rate, or the p99s say little."
            )
    report.notes += [
        f"A swap lasts from the move of the alias until {SETTLED:g} s after its version answers, or is refused; as "
        f"much time without one follows. The ratio is the median of {len(ratios)} groups of swaps, each group's p99s "
        "from its own stretch of the run.",
        "Latency counts from when a request was due, all four methods together.",
        *sorted({f"{one.method}: {one.fault}" for one in (*lost, *wrong)})[:10],
    ]


def _split(
    sent: Sequence[Sent], moves: Sequence[Move], span: tuple[float, float]
) -> tuple[list[float], list[float]]:
    """Seconds of the requests that were due in `span`: during its swaps, and without one."""
    inside: list[float] = []
    outside: list[float] = []
    for one in sent:
        if span[0] <= one.due < span[1] and not math.isnan(one.seconds):
            swapping = any(move.start <= one.due < move.live + SETTLED for move in moves)
            (inside if swapping else outside).append(one.seconds)
    return inside, outside


def _p99(seconds: list[float]) -> float:
    return float(np.quantile(seconds, 0.99))


def main(arguments: list[str] | None = None) -> int:
    flags = form.parser("reload", ABOUT)
    flags.add_argument("--moves", type=int, help=f"of the alias (default {MOVES})")
    flags.add_argument(
        "--rate", type=float, default=RATE, help="requests/s by each method (default: %(default)s)"
    )
    given = flags.parse_args(arguments)
    moves = given.moves if given.moves is not None else 4 if given.quick else MOVES
    if moves < 1:
        flags.error(f"--moves must be 1 or more, got {moves}")
    if not 0 < given.rate < math.inf:
        flags.error(f"--rate must be above 0, got {given.rate}")
    tell = (lambda line: print(line, file=sys.stderr)) if sys.stderr.isatty() else (lambda _line: None)
    shape = QUICK if given.quick else SHAPE
    with tempfile.TemporaryDirectory() as folder:
        return form.deliver(lambda: run(shape, moves, given.rate, Path(folder), tell), given.out)


if __name__ == "__main__":
    sys.exit(main())
