"""How time and memory grow with the interactions, stage by stage, and what the crosses cost by items.

    python -m experiments.benchmarks.growth [--quick] --out DIR [--largest]

Made-up data with a user for every 140 interactions and a fixed number of items, so that interactions alone grow. Each
stage of each size runs once, in a process of its own. The slope is that of the logarithms: 1 is linear. What crosses of
very many items cost is in `experiments.benchmarks.crosses`.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from experiments.benchmarks import form
from widedeep import datasets
from widedeep.baselines import EASE
from widedeep.closed_form import ClosedForm, CrossSettings
from widedeep.config import Config, DataConfig, TrainConfig
from widedeep.datasets import synthetic
from widedeep.evaluation import evaluate
from widedeep.factors import FactorSettings, ItemFactors
from widedeep.features import FeatureProcessor
from widedeep.histories import Encoded, Histories
from widedeep.split import split
from widedeep.training import Chosen, Step, fit
from widedeep.wide import ItemWeights

ABOUT = "Time and memory of each stage by the number of interactions."
SIZES, LARGEST, QUICK_SIZES = (100_000, 1_000_000, 10_000_000), 100_000_000, (4_000, 16_000)
ITEMS, QUICK_ITEMS = 2_000, 200
BY_ITEMS, QUICK_BY_ITEMS = (1_250, 2_500, 5_000, 10_000), (200, 400)
BY_ITEMS_INTERACTIONS, QUICK_BY_ITEMS_INTERACTIONS = 1_000_000, 4_000
PER_USER = 140  # interactions
STEPS = 200  # of an epoch that are measured, where it has more
L2 = 250.0
ENCODE, CROSSES = "split, encode, histories", "crosses"
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Cost:
    """seconds  of CPU;  peak  megabytes above those of a process that has only imported the code"""

    seconds: float
    peak: float


def make(folder: Path, interactions: int, items: int) -> None:
    """ratings.parquet, in the order of users and items."""
    users = max(20, interactions // PER_USER)
    rows, _, _, _ = synthetic.generate(users, items, interactions, seed=0)
    frame = pd.DataFrame(
        {name: getattr(rows, name) for name in ("user_id", "item_id", "rating", "timestamp")}
    )
    frame.to_parquet(folder / "ratings.parquet", index=False)


def load(folder: Path) -> datasets.Dataset:
    return datasets.load(DataConfig(dataset="files", ratings=str(folder / "ratings.parquet")))


def encode(dataset: datasets.Dataset) -> tuple[FeatureProcessor, Encoded, Histories, Encoded]:
    """Split by user and time; the processor, the training rows, their histories and the test rows."""
    config = DataConfig()
    parts = split(dataset.interactions, config)
    processor = FeatureProcessor.fit(parts.train, dataset.items, dataset.users, config.like_threshold)
    train, test = processor.encode(parts.train), processor.encode(parts.test)
    return processor, train, Histories.from_encoded(train, processor.user_count), test


def stage_load(folder: Path) -> float:
    return _seconds(lambda: load(folder))


def stage_encode(folder: Path) -> float:
    """Leaves what the later stages read."""
    dataset = load(folder)
    started = time.process_time()
    processor, _, histories, test = encode(dataset)
    seconds = time.process_time() - started
    counts = {
        "item_count": torch.tensor(processor.item_count),
        "warm_count": torch.tensor(processor.warm_count),
    }
    torch.save(vars(histories), folder / "histories.pt")
    torch.save({**vars(test), **counts}, folder / "test.pt")
    return seconds


def stage_crosses(folder: Path) -> float:
    histories, _, item_count, _ = _encoded(folder)
    return _seconds(lambda: ItemWeights.fit(histories.only_liked(), item_count, L2))


def stage_factors(folder: Path) -> float:
    histories, _, item_count, _ = _encoded(folder)
    return _seconds(lambda: ItemFactors.fit(histories.only_liked(), item_count, FactorSettings(epochs=1)))


def stage_evaluation(folder: Path) -> float:
    """All users' lists by the crosses, which are fitted before."""
    histories, test, item_count, warm_count = _encoded(folder)
    ranker = EASE(L2).fit(histories, item_count)
    return _seconds(
        lambda: evaluate(
            ranker,
            train=histories,
            test=test,
            test_users=test.user_index.long(),
            item_count=item_count,
            warm_count=warm_count,
            bootstrap=100,
        )
    )


STAGES: dict[str, Callable[[Path], float]] = {
    "load Parquet, checked": stage_load,
    ENCODE: stage_encode,
    CROSSES: stage_crosses,
    "low-rank vectors, one pass": stage_factors,
    "ranking head, one epoch": lambda folder: _epoch(folder, "ranking")[1],
    "like head, set-up": lambda folder: _epoch(folder, "like")[0],
    "like head, one epoch": lambda folder: _epoch(folder, "like")[1],
    "evaluation of all users": stage_evaluation,
}


class _EnoughError(Exception):
    """Ends a training that has been measured."""


def _epoch(folder: Path, head: str) -> tuple[float, float]:
    """CPU seconds until the head's first step is done, and of an epoch: of its first STEPS steps, as for all."""
    dataset = load(folder)
    processor, train, _, _ = encode(dataset)
    batch = 4 if len(train) < 50_000 else 128
    config = Config(train=TrainConfig(device="cpu", user_batch_size=batch))
    closed_form = ClosedForm(True, CrossSettings(L2), 0.0, None)
    chosen = Chosen(int(head == "ranking"), int(head == "like"), 0.5, 0.0, closed_form)
    times: list[float] = []
    steps = 0

    def tell(step: Step) -> None:
        nonlocal steps
        if step.head == "wide" and step.epoch == 1:
            times.append(time.process_time())
        elif step.head == head and not step.metrics:
            steps = step.total
            times.append(time.process_time())
            if step.done == min(STEPS, step.total):
                raise _EnoughError

    try:
        fit(config, processor, train, chosen=chosen, progress=tell)
    except _EnoughError:
        ready, first, *rest = times
        step = (rest[-1] - first) / len(rest)
        return max(first - ready - step, 0.0), step * steps
    raise RuntimeError(f"the {head} head was not trained")


