"""Loading a MovieLens file, beside what one writes with plain pandas.

    python -m experiments.benchmarks.loading [--quick] --out DIR [--rows 10000000]

Ours is the whole of `datasets.load`: parsing, checking every row, looking for duplicates, the items, the digest.
The opponents only parse, and once parse and check as much. The data is made up, in the layouts of ml-10m
(`1::122::5::838985046`) and of the CSV releases.

"text to training-ready" goes on: split, vocabularies, features, indices and histories, parsing the text or with
the columns out of the cache, beside the same written with pandas; with the peak memory of a process that does
nothing else. See ready.py.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from experiments.benchmarks import form, ready
from widedeep import datasets
from widedeep.config import DataConfig
from widedeep.datasets import cache, synthetic
from widedeep.interactions import Interactions

ABOUT = "Load a MovieLens ratings file into checked columns, beside plain pandas."
ROWS, QUICK_ROWS = 10_000_000, 200_000
COLUMNS = ["user_id", "item_id", "rating", "timestamp"]


def write_files(rows: int, folder: Path) -> None:
    """ml-10M100K/ratings.dat and ml-25m/ratings.csv with the same made-up ratings, in ML-10M's proportions."""
    users, items = max(2, rows * 69_878 // 10_000_000), max(1000, min(10_677, rows // 50))
    interactions, frame, _, _ = synthetic.generate(users, items, rows, seed=0)
    for name, header, separator, end in (
        ("ml-10M100K/ratings.dat", "", "::", "\n"),
        ("ml-25m/ratings.csv", "userId,movieId,rating,timestamp\r\n", ",", "\r\n"),
    ):
        path = folder / name
        path.parent.mkdir(parents=True)
        with path.open("w", newline="") as stream:
            stream.write(header)
            for start in range(0, rows, 500_000):
                stream.write(
                    _lines(interactions.take(np.arange(start, min(rows, start + 500_000))), separator, end)
                )
    titles = zip(frame["item_id"], frame["title"], frame["genres"], strict=True)
    lines = ["::".join(map(str, row)) for row in titles]
    (folder / "ml-10M100K/movies.dat").write_text("\n".join(lines) + "\n")
    frame[["item_id", "title", "genres"]].rename(columns={"item_id": "movieId"}).to_csv(
        folder / "ml-25m/movies.csv", index=False
    )


def _lines(rows: Interactions, separator: str, end: str) -> str:
    assert rows.rating is not None
    assert rows.timestamp is not None
    rating = pc.cast(pa.array(rows.rating), pa.string())
    columns = [
        pc.cast(pa.array(column), pa.string()) for column in (rows.user_id, rows.item_id, rows.timestamp)
    ]
    joined = pc.binary_join_element_wise(columns[0], columns[1], rating, columns[2], separator)
    return end.join(joined.to_pylist()) + end


def ours(dataset: str, folder: Path) -> datasets.Dataset:
    os.environ["WIDEDEEP_NO_CACHE"] = "1"
    return datasets.load(DataConfig(dataset=dataset, data_dir=str(folder)))


def checked(frame: pd.DataFrame) -> pd.DataFrame:
    """What our loader checks of every row, as one writes it with pandas."""
    user, item, rating, timestamp = frame.columns
    assert frame[rating].notna().all()
    assert frame[timestamp].between(0, 4_102_444_800).all()
    assert not frame.duplicated([user, item]).any()
    return frame


def run(rows: int, folder: Path, progress: bool) -> form.Report:
    report = form.Report(
        "Loading ratings",
        f"{rows:,} made-up ratings as text in the page cache; medians of {form.REPEATS} runs in turns. Ours parses, "
        "checks every row, finds duplicates, reads the items and takes the digest.",
    )
    write_files(rows, folder)
    dat, csv = folder / "ml-10M100K/ratings.dat", folder / "ml-25m/ratings.csv"
    tell = (lambda line: print(line, file=sys.stderr)) if progress else None
    colons = {
        "ours": lambda: ours("ml-10m", folder),
        "pandas": lambda: pd.read_csv(dat, sep="::", engine="python", header=None, names=COLUMNS),
        "pandas-c": lambda: pd.read_csv(dat, sep=":", header=None, usecols=[0, 2, 4, 6]),
        "pandas-c-checked": lambda: checked(pd.read_csv(dat, sep=":", header=None, usecols=[0, 2, 4, 6])),
    }
    commas = {
        "ours": lambda: ours("ml-25m", folder),
        "pandas": lambda: pd.read_csv(csv),
        "pandas-checked": lambda: checked(pd.read_csv(csv)),
    }
    for layout, runs in (("dat", colons), ("csv", commas)):
        timings = form.interleave([form.Case(name, call) for name, call in runs.items()], progress=tell)
        for name, timing in timings.items():
            report.add(name, f"load .{layout}", timing.cpu_median, "CPU s")
            report.add(name, f"load .{layout}", timing.wall_median, "s")
            report.add(name, f"load .{layout}", rows / timing.cpu_median, "rows per CPU s")
            if name != "ours":
                ratio = form.ratio_of_costs(timings["ours"].cpu_median, timing.cpu_median)
                report.ratios[f"ours/{name} .{layout}"] = ratio
    to_training(report, rows, folder, tell)
    report.notes.append(
        "pandas with sep='::' uses its Python engine; -c reads every second column at sep=':'."
    )
    report.notes.append("-checked also looks for missing ratings, absurd times and duplicates, as ours does.")
    report.notes.append("Ratios are of CPU seconds.")
    return report


def to_training(report: form.Report, rows: int, folder: Path, tell: Callable[[str], None] | None) -> None:
    """Add what it costs to come from the text, or from the cached columns, to what training takes."""
    cases = [form.Case(name, lambda way=way: way(folder)) for name, way in ready.WAYS.items()]  # type: ignore[misc]
    timings = form.interleave(cases, progress=tell)
    for name, timing in timings.items():
        metric = f"{'cached' if name == 'ours-cached' else 'text'} to training-ready"
        report.add(name, metric, timing.cpu_median, "CPU s")
        report.add(name, metric, timing.wall_median, "s")
        before, peak = ready.peak_memory(name, folder)
        report.add(name, metric, peak / 1e9, "GB at the peak")
        report.add(name, metric, (peak - before) / rows, "bytes a row at the peak")
    theirs = timings["pandas"].cpu_median
    for name in ("ours", "ours-cached"):
        report.ratios[f"{name}/pandas to training-ready"] = form.ratio_of_costs(
            timings[name].cpu_median, theirs
        )
    if (folder / ready.RATINGS).stat().st_size < cache.SMALLEST:
        report.notes.append(
            f"Files below {cache.SMALLEST / 1e6:g} MB are not cached: ours-cached parsed here, too."
        )


def main(arguments: list[str] | None = None) -> int:
    flags = form.parser("loading", ABOUT)
    flags.add_argument("--rows", type=int, default=None, help=f"ratings to load (default {ROWS:,})")
    options = flags.parse_args(arguments)
    rows = options.rows or (QUICK_ROWS if options.quick else ROWS)
    if rows < 1000:
        flags.error(f"--rows must be 1000 or more, got {rows}")
    environment = dict(os.environ)
    try:
        with tempfile.TemporaryDirectory() as folder:
            return form.deliver(lambda: run(rows, Path(folder), sys.stderr.isatty()), options.out)
    finally:
        os.environ.clear()
        os.environ.update(environment)


if __name__ == "__main__":
    sys.exit(main())
