"""Evaluation over the full catalogue, ours and the baselines, beside what one writes with numpy or a dense product.

    python -m experiments.benchmarks.evaluating [--quick] --out DIR [--users 69878] [--items 10677]

Every test user is asked for a list over all items, on made-up data in ML-10M's proportions. First `evaluate` once for
each model, with its intervals, in a process of its own; then a sample of the users in turns, lists alone, beside a
loop over the users in numpy and beside the product of dense histories with the crosses. Models are fitted no longer
than it takes to have them: how long a list takes does not depend on how good it is.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.benchmarks import form
from widedeep import datasets
from widedeep.baselines import EASE, IALS, ItemKNN, Popularity
from widedeep.baselines.base import item_counts
from widedeep.closed_form import ClosedForm, CrossSettings
from widedeep.config import Config, DataConfig, TrainConfig
from widedeep.evaluation import Ranker, evaluate
from widedeep.factors import FactorSettings
from widedeep.histories import Encoded, Histories
from widedeep.rankings import DEPTH, Targets, rank_users
from widedeep.recommender import Recommender
from widedeep.split import split
from widedeep.training import Chosen
from widedeep.wide import ItemWeights

ABOUT = "Evaluate over the full catalogue, beside a loop over users and a dense product."
USERS, ITEMS, INTERACTIONS = 69_878, 10_677, 10_000_054
QUICK_USERS, QUICK_ITEMS, QUICK_INTERACTIONS = 300, 200, 12_000
SAMPLE, QUICK_SAMPLE = 2_000, 100
DENSE_USERS = 500  # at once in the dense product
L2 = 250.0
NAMES = ("widedeep", "popularity", "item-kNN", "iALS", "EASE")


@dataclass(frozen=True)
class Cost:
    """Of one `evaluate`: seconds on the clock and of CPU, megabytes held at most, and before it."""

    wall: float
    cpu: float
    peak: float
    before: float
    users: int
    ndcg: float


@dataclass(frozen=True)
class World:
    recommender: Recommender
    train: Histories
    test: Encoded
    genres: torch.Tensor

    @classmethod
    def load(cls, folder: Path) -> World:
        recommender = Recommender.load(folder / "model.pth", device="cpu")
        test = Encoded(**torch.load(folder / "test.pt", weights_only=True))
        return cls(recommender, recommender.histories, test, recommender.processor.item_table.genres)

    def ranker(self, name: str) -> Ranker:
        """A baseline is fitted here, but for EASE: its crosses are the wide side's, with the same ridge."""
        count = self.recommender.net.item_count
        if name == "popularity":
            return Popularity().fit(self.train, count)
        if name == "item-kNN":
            return ItemKNN().fit(self.train, count)
        if name == "iALS":
            return IALS(epochs=1).fit(self.train, count)
        if name == "EASE":
            ease = EASE(L2)
            ease.weights = self.recommender.net.wide
            ease.counts = item_counts(self.train.only_liked(), count)
            return ease
        return self.recommender

    def sample(self, users: int) -> Targets:
        known = torch.unique(self.test.user_index[self.test.liked & (self.test.user_index > 0)])
        drawn = known[torch.randperm(len(known), generator=torch.Generator().manual_seed(0))[:users]]
        rows = self.test.take(torch.isin(self.test.user_index, drawn))
        return Targets.of(rows, rows.user_index.long())


def prepare(sizes: tuple[int, int, int], factor_dim: int, folder: str) -> None:
    """Leave the test part and a model with all three parts in `folder`."""
    users, items, interactions = sizes
    config = Config(
        data=DataConfig(dataset="synthetic", users=users, items=items, interactions=interactions),
        train=TrainConfig(device="cpu"),
    )
    dataset = datasets.load(config.data)
    parts = split(dataset.interactions, config.data)
    crosses = CrossSettings(L2)
    factors = FactorSettings(dim=factor_dim, epochs=1)
    chosen = Chosen(0, 0, 0.6, 0.5, ClosedForm(True, crosses, 0.2, factors))
    recommender, _ = Recommender.fit(config, dataset, parts.train, chosen=chosen)
    recommender.save(Path(folder) / "model.pth")
    torch.save(vars(recommender.processor.encode(parts.test)), Path(folder) / "test.pt")


def measure(folder: str, name: str, samples: int) -> Cost:
    """One `evaluate` of all test users; in a fresh process, or the peak is not its own."""
    world = World.load(Path(folder))
    ranker = world.ranker(name)
    before = form.peak()
    wall, cpu = time.perf_counter(), time.process_time()
    report = evaluate(
        ranker,
        train=world.train,
        test=world.test,
        test_users=world.test.user_index.long(),
        item_count=world.recommender.net.item_count,
        warm_count=world.recommender.net.warm_count,
        genres=world.genres,
        like_model=world.recommender if name == "widedeep" else None,
        bootstrap=samples,
    )
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return Cost(wall, cpu, form.peak(), before, report.users, report.metrics["ndcg_at_10"].value)


def in_turns(folder: str, users: int, progress: bool) -> tuple[dict[str, form.Timing], dict[str, float]]:
    """Lists of a sample of users, ours and the opponents'; and the opponents' share of lists that are EASE's."""
    world = World.load(Path(folder))
    net, targets = world.recommender.net, world.sample(users)

    def listed(ranker: Ranker) -> Callable[[], torch.Tensor]:
        return lambda: (
            rank_users(ranker, targets, world.train, item_count=net.item_count, warm_count=net.warm_count).top
        )

    runs: dict[str, Callable[[], Any]] = {name: listed(world.ranker(name)) for name in NAMES}
    runs["numpy loop, EASE"] = lambda: loop(net.wide, world.train, targets, net.item_count)
    runs["dense product, EASE"] = lambda: dense_product(net.wide, world.train, targets, net.item_count)
    tell = (lambda line: print(line, file=sys.stderr)) if progress else None
    ours = runs["EASE"]().numpy()
    agree = {
        name: float((np.asarray(runs[name]()) == ours).all(1).mean())
        for name in runs
        if name.endswith(", EASE")
    }
    return form.interleave([form.Case(name, run) for name, run in runs.items()], progress=tell), agree


