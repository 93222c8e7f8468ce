"""What the item x item crosses of the wide side cost, by the size of the catalogue.

    python -m experiments.benchmarks.crosses [--quick] --out DIR

The crosses are fitted once, on made-up histories whose items are as unevenly popular as films, in a process of
their own for each size. Beside them is what a dense items x items matrix of float32 would take. With fewer users than
items an answer is a product with a (users, items) matrix: `product/matmul` compares it with PyTorch's, in turns.
"""

from __future__ import annotations

import functools
import sys
import time
from dataclasses import dataclass

import torch

from experiments.benchmarks import form
from widedeep.crossed import ITEM_LIMIT
from widedeep.histories import Histories
from widedeep.layout import product
from widedeep.wide import NEIGHBOURS, ItemWeights

ABOUT = "Fit the item x item crosses for catalogues of several sizes."
SIZES = (10_000, 100_000, 1_000_000)
QUICK_SIZES = (300, 1_000)
USERS, QUICK_USERS = 21_000, 500  # more than ITEM_LIMIT, or the product form is measured
FACTOR, QUICK_FACTOR = (6_000, 10_000), (200, 300)  # users, items of the product form
ROWS = (1, 2, 8, 32, 64)  # histories that are answered at once
LENGTH = 60  # entries of a history
SKEW = 3.0  # the place of a drawn item in the order of popularity is uniform ** SKEW of the catalogue
MEGABYTE = 2**20


@dataclass(frozen=True)
class Cost:
    """seconds  of CPU for the fit;  peak, stored  megabytes;  answer  CPU milliseconds for one history's scores"""

    items: int
    active: int
    seconds: float
    peak: float
    stored: float
    answer: float


def measure(items: int, users: int) -> Cost:
    """Fit once, score one history five times; in a fresh process, or the peak is not the fit's own."""
    generator = torch.Generator().manual_seed(0)
    drawn = (torch.rand(users, LENGTH, generator=generator) ** SKEW * items).long() + 1
    rows = torch.arange(users)[:, None].expand_as(drawn)
    pairs = torch.unique(torch.stack([rows, drawn], 2).reshape(-1, 2), dim=0)
    counts = torch.bincount(pairs[:, 0], minlength=users)
    nothing = torch.full((len(pairs),), float("nan"))
    histories = Histories(
        torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
        pairs[:, 1].int(),
        nothing,
        torch.ones(len(pairs), dtype=torch.bool),
    )
    before = form.peak()
    started = time.process_time()
    wide = ItemWeights.fit(histories, items + 1, 250.0)
    seconds = time.process_time() - started
    peak = form.peak() - before
    answers = []
    for row in range(form.REPEATS):
        one = histories.take(torch.tensor([row]))
        started = time.process_time()
        wide.scores(one)
        answers.append(time.process_time() - started)
    stored = sum(value.numel() * value.element_size() for value in wide.state_dict().values())
    return Cost(
        items, len(wide.items), seconds, peak, stored / MEGABYTE, 1000 * sorted(answers)[form.REPEATS // 2]
    )


def compare(report: form.Report, users: int, items: int) -> None:
    generator = torch.Generator().manual_seed(0)
    by_rows = torch.randn(users, items, generator=generator)
    by_columns = by_rows.T.contiguous().T
    for rows in ROWS:
        left = torch.randn(rows, users, generator=generator)
        times = form.interleave(
            [
                form.Case("product", functools.partial(product, left, by_columns)),
                form.Case("matmul", functools.partial(torch.matmul, left, by_rows)),
            ]
        )
        for name, time_ in times.items():
            report.add(f"{name}, {rows} x {users:,} x {items:,}", "time", 1000 * time_.wall_median, "ms")
        found = form.ratio_of_costs(times["product"].wall_median, times["matmul"].wall_median)
        report.ratios[f"product/matmul, {rows} rows"] = found


def run(sizes: tuple[int, ...], users: int, factor: tuple[int, int]) -> form.Report:
    report = form.Report(
        "Item x item crosses",
        f"{users:,} made-up histories of about {LENGTH} entries. Up to {ITEM_LIMIT:,} items all crosses are kept; "
        f"above, {NEIGHBOURS} for each of the {ITEM_LIMIT:,} most frequent items.",
    )
    for items in sizes:
        cost: Cost = form.apart(measure, items, users)
        name = f"{items:,} items"
        dense = items**2 * 4 / MEGABYTE
        report.add(name, "items with crosses", cost.active, "")
        report.add(name, "fit", cost.seconds, "CPU s")
        report.add(name, "memory of the fit", cost.peak, "MB at most")
        report.add(name, "stored", cost.stored, "MB")
        report.add(name, "dense matrix", dense, "MB")
        report.add(name, "one history's scores", cost.answer, "CPU ms")
        report.ratios[f"stored/dense matrix, {name}"] = form.ratio_of_costs(cost.stored, dense)
    with torch.inference_mode():
        compare(report, *factor)
    return report


def main(arguments: list[str] | None = None) -> int:
    options = form.parser("crosses", ABOUT).parse_args(arguments)
    made = (QUICK_SIZES, QUICK_USERS, QUICK_FACTOR) if options.quick else (SIZES, USERS, FACTOR)
    return form.deliver(lambda: run(*made), options.out)


if __name__ == "__main__":
    sys.exit(main())
