"""What variety costs: NDCG against the diversity of genres within a list, for diversity from 0 to 1.

    python -m experiments.benchmarks.diversity [--quick] --out DIR [--dataset ml-latest-small --data-dir DIR]

Maximal marginal relevance, as the server does it, beside the cheapest way to more variety: each place goes with
some probability to any item of the same pool. A figure of both curves goes to diversity.png.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from experiments.benchmarks import form, trained
from experiments.figures.style import COLOURS, DPI, MARKERS
from widedeep import bootstrap, datasets, metrics
from widedeep.config import Config
from widedeep.errors import WideDeepError
from widedeep.interactions import Interactions
from widedeep.queries import Query
from widedeep.rankings import Targets, user_keys
from widedeep.recommender import Recommender
from widedeep.rerank import pool_size
from widedeep.split import split

ABOUT = "NDCG@10 against the diversity of genres within the list, for diversity from 0 to 1."
SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
K = 10
SAMPLES = 1000  # of the bootstrap


@dataclass(frozen=True)
class Point:
    """One setting of one way: NDCG@10 with its interval, and the mean diversity of genres of the first 10."""

    name: str
    share: float
    ndcg: bootstrap.Interval
    diversity: bootstrap.Interval


def curve(
    recommender: Recommender, test: Interactions, shares: Sequence[float] = SHARES, seed: int = 0
) -> list[Point]:
    """The points of both ways, over the users with a like in the test part. At 0 both are the ranking itself."""
    encoded = recommender.processor.encode(test)
    keys, ids = user_keys(test.user_id)
    targets = Targets.of(encoded, keys)
    asked = (targets.relevant_count > 0).nonzero().squeeze(1)
    queries = [Query(user_id=ids[key], k=K) for key in targets.key[asked].tolist()]
    pool = _lists(
        recommender, [replace(query, k=pool_size(replace(query, diversity=1))) for query in queries]
    )
    generator = torch.Generator().manual_seed(seed)
    points = []
    for share in shares:
        varied = _lists(recommender, [replace(query, diversity=share) for query in queries])
        points.append(_point("widedeep", share, varied, asked, targets, recommender))
        points.append(
            _point("random places", share, _shuffled(pool, share, generator), asked, targets, recommender)
        )
    return points


def _lists(recommender: Recommender, queries: list[Query]) -> Tensor:
    """(queries, k) item_index, 0 where a list ends."""
    lists = torch.zeros(len(queries), max(query.k for query in queries), dtype=torch.int64)
    for row, ranking in enumerate(recommender.rank(queries)):
        found = recommender.processor.items.index_of(ranking.item_ids)
        lists[row, : len(found)] = torch.from_numpy(found)
    return lists


def _shuffled(pool: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """(users, K): each place with probability `share` any item of the pool, else the next of the ranking."""
    order = torch.arange(pool.shape[1], dtype=torch.float64).repeat(len(pool), 1)
    lucky = torch.rand(order.shape, generator=generator) < share
    anywhere = torch.rand(order.shape, generator=generator, dtype=torch.float64) * pool.shape[1]
    order = torch.where(lucky, anywhere, order).masked_fill(pool == 0, torch.inf)
    return pool.gather(1, order.argsort(dim=1, stable=True)[:, :K])


def _point(
    name: str, share: float, lists: Tensor, asked: Tensor, targets: Targets, recommender: Recommender
) -> Point:
    width = recommender.processor.item_count
    relevant = targets.row * width + targets.item
    hits = torch.isin(lists + asked[:, None] * width, relevant) & (lists > 0)
    ndcg = metrics.ndcg_at_k(hits, targets.relevant_count[asked], K).numpy()
    diversity = metrics.diversity_at_k(lists, recommender.processor.item_table.genres, K).numpy()
    known = ~np.isnan(diversity)
    found = bootstrap.ratio_intervals(
        np.stack([ndcg, np.nan_to_num(diversity)], 1),
        np.stack([np.ones(len(ndcg)), known.astype(float)], 1),
        samples=SAMPLES,
        seed=0,
    )
    return Point(name, share, *found)


def figure(points: Sequence[Point], about: str) -> Figure:
    """NDCG over diversity, a line for each way, its settings at the marks."""
    drawn = Figure(figsize=(7, 4.6), dpi=DPI, layout="constrained")
    axis = drawn.subplots()
    for number, name in enumerate(dict.fromkeys(point.name for point in points)):
        line = [point for point in points if point.name == name]
        across, up = [point.diversity.value for point in line], [point.ndcg.value for point in line]
        low, high = [point.ndcg.low for point in line], [point.ndcg.high for point in line]
        axis.plot(across, up, marker=MARKERS[number], color=COLOURS[number], label=name)
        axis.fill_between(across, low, high, color=COLOURS[number], alpha=0.12, linewidth=0)
        if number == 0:
            for point in line:
                axis.annotate(
                    f"{point.share:g}",
                    (point.diversity.value, point.ndcg.value),
                    (5, 5),
                    textcoords="offset points",
                    fontsize=8,
                )
    axis.set_xlabel("Mean Jaccard distance of genres within the first 10")
    axis.set_ylabel("NDCG@10, with 95% interval")
    axis.set_ylim(bottom=0)
    axis.grid(True, color="#DDDDDD", linewidth=0.7)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    axis.set_title(about, fontsize=10, loc="left")
    return drawn


def run(config: Config) -> tuple[form.Report, Figure]:
    dataset = datasets.load(config.data)
    parts = split(dataset.interactions, config.data)
    points = curve(trained.train(config, dataset, parts), parts.test)
    report = form.Report(
        "What variety costs",
        f"{dataset.name}, split {parts.description}. Lists of {K} out of the best {pool_size(Query(diversity=1))}, "
        "mean over the users with a like in the test part.",
    )
    start = points[0]
    for point in points:
        name = f"{point.name}, {point.share:g}"
        report.add(name, "NDCG@10", point.ndcg.value, "")
        report.add(name, "NDCG@10, low", point.ndcg.low, "")
        report.add(name, "NDCG@10, high", point.ndcg.high, "")
        report.add(name, "diversity@10", point.diversity.value, "mean Jaccard distance of genres")
    for point in points[2:]:
        if point.name == start.name and start.ndcg.value and start.diversity.value:
            ndcg = form.ratio_of_gains(point.ndcg.value, start.ndcg.value)
            variety = form.ratio_of_gains(point.diversity.value, start.diversity.value)
            report.ratios[f"NDCG@10 at {point.share:g}/at 0"] = ndcg
            report.ratios[f"diversity@10 at {point.share:g}/at 0"] = variety
    report.notes.append("Intervals are 95%, by bootstrap over users.")
    report.notes.extend(dataset.notes)
    return report, figure(points, f"{dataset.name}, split {config.data.split}")


def main(arguments: list[str] | None = None) -> int:
    flags = form.parser("diversity", ABOUT)
    trained.add_flags(flags)
    options = flags.parse_args(arguments)
    try:
        report, drawn = run(trained.configuration(options))
        path: Path = form.write(report, options.out)
        drawn.savefig(path.with_name("diversity.png"))
    except WideDeepError as error:
        print(error, file=sys.stderr)
        return 1
    print(path.read_text())
    print(f"Written to {path}, {path.with_name('results.json')} and {path.with_name('diversity.png')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
