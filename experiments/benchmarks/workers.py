"""Our server with one process and with two that share its port, on two cores.

    python -m experiments.benchmarks.workers [--quick] --out DIR [--models DIR]

Both answer the same requests with the same bundle, in turns. The load comes from h2load on the same two cores, over
several connections: Linux gives each connection to one process, and it stays there.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil

from experiments.benchmarks import form, serving_load, serving_measures, serving_models, serving_targets
from experiments.benchmarks.opponents.process import OpponentFailed
from experiments.benchmarks.opponents.servers import Target
from experiments.benchmarks.reload import QUICK, SHAPE
from experiments.benchmarks.serving_load import Load
from experiments.benchmarks.serving_measures import CONCURRENCY, ITEMS, ROUNDS, K, Tell
from experiments.benchmarks.serving_targets import SERVICE
from server.pb import recommender_pb2 as pb

ABOUT = "Ask our server of one process and of two, on two cores; compare requests/s, CPU and memory."
CONNECTIONS = 16
COUNTS = (1, 2)  # workers
MEGABYTE = 2**20


@dataclass(frozen=True)
class Size:
    """seconds  of load on one server in one turn"""

    shape: tuple[int, int, int]
    seconds: float


FULL, SMALL = Size(SHAPE, 2.0), Size(QUICK, 0.1)


def name_of(count: int) -> str:
    return f"{count} worker{'s' if count > 1 else ''}"


def run(size: Size, models: Path, folder: Path, tell: Tell, apart: bool = True) -> form.Report:
    """
    apart    make the model in a process of its own
    Raises   OpponentFailed: a server does not answer, or not as the model does; there is no h2load
    """
    if not serving_load.is_there():
        raise OpponentFailed(
            "this needs h2load, which opens several connections: apt-get install nghttp2-client"
        )
    users, items, interactions = size.shape
    report = form.Report(
        "Workers",
        f"A model of default widths, {items:,} items, trained briefly on {interactions:,} made-up interactions of "
        f"{users:,} users. `Score` of {ITEMS} items and `Recommend` of {K}, {CONCURRENCY} requests in flight over "
        f"{CONNECTIONS} connections, from h2load on the same {os.cpu_count()} cores. In turns, medians of "
        f"{ROUNDS - 1} rounds of {size.seconds:g} s; one thread for the model in each process.",
    )
    call = form.apart if apart else form.here
    tell("making the model, or finding it")
    bundle = call(serving_models.bundle_of, size.shape, models)
    asked = call(serving_measures.questions, bundle, ROUNDS)
    with ExitStack() as stack:
        targets = {count: target_of(count, bundle, folder) for count in COUNTS}
        for target in targets.values():
            tell(f"{target.name}: starting")
            target.start()
            stack.callback(target.stop)
            serving_measures.check(target, asked[0])
        await_all(targets[max(COUNTS)])
        bodies = {
            f"Score, {ITEMS} items": [target.score(question.user, question.items) for question in asked],
            f"Recommend k={K}": [
                pb.RecommendRequest(user_id=question.user, k=K).SerializeToString() for question in asked
            ],
        }
        for what, messages in bodies.items():
            path = SERVICE + what.partition(",")[0].partition(" ")[0]
            fill(report, what, loads(targets, path, messages, size.seconds, folder, tell))
        for target in targets.values():
            report.add(target.name, "memory of all processes", memory_of(target) / MEGABYTE, "MiB")
    report.notes += [
        "Servers and load share the cores, so the second worker's gain is bounded by what the load leaves, and by what "
        "other jobs do: where two workers are busy with much less than the cores less the load's, somebody else was.",
        "CPU is that of all the server's processes. Memory counts pages that processes share once (PSS).",
    ]
    return report


def target_of(count: int, bundle: Path, folder: Path) -> Target:
    target = serving_targets.ours(bundle, folder)
    target.name, target.log, target.cores = name_of(count), folder / f"{count}.log", (None, None)
    target.command = [*target.command, "--workers", str(count)]
    level = target.command.index("--log-level") + 1
    target.command[level] = "info"  # says when all workers are there
    return target


def await_all(target: Target) -> None:
    """Until every worker serves: the first answers before the rest."""

    def said() -> None:
        if " workers" not in target.log.read_text():
            raise ConnectionError("not all workers serve yet")

    target.await_answer(said)


def loads(
    targets: dict[int, Target], path: str, messages: list[bytes], seconds: float, folder: Path, tell: Tell
) -> dict[int, list[Load]]:
    """By the count of workers, a round each, the first left out.  Raises  OpponentFailed"""
    found: dict[int, list[Load]] = {count: [] for count in targets}
    requests = dict.fromkeys(targets, CONCURRENCY)
    for round_, message in enumerate(messages):
        for count in sorted(targets, reverse=bool(round_ % 2)):
            target = targets[count]
            target.path = path
            load = serving_load.unary(target, message, requests[count], CONCURRENCY, folder, CONNECTIONS)
            tell(f"{path}, round {round_}: {target.name}, {load.rate:,.0f} a second")
            if round_:
                found[count].append(load)
            requests[count] = max(CONCURRENCY, int(load.rate * seconds))
    return found


def fill(report: form.Report, what: str, found: dict[int, list[Load]]) -> None:
    rates = {count: statistics.median(load.rate for load in rounds) for count, rounds in found.items()}
    for count, rounds in found.items():
        report.add(name_of(count), what, rates[count], "requests/s")
        cpu = statistics.median(load.cpu_microseconds for load in rounds)
        report.add(name_of(count), f"{what}, CPU", cpu, "CPU us a request")
        busy = statistics.median(load.cpu / load.seconds for load in rounds)
        report.add(name_of(count), f"{what}, busy", busy, "cores")
    report.ratios[f"{what}: {name_of(2)}/{name_of(1)}"] = rates[2] / rates[1]


def memory_of(target: Target) -> float:
    """Bytes."""
    root = psutil.Process(target.pid)
    return float(sum(one.memory_full_info().pss for one in (root, *root.children(recursive=True))))


def main(arguments: list[str] | None = None) -> int:
    flags = form.parser("workers", ABOUT)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "widedeep"
    flags.add_argument("--models", type=Path, help="folder for the models (default: in the cache)")
    given = flags.parse_args(arguments)
    tell = (lambda line: print(line, file=sys.stderr)) if sys.stderr.isatty() else (lambda _line: None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = given.models or (folder if given.quick else cache / "serving")
        size = SMALL if given.quick else FULL
        return form.deliver(
            lambda: run(size, models.resolve(), folder, tell, apart=not given.quick), given.out
        )


if __name__ == "__main__":
    sys.exit(main())
