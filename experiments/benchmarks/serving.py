"""Our server beside what a user would pick instead, beside itself without a model, and beside the bare products.

    python -m experiments.benchmarks.serving [--quick] --out DIR [--envs DIR] [--models DIR] [--only mlflow,naive]

`mlflow models serve`, MLServer's gRPC and a plain sync gRPC server answer the same questions with the same bundle,
each in one process on the first core; the load comes from the second. MLServer runs in an environment of its own,
which is made in the first run and kept in --envs; where that is impossible, the report says so. The models are kept
in --models. A million items are served by ours alone.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from experiments.benchmarks import form, serving_load, serving_measures, serving_models, serving_targets
from experiments.benchmarks.opponents import environments, servers
from experiments.benchmarks.opponents.process import OpponentFailed, Process
from experiments.benchmarks.serving_load import Load
from experiments.benchmarks.serving_measures import CONCURRENCY, ITEMS, MILLISECONDS, ROUNDS, K, Size, Tell

ABOUT = (
    "Ask our server, other servers of the same model, and ours without a model; compare CPU time and latency."
)
SHAPE, QUICK = (16_000, 10_677, 1_000_000), (300, 200, 9000)  # users, items, interactions
MANY_USERS, FEW_USERS = 20_000, 300  # of the big catalogue
MILLION, QUICK_MILLION = 1_000_000, 3000
FULL, SMALL = Size(2.0, 20_000, 40, 8), Size(0.1, 200, 8, 3)


@dataclass(frozen=True)
class Options:
    """opponents  beside "empty";  big_items  of the big catalogue, 0 for none"""

    quick: bool
    opponents: tuple[str, ...]
    envs: Path
    models: Path
    big_items: int


def run(options: Options, folder: Path, tell: Tell) -> form.Report:
    """Raises  OpponentFailed: ours does not answer, or not as the model does"""
    size, shape = (SMALL, QUICK) if options.quick else (FULL, SHAPE)
    call = form.here if options.quick else form.apart
    users, items, interactions = shape
    report = form.Report(
        "Serving",
        f"A model of default widths, {items:,} items, trained briefly on {interactions:,} made-up interactions of "
        f"{users:,} users. `Score` of {ITEMS} items, {CONCURRENCY} requests in flight; `ScoreStream` of as many "
        f"items a message, {size.seconds:g} s of messages ({size.messages:,} at most) sent at once on one stream; "
        f"`Recommend` of {K} items, one request after the other. Servers in turns, medians of {ROUNDS - 1} rounds, "
        "one thread for the model.",
    )
    tell("making the model, or finding it")
    bundle = call(serving_models.bundle_of, shape, options.models)
    asked = call(serving_measures.questions, bundle, max(ROUNDS, size.rankings))
    with ExitStack() as stack:
        targets = {name: serving_targets.ours(bundle, folder, name) for name in ("ours", "empty")}
        for name in options.opponents:
            try:
                targets[name] = serving_targets.opponent(name, bundle, folder, options.envs, tell)
            except (environments.EnvironmentMissing, OpponentFailed) as error:
                report.notes.append(f"Left out: {error}")
                tell(str(error))
        for target in targets.values():
            tell(f"{target.name}: starting")
            target.start()
            stack.callback(target.stop)
        for target in targets.values():
            serving_measures.check(target, asked[0])
        with servers.on_core(servers.SERVER_CORE):
            floor = Process("floor", Path(sys.executable), "floor", bundle, 1, folder / "floor.log")
        stack.callback(floor.close)
        fill_scores(report, serving_measures.scores(targets, asked, size, folder, tell))
        pair = [targets["ours"], targets["empty"]]
        fill_streams(report, serving_measures.streams(pair, asked, size, folder, tell))
        people = [question.user for question in asked[: size.rankings]]
        fill_rankings(report, serving_measures.rankings(pair, floor, people, tell), items)
    if options.big_items:
        tell("the big catalogue: making the model, or finding it")
        big = (FEW_USERS if options.quick else MANY_USERS, options.big_items)
        path = call(serving_models.big_bundle_of, big, options.models)
        report.notes.append(serving_measures.big(report, path, big, size, folder, tell))
    report.notes += notes()
    return report


def fill_scores(report: form.Report, found: dict[str, list[Load]]) -> None:
    cpu = {name: statistics.median(load.cpu_microseconds for load in loads) for name, loads in found.items()}
    for name, loads in found.items():
        report.add(name, f"Score, {ITEMS} items", cpu[name], "CPU us a request")
        report.add(
            name, f"Score, {ITEMS} items, rate", statistics.median(load.rate for load in loads), "requests/s"
        )
    for name in (*serving_targets.OPPONENTS, "empty"):
        if name in cpu:
            report.ratios[f"ours/{name}"] = form.ratio_of_costs(cpu["ours"], cpu[name])


def fill_streams(report: form.Report, found: dict[str, list[Load]]) -> None:
    for name, loads in found.items():
        rate = statistics.median(ITEMS * load.requests / load.cpu for load in loads)
        report.add(name, "ScoreStream, pipelined", rate, "items per CPU s")


def fill_rankings(report: form.Report, found: dict[str, list[float]], items: int) -> None:
    p50 = {name: statistics.median(medians) for name, medians in found.items()}
    for name, seconds in p50.items():
        report.add(name, f"Recommend k={K} over {items:,} items, p50", MILLISECONDS * seconds, "ms")
    report.ratios["recommend/floor"] = form.ratio_of_costs(p50["ours"], p50["floor"] + p50["empty"])


def notes() -> list[str]:
    """How the figures are to be read."""
    found = [
        "CPU time is that of the server's process and its children. All requests of a round are the same, of "
        "another user and other items in each round; on the stream every message is another.",
        "`empty` is our server with the model removed: it decodes, queues and encodes, and answers constants. "
        "`ours/empty` is below 1: 0.59 is 1.7 times its CPU.",
        "`floor` is the matrix products of a ranking, timed bare in a process on the server's core. "
        "`recommend/floor` is (floor + empty) / ours, all p50: 0.77 is 1.3 times the floor and an empty call.",
        "`mlflow` is `mlflow models serve` with one worker, asked over REST; `mlserver` is MLServer's gRPC, the V2 "
        "protocol, without a second process for inference; `naive` is a sync gRPC server on a pool of threads.",
    ]
    if not serving_load.is_there():
        found.append(serving_load.MISSING)
    if not servers.apart():
        found.append("There are no two cores: servers and clients shared what there is.")
    return found


def main(arguments: list[str] | None = None) -> int:
    flags = form.parser("serving", ABOUT)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "widedeep"
    flags.add_argument("--envs", type=Path, help="folder for MLServer's environment (default: in the cache)")
    flags.add_argument("--models", type=Path, help="folder for the models (default: in the cache)")
    known = ", ".join(serving_targets.OPPONENTS)
    flags.add_argument("--only", help=f"opponents with commas between, of {known}; empty for none")
    flags.add_argument(
        "--big-items", type=int, help=f"of the big catalogue, 0 for none (default {MILLION:,})"
    )
    given = flags.parse_args(arguments)
    names: tuple[str, ...] = serving_targets.OPPONENTS
    if given.only is not None:
        unknown = set(filter(None, given.only.split(","))) - set(names)
        if unknown:
            flags.error(f"--only knows {known}; got {', '.join(sorted(unknown))}")
        names = tuple(name for name in names if name in given.only.split(","))
    elif given.quick:
        names = ("naive",)  # the others start for longer than all else takes
    big = given.big_items if given.big_items is not None else QUICK_MILLION if given.quick else MILLION
    if big != 0 and big < FEW_USERS:
        flags.error(f"--big-items must be 0, or {FEW_USERS} or more; got {big}")
    tell = (lambda line: print(line, file=sys.stderr)) if sys.stderr.isatty() else (lambda _line: None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = given.models or (folder if given.quick else cache / "serving")
        options = Options(
            given.quick, names, (given.envs or cache / "opponents").resolve(), models.resolve(), big
        )
        return form.deliver(lambda: run(options, folder, tell), given.out)


if __name__ == "__main__":
    sys.exit(main())
