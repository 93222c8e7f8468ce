"""Training and inference of the pointwise Wide & Deep model on the CPU, beside what a user would pick instead.

    python -m experiments.benchmarks.training [--quick] --out DIR [--rows 10000000] [--envs DIR] [--threads 1]

One epoch at ML-10M's shape, on the same made-up rows and with the same widths for all: ours, the usual tutorial's
PyTorch loop, Keras, and pytorch-widedeep. The last two run in environments of their own, which are made in the
first run and kept in --envs; where that is impossible, the report says so. Every opponent is a process that
trains a part of the epoch when it is its turn.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from experiments.benchmarks import form
from experiments.benchmarks.opponents import child, data, environments
from experiments.benchmarks.opponents.process import OpponentFailed, Process

ABOUT = (
    "Train one epoch of the pointwise model and score 10,000 rows on the CPU, beside Keras and other PyTorch."
)
USERS, ITEMS, ROWS = 69_878, 10_677, 10_000_000
QUICK = (400, 200, 20_000)
MODULES = {"ours": "ours", "seed": "seed", "keras": "keras_fit", "pytorch-widedeep": "pytorch_widedeep_fit"}
MIB = 2**20
FEWEST = 10_000  # rows, so that every part of the epoch is some batches


@dataclass
class Found:
    """What is known of one opponent."""

    rates: list[float] = field(default_factory=list)  # rows per CPU second, by round
    auc: float = 0.0
    inference: dict[str, dict[str, float]] = field(default_factory=dict)
    peak: int = 0
    size: int = 0


def run(
    shape: tuple[int, int, int],
    names: list[str],
    envs: Path,
    threads: int,
    folder: Path,
    tell: Callable[[str], None],
) -> form.Report:
    users, items, rows = shape
    notes = []
    tell(f"making {rows:,} rows")
    train_rows = data.write(users, items, rows, folder)
    processes: dict[str, Process] = {}
    try:
        for name in names:
            tell(f"{name}: starting")
            try:
                python = (
                    Path(sys.executable)
                    if name in ("ours", "seed")
                    else environments.python_of(name, envs, tell)
                )
                processes[name] = Process(
                    name, python, MODULES[name], folder, threads, folder / f"{name}.log"
                )
            except (environments.EnvironmentMissing, OpponentFailed) as error:
                notes.append(f"Left out: {error}")
                tell(str(error))
        found = measure(processes, train_rows, folder, tell)
    finally:
        for process in processes.values():
            process.close()
    report = form.Report(
        "Training and inference on the CPU",
        f"{train_rows:,} training rows and {rows - train_rows:,} validation rows of {users:,} users and {items:,} "
        f"items, {child.sizes(folder)['columns']} feature columns, {threads} thread(s). Embeddings of {child.DIM}, "
        f"hidden layers of {', '.join(map(str, child.HIDDEN))}, dropout {child.DROPOUT:g}. The opponents' batches "
        f"have {child.BATCH:,} rows and Adam's rate is {child.RATE:g}; ours takes its defaults. One epoch in "
        f"{form.REPEATS + 1} parts, in turns; rates are medians over the parts but the first.",
    )
    fill(report, found)
    report.notes += notes
    report.notes += [
        "Rates are rows per CPU second of the process, all threads, of what trains: loading is not in it.",
        "AUC is of the same validation rows after the same epoch.",
        f"Inference is of {child.INFERENCE_ROWS:,} rows, CPU ms, medians of {form.REPEATS} rounds in turns; "
        "`Recommender.score` also finds ids and makes the features, of one user and as many items, the others get "
        "finished features.",
        "Ours keeps all interactions in memory and makes the features itself; the opponents are handed theirs, "
        "which the peak memory shows. The file is the model's weights: ours without the ranking head.",
    ]
    return report


def measure(
    processes: dict[str, Process], rows: int, folder: Path, tell: Callable[[str], None]
) -> dict[str, Found]:
    """An epoch in turns, then the rest.  Raises  OpponentFailed"""
    found = {name: Found() for name in processes}
    names = list(processes)
    parts = form.REPEATS + 1
    for part in range(parts):
        turn = part % len(names)
        for name in (*names[turn:], *names[:turn]):
            start, stop = rows * part // parts, rows * (part + 1) // parts
            answer = processes[name].ask("train", start=start, stop=stop)
            rate = answer["rows"] / answer["cpu"]
            tell(f"part {part + 1} of {parts}: {name}, {rate:,.0f} rows per CPU s")
            if part:
                found[name].rates.append(rate)
    for name, inference in inference_of(processes, tell).items():
        found[name].inference = inference
    for name, process in processes.items():
        tell(f"{name}: validation")
        found[name].auc = process.ask("validate")["auc"]
        found[name].size = process.ask("save", path=str(folder / f"{name}.model"))["bytes"]
        found[name].peak = process.ask("peak")["bytes"]
    return found


def inference_of(
    processes: dict[str, Process], tell: Callable[[str], None]
) -> dict[str, dict[str, dict[str, float]]]:
    """Milliseconds by opponent, way and clock: medians over rounds in turns.  Raises  OpponentFailed"""
    names = list(processes)
    rounds: dict[str, list[dict[str, dict[str, float]]]] = {name: [] for name in names}
    for number in range(form.REPEATS):
        turn = number % len(names)
        for name in (*names[turn:], *names[:turn]):
            tell(f"round {number + 1} of {form.REPEATS}: {name}, inference")
            rounds[name].append(processes[name].ask("inference"))
    return {
        name: {
            way: {clock: statistics.median(times[way][clock] for times in found) for clock in clocks}
            for way, clocks in found[0].items()
        }
        for name, found in rounds.items()
    }


def fill(report: form.Report, found: dict[str, Found]) -> None:
    """Rows and ratios of what was measured."""
    for name, facts in found.items():
        report.add(name, "training", statistics.median(facts.rates), "rows per CPU s")
        report.add(name, "validation AUC after the epoch", facts.auc, "")
        for way, times in facts.inference.items():
            report.add(name, f"inference, {way}", times["cpu"], "CPU ms")
            report.add(name, f"inference, {way}", times["wall"], "ms")
        report.add(name, "peak memory", facts.peak / MIB, "MiB")
        report.add(name, "model file", facts.size / MIB, "MiB")
    ours = found["ours"]
    others = {name: facts for name, facts in found.items() if name != "ours"}
    for name, facts in others.items():
        report.ratios[f"ours/{name}"] = form.ratio_of_gains(
            statistics.median(ours.rates), statistics.median(facts.rates)
        )
    if others:
        best = min(times["cpu"] for facts in others.values() for times in facts.inference.values())
        report.ratios["inference/best"] = form.ratio_of_costs(ours.inference["like head"]["cpu"], best)


def main(arguments: list[str] | None = None) -> int:
    flags = form.parser("training", ABOUT)
    flags.add_argument("--rows", type=int, help=f"interactions to make (default {ROWS:,})")
    flags.add_argument("--threads", type=int, default=1, help="of every opponent (default: %(default)s)")
    flags.add_argument(
        "--envs", type=Path, help="folder for the opponents' environments (default: in the cache)"
    )
    flags.add_argument("--only", help=f"opponents with commas between, of {', '.join(MODULES)}")
    options = flags.parse_args(arguments)
    names = ["ours", "seed"] if options.quick else list(MODULES)
    if options.only:
        names = [name for name in MODULES if name == "ours" or name in options.only.split(",")]
        unknown = set(options.only.split(",")) - set(MODULES)
        if unknown:
            flags.error(f"--only knows {', '.join(MODULES)}; got {', '.join(sorted(unknown))}")
    users, items, rows = QUICK if options.quick else (USERS, ITEMS, ROWS)
    fewest = max(users, FEWEST)
    if options.rows is not None and not fewest <= options.rows <= users * items:
        flags.error(f"--rows must be from {fewest} to {users * items}, got {options.rows}")
    if options.threads < 1:
        flags.error(f"--threads must be 1 or more, got {options.threads}")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    envs = options.envs or cache / "widedeep" / "opponents"
    tell = (lambda line: print(line, file=sys.stderr)) if sys.stderr.isatty() else (lambda _line: None)
    with tempfile.TemporaryDirectory() as folder:
        shape = (users, items, options.rows or rows)
        return form.deliver(
            lambda: run(shape, names, envs.resolve(), options.threads, Path(folder), tell), options.out
        )


if __name__ == "__main__":
    sys.exit(main())
