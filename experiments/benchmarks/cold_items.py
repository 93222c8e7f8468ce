"""Items without interactions: how well they are ranked by their features, beside chance and the newest first.

    python -m experiments.benchmarks.cold_items [--quick] --out DIR [--dataset ml-latest-small --data-dir DIR]

A tenth of the items is withheld: no row of theirs trains. Then, for each user who liked one of them, the withheld
items alone are ranked.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from experiments.benchmarks import form, trained
from widedeep import bootstrap, datasets, metrics
from widedeep.checks import MAX_K
from widedeep.config import Config
from widedeep.errors import EmptyDataError
from widedeep.queries import Query
from widedeep.recommender import Recommender
from widedeep.split import split

ABOUT = "Rank items without interactions by their features, beside chance."
WITHHELD = 0.1  # of the items
SAMPLES = 1000  # of the bootstrap


def positions(recommender: Recommender, users: Sequence[object], candidates: Sequence[object]) -> Tensor:
    """(users, candidates) the place, from 0, of each candidate in each user's ranking of them all."""
    queries = [
        Query(user_id=user, k=len(candidates), candidates=candidates, exclude_seen=False) for user in users
    ]
    column = {item: number for number, item in enumerate(candidates)}
    places = torch.zeros(len(users), len(candidates), dtype=torch.int64)
    for row, ranking in enumerate(recommender.rank(queries)):
        order = torch.tensor([column[item] for item in ranking.item_ids])
        places[row, order] = torch.arange(len(order))
    return places


def quality(places: Tensor, liked: Tensor) -> np.ndarray:
    """(users, 2): NDCG@10, and how often a liked item stands above one that is not.

    places  (users, candidates) from 0      liked  (users, candidates) bool
    """
    hits = torch.zeros_like(liked).scatter_(1, places, liked)
    likes = liked.sum(1)
    ndcg = metrics.ndcg_at_k(hits, likes, 10)
    ahead = (~hits).cumsum(1) * hits  # others in front of each liked one
    above = 1 - ahead.sum(1).double() / (likes * (liked.shape[1] - likes)).clamp(min=1)
    return torch.stack([ndcg, above], 1).numpy()


def run(config: Config, seed: int = 0) -> form.Report:
    """Raises  EmptyDataError: nobody liked a withheld item"""
    dataset = datasets.load(config.data)
    rows = dataset.interactions
    generator = np.random.default_rng(seed)
    items = np.intersect1d(np.unique(rows.item_id), dataset.items["item_id"].to_numpy())
    count = min(MAX_K, max(1, int(WITHHELD * len(items))))
    withheld = np.sort(generator.choice(items, count, replace=False))
    recommender = trained.train(
        config,
        dataset,
        split(rows, config.data),
        keep=lambda part: part.take(~np.isin(part.item_id, withheld)),
    )
    known = recommender.processor.users.index_of(rows.user_id) > 0
    wanted = rows.take(
        known & np.isin(rows.item_id, withheld) & rows.liked(recommender.processor.like_threshold)
    )
    if not len(wanted):
        raise EmptyDataError(f"No user liked any of the {count} withheld items. Take a larger data set.")
    users, row = np.unique(wanted.user_id, return_inverse=True)
    liked = torch.zeros(len(users), count, dtype=torch.bool)
    liked[torch.from_numpy(row), torch.from_numpy(np.searchsorted(withheld, wanted.item_id))] = True
    years = torch.tensor(recommender.item_years(withheld.tolist()))
    rankings = {
        "widedeep": positions(recommender, users.tolist(), withheld.tolist()),
        "newest first": years.argsort(descending=True, stable=True).argsort().expand(len(users), -1),
        "random": torch.from_numpy(generator.permuted(np.tile(np.arange(count), (len(users), 1)), axis=1)),
    }
    report = form.Report(
        "Items without interactions",
        f"{dataset.name}: {count} items withheld from the training, ranked for each of the {len(users)} users "
        f"who liked one ({len(wanted)} likes).",
    )
    found = {name: quality(places, liked) for name, places in rankings.items()}
    for name, values in found.items():
        intervals = bootstrap.ratio_intervals(values, np.ones_like(values), samples=SAMPLES, seed=0)
        for metric, interval in zip(("NDCG@10", "liked above others"), intervals, strict=True):
            report.add(name, metric, interval.value, "")
            report.add(name, f"{metric}, low", interval.low, "")
            report.add(name, f"{metric}, high", interval.high, "")
        if name != "widedeep" and values[:, 0].mean() > 0:
            ours, theirs = float(found["widedeep"][:, 0].mean()), float(values[:, 0].mean())
            report.ratios[f"widedeep/{name} NDCG@10"] = form.ratio_of_gains(ours, theirs)
    report.notes.append(
        "'liked above others' is one half by chance. Intervals are 95%, by bootstrap over users."
    )
    report.notes.extend(dataset.notes)
    return report


def main(arguments: list[str] | None = None) -> int:
    flags = form.parser("cold_items", ABOUT)
    trained.add_flags(flags)
    options = flags.parse_args(arguments)
    return form.deliver(lambda: run(trained.configuration(options)), options.out)


if __name__ == "__main__":
    sys.exit(main())