def loop(crosses: ItemWeights, train: Histories, targets: Targets, item_count: int) -> np.ndarray:
    """(users, DEPTH) item_index and, not returned, the rank of the best relevant item: one user after the other."""
    weights, items = crosses.weights.numpy(), crosses.items.numpy()
    place = np.full(item_count, -1)
    place[items] = np.arange(len(items))
    offsets, entries, liked = train.offsets.numpy(), train.item_index.numpy(), train.liked.numpy()
    starts = np.searchsorted(targets.row.numpy(), np.arange(len(targets.key) + 1))
    relevant = targets.item.numpy()
    top = np.empty((len(targets.key), DEPTH), dtype=np.int64)
    for row, user in enumerate(targets.user_index.tolist()):
        own = slice(offsets[user], offsets[user + 1])
        seen = entries[own]
        scores = np.zeros(item_count, dtype=np.float32)
        scores[items] = weights[place[seen[liked[own]]]].sum(0)
        scores[0] = -np.inf
        scores[seen] = -np.inf
        best = np.argpartition(-scores, DEPTH)[:DEPTH]
        top[row] = best[np.argsort(-scores[best], kind="stable")]
        wanted = relevant[starts[row] : starts[row + 1]]
        if len(wanted):
            _ = 1 + (scores > scores[wanted].max()).sum()
    return top


def dense_product(crosses: ItemWeights, train: Histories, targets: Targets, item_count: int) -> np.ndarray:
    """As `loop`, for DENSE_USERS at once: their histories as rows of zeros and ones, times all crosses."""
    items = crosses.items
    starts = torch.searchsorted(targets.row, torch.arange(len(targets.key) + 1))
    top = []
    for first in range(0, len(targets.key), DENSE_USERS):
        users = targets.user_index[first : first + DENSE_USERS]
        seen = train.take(users)
        scores = torch.zeros(len(users), item_count)
        scores[:, items] = seen.only_liked().multi_hot(item_count)[:, items] @ crosses.weights
        scores[:, 0] = -torch.inf
        scores[seen.row_index, seen.item_index.long()] = -torch.inf
        top.append(scores.topk(DEPTH, dim=1).indices)
        entries = slice(int(starts[first]), int(starts[first + len(users)]))
        row, item = targets.row[entries] - first, targets.item[entries]
        best = torch.full((len(users),), -torch.inf).scatter_reduce_(0, row, scores[row, item], "amax")
        _ = 1 + (scores > best[:, None]).sum(1)
    return torch.cat(top).numpy()


def run(sizes: tuple[int, int, int], sample: int, quick: bool, folder: str, progress: bool) -> form.Report:
    users, items, interactions = sizes
    call = form.here if quick else form.apart
    call(prepare, sizes, 16 if quick else 256, folder)
    report = form.Report(
        "Full-catalogue evaluation",
        f"{interactions:,} made-up interactions of {users:,} users and {items:,} items, split by user and time; "
        f"{torch.get_num_threads()} threads. `evaluate` ranks all items for every test user and resamples its figures "
        f"{100 if quick else 1000} times, once for each model; widedeep's like-probabilities of all test rows are "
        f"in it. Lists alone: medians of {form.REPEATS} runs in turns, {sample:,} users.",
    )
    for name in NAMES:
        cost: Cost = call(measure, folder, name, 100 if quick else 1000)
        report.add(name, "evaluate", cost.wall, "s")
        report.add(name, "evaluate", cost.cpu, "CPU s")
        report.add(name, "evaluate, users with a relevant item", cost.users, "")
        report.add(name, "memory", cost.peak, "MB at most")
        report.add(name, "memory before it", cost.before, "MB at most")
        report.add(name, "NDCG@10", cost.ndcg, "")
    timings, agree = call(in_turns, folder, sample, progress)
    for name, timing in timings.items():
        report.add(name, "lists", sample / timing.cpu_median, "users per CPU s")
    for name, share in agree.items():
        report.add(name, "lists that are EASE's", share, "share")
        ratio = form.ratio_of_costs(timings["EASE"].cpu_median, timings[name].cpu_median)
        report.ratios[f"EASE/{name}"] = ratio
    report.notes.append(
        "EASE here is the wide side's crosses alone, so its opponents do the same sums. Lists may differ where scores "
        "are equal up to rounding."
    )
    report.notes.append(
        "Memory before it holds the model, the histories and, for item-kNN and iALS, their fit."
    )
    return report


def main(arguments: list[str] | None = None) -> int:
    flags = form.parser("evaluating", ABOUT)
    for name in ("users", "items", "interactions"):
        flags.add_argument(f"--{name}", type=_count, help="of the made-up data")
    options = flags.parse_args(arguments)
    defaults = (
        (QUICK_USERS, QUICK_ITEMS, QUICK_INTERACTIONS) if options.quick else (USERS, ITEMS, INTERACTIONS)
    )
    sizes = (
        options.users or defaults[0],
        options.items or defaults[1],
        options.interactions or defaults[2],
    )
    sample = min(QUICK_SAMPLE if options.quick else SAMPLE, sizes[0] // 2)
    with tempfile.TemporaryDirectory() as folder:
        return form.deliver(
            lambda: run(sizes, sample, options.quick, folder, sys.stderr.isatty()), options.out
        )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 100 or more")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