def _encoded(folder: Path) -> tuple[Histories, Encoded, int, int]:
    histories = Histories(**torch.load(folder / "histories.pt", weights_only=True))
    test = torch.load(folder / "test.pt", weights_only=True)
    item_count, warm_count = int(test.pop("item_count")), int(test.pop("warm_count"))
    return histories, Encoded(**test), item_count, warm_count


def _seconds(call: Callable[[], object]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def measure(stage: str, folder: Path) -> Cost:
    """In a fresh process, or the peak is not the stage's own."""
    before = form.peak()
    seconds = STAGES[stage](folder)
    return Cost(seconds, form.peak() - before)


def slope(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Of log value over log size, by least squares; values below a hundredth count as one."""
    return float(np.polyfit(np.log(sizes), np.log(np.maximum(values, 0.01)), 1)[0])


def grow(sizes: Sequence[int], items: int, call: Callable[..., Any], tell: Tell) -> dict[str, list[Cost]]:
    """The costs of each stage, by size."""
    costs: dict[str, list[Cost]] = {stage: [] for stage in STAGES}
    for interactions in sizes:
        with tempfile.TemporaryDirectory() as name:
            call(make, Path(name), interactions, items)
            for stage, found in costs.items():
                found.append(cost := call(measure, stage, Path(name)))
                tell(f"{interactions:,} interactions, {stage}: {cost.seconds:.2f} CPU s, {cost.peak:.0f} MB")
    return costs


def crosses_by_items(
    sizes: Sequence[int], interactions: int, call: Callable[..., Any], tell: Tell
) -> list[Cost]:
    found = []
    for items in sizes:
        with tempfile.TemporaryDirectory() as name:
            call(make, Path(name), interactions, items)
            call(measure, ENCODE, Path(name))
            found.append(cost := call(measure, CROSSES, Path(name)))
            tell(f"{items:,} items, crosses: {cost.seconds:.2f} CPU s, {cost.peak:.0f} MB")
    return found


def run(quick: bool, largest: bool, tell: Tell) -> form.Report:
    sizes = QUICK_SIZES if quick else (*SIZES, LARGEST) if largest else SIZES
    items, call = (QUICK_ITEMS, form.here) if quick else (ITEMS, form.apart)
    report = form.Report(
        "Growth",
        f"Made-up interactions of {items:,} items, a user for every {PER_USER}; {torch.get_num_threads()} threads. "
        f"Each stage once, {'all in one process' if quick else 'in a process of its own'}: CPU seconds, and megabytes "
        "above a process that has imported the code. The slope over all sizes, and over the last two, which fixed "
        "costs weigh on least; 1 is linear.",
    )
    costs = grow(sizes, items, call, tell)
    report.tables.append(_table("interactions", sizes, costs))
    for stage, found in costs.items():
        for interactions, cost in zip(sizes, found, strict=True):
            report.add(f"{stage}, {interactions:,}", "time", cost.seconds, "CPU s")
            report.add(f"{stage}, {interactions:,}", "memory", cost.peak, "MB at most")
        report.add(stage, "last slope of time", slope(sizes[-2:], [cost.seconds for cost in found[-2:]]), "")
    by_items = QUICK_BY_ITEMS if quick else BY_ITEMS
    interactions = QUICK_BY_ITEMS_INTERACTIONS if quick else BY_ITEMS_INTERACTIONS
    crosses = crosses_by_items(by_items, interactions, call, tell)
    report.tables.append(_table("items", by_items, {f"crosses, {interactions:,} interactions": crosses}))
    seconds = [cost.seconds for cost in crosses[-2:]]
    report.add("crosses by items", "last slope of time", slope(by_items[-2:], seconds), "")
    report.notes.append(f"An epoch is the time of its first {STEPS} steps, taken for all of its steps.")
    report.notes.append(
        "Crosses take entries x items additions for the counts and items³ for the inverse, up to the limit of items in "
        "widedeep/crossed.py; with fewer users than items, users² x items for the product form instead. "
        "experiments.benchmarks.crosses has larger catalogues."
    )
    report.notes.append("The heads' memory includes loading, splitting and encoding.")
    return report


def _table(name: str, sizes: Sequence[int], costs: dict[str, list[Cost]]) -> str:
    head = [
        "stage",
        *(f"{size:,} {name}" for size in sizes),
        "slope of time",
        "last",
        "slope of memory",
        "last",
    ]
    rows = []
    for stage, found in costs.items():
        slopes = []
        for values in ([cost.seconds for cost in found], [cost.peak for cost in found]):
            slopes += [slope(sizes, values), slope(sizes[-2:], values[-2:])]
        cells = [f"{form.number(cost.seconds)} s, {form.number(cost.peak)} MB" for cost in found]
        rows.append([stage, *cells, *(f"{value:.2f}" for value in slopes)])
    return form.table(head, rows)


def main(arguments: list[str] | None = None) -> int:
    flags = form.parser("growth", ABOUT)
    flags.add_argument("--largest", action="store_true", help=f"{LARGEST:,} interactions as well")
    options = flags.parse_args(arguments)

    def tell(line: str) -> None:
        if sys.stderr.isatty():
            print(line, file=sys.stderr)

    return form.deliver(lambda: run(options.quick, options.largest, tell), options.out)


if __name__ == "__main__":
    sys.exit(main())
