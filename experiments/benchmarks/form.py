"""The form that every benchmark has: its flags, how it measures, and the two files that it leaves.

    python -m experiments.benchmarks.NAME [--quick] --out DIR

A benchmark builds Case objects, measures them with `interleave`, and hands a Report to `write`: `report.md`
for people, `results.json` for programs:

    {"rows": [{"name": "ours", "metric": "load", "value": 1.9, "unit": "CPU s"}], "ratios": {"ours/pandas": 1.2}}

A ratio says how much better the first is than the second in the same run: above 1 it is the better one.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from experiments.benchmarks import memory
from widedeep.errors import ConfigError, WideDeepError

REPEATS = 5  # a median of fewer says little

PACKAGES = (
    "widedeep",
    "torch",
    "numpy",
    "pandas",
    "pyarrow",
    "mlflow",
    "optuna",
    "grpcio",
    "protobuf",
)


@dataclass(frozen=True)
class Case:
    """One opponent: `run` is timed, `prepare` before each run is not."""

    name: str
    run: Callable[[], object]
    prepare: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Timing:
    """Every run of one case, in seconds: on the clock, and of this process's CPU in all threads."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]

    @property
    def wall_median(self) -> float:
        return statistics.median(self.wall)

    @property
    def cpu_median(self) -> float:
        return statistics.median(self.cpu)


@dataclass(frozen=True)
class Row:
    """One figure: whose, of what, in which unit."""

    name: str
    metric: str
    value: float
    unit: str


@dataclass
class Report:
    """What a benchmark found. `ratios` maps "first/second" to a number above 1 where the first is better.

    tables  Markdown that says the figures in another way, for people alone
    """

    title: str
    about: str
    rows: list[Row] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)

    def add(self, name: str, metric: str, value: float, unit: str) -> None:
        self.rows.append(Row(name, metric, float(value), unit))


def parser(module: str, about: str) -> argparse.ArgumentParser:
    """The flags that every benchmark has; a benchmark may add its own."""
    flags = argparse.ArgumentParser(
        prog=f"python -m experiments.benchmarks.{module}", description=about, allow_abbrev=False
    )
    flags.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for report.md and results.json"
    )
    flags.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    return flags


def interleave(
    cases: Sequence[Case], repeats: int = REPEATS, progress: Callable[[str], None] | None = None
) -> dict[str, Timing]:
    """Run the cases in turns, each round beginning with another, so that a busy machine hits all alike.

    One run of each goes before and does not count.
    Raises  ValueError: fewer than five repeats, or two cases of one name
    """
    if repeats < REPEATS:
        raise ValueError(f"a median needs at least {REPEATS} runs, got {repeats}")
    if len({case.name for case in cases}) != len(cases):
        raise ValueError("two cases have the same name")
    wall: dict[str, list[float]] = {case.name: [] for case in cases}
    cpu: dict[str, list[float]] = {case.name: [] for case in cases}
    for round_ in range(repeats + 1):
        turn = round_ % len(cases)
        for case in (*cases[turn:], *cases[:turn]):
            if progress:
                progress(f"round {round_} of {repeats}: {case.name}")
            case.prepare()
            wall_start, cpu_start = time.perf_counter(), time.process_time()
            result = case.run()
            cpu_end, wall_end = time.process_time(), time.perf_counter()
            del result  # freed outside the timed part, before the next case wants its memory
            if round_:
                wall[case.name].append(wall_end - wall_start)
                cpu[case.name].append(cpu_end - cpu_start)
    return {case.name: Timing(tuple(wall[case.name]), tuple(cpu[case.name])) for case in cases}


def apart(call: Callable[..., Any], *arguments: object) -> Any:
    """`call` in a fresh process, whose `peak` is then its own; what it takes and gives is pickled on the way."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(call, arguments)


def here(call: Callable[..., Any], *arguments: object) -> Any:
    """In this process: quicker, and what it says of memory is nothing."""
    return call(*arguments)


def peak() -> float:
    """Megabytes that this process has held at most."""
    return memory.peak() / 2**20


def ratio_of_costs(ours: float, theirs: float) -> float:
    """How many times less `ours` is than `theirs`, for times, memory and sizes."""
    return theirs / ours


def ratio_of_gains(ours: float, theirs: float) -> float:
    """How many times more `ours` is than `theirs`, for rates and quality."""
    return ours / theirs


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    facts = {
        "processor": _processor(),
        "cores": f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} usable",
        "memory": _memory(),
        "system": platform.platform(),
        "load": ", ".join(f"{value:.2f}" for value in os.getloadavg()) + " (1, 5, 15 minutes)",
    }
    torch = sys.modules.get("torch")  # asked only where the benchmark uses it: importing it takes seconds
    if torch is not None and torch.cuda.is_available():
        facts["GPU"] = ", ".join(torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count()))
    return facts


def versions() -> dict[str, str]:
    """Python, and the packages of ours that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def write(report: Report, folder: Path) -> Path:
    """Leave report.md and results.json in `folder`; returns the report's path.

    Raises  ConfigError: the folder cannot be written to
    """
    results = {"rows": [vars(row) for row in report.rows], "ratios": report.ratios}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "results.json").write_text(json.dumps(results, indent=2, allow_nan=False) + "\n")
        path = folder / "report.md"
        path.write_text(markdown(report))
    except OSError as error:
        raise ConfigError(f"--out {folder} cannot be written to: {error.strerror or error}.") from error
    return path


def deliver(make: Callable[[], Report], folder: Path) -> int:
    """Make the report, `write` and print it; the exit status: 0, or 1 after an error that is explained."""
    try:
        path = write(make(), folder)
    except WideDeepError as error:
        print(error, file=sys.stderr)
        return 1
    print(path.read_text())
    print(f"Written to {path} and {path.with_name('results.json')}")
    return 0


def markdown(report: Report) -> str:
    """The report as people read it: figures, ratios, notes, machine, versions."""
    parts = [f"# {report.title}", report.about]
    rows = [[row.name, row.metric, number(row.value), row.unit] for row in report.rows]
    parts.append(table(["name", "metric", "value", "unit"], rows))
    if report.ratios:
        parts.append("A ratio above 1 means that the first is better.")
        parts.append(
            table(["ratio", "value"], [[name, number(value)] for name, value in report.ratios.items()])
        )
    parts += report.tables
    if report.notes:
        parts.append("\n".join(f"- {note}" for note in report.notes))
    parts += ["## Machine", table(["", ""], [list(fact) for fact in machine().items()])]
    parts += ["## Versions", table(["", ""], [list(fact) for fact in versions().items()])]
    parts.append(f"Measured {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.")
    return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def number(value: float) -> str:
    """Four significant digits, and no exponent that a person must undo."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    except (ValueError, OSError):
        return "unknown"
