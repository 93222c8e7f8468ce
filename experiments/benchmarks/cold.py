"""Users and items that the model was not trained on.

    python -m experiments.benchmarks.cold [--quick] --out DIR [--dataset ml-latest-small] [--rounds 5]

A fifth of the users is withheld from everything that a model learns from and is chosen on, then served from the
history in the request, beside what the same users get from a model of the same recipe that was trained on
them; another fifth in each round. EASE and popularity stand beside it. Then a twentieth of the items is
withheld, and all items without interactions are ranked by their features alone, beside a random order.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from typing import Any

from experiments.benchmarks import form
from widedeep import datasets
from widedeep.bootstrap import Interval
from widedeep.config import Config, DataConfig, ModelConfig, TrainConfig
from widedeep.datasets import Dataset
from widedeep.withheld import ColdItemStudy, ColdUserStudy, cold_item_study, cold_user_study

ABOUT = "Serve users and rank items that were withheld from training."
QUICK = Config(
    data=DataConfig(dataset="synthetic", users=120, items=150, interactions=4000),
    model=ModelConfig(embedding_dim=8, hidden=(16,), ranking_hidden=32, ranking_dim=16),
    train=TrainConfig(epochs=2, ranking_epochs=4, learning_rate=1e-2, device="cpu"),
)
LABELS = {"ndcg_at_10": "NDCG@10", "recall_at_20": "Recall@20"}


def run(config: Config, dataset: Dataset, rounds: int, progress: bool) -> form.Report:
    started = time.monotonic()

    def tell(line: str) -> None:
        if progress:
            print(f"{time.monotonic() - started:5.0f} s  {line}", file=sys.stderr)

    users = cold_user_study(config, dataset, rounds=rounds, seed=config.train.seed, tell=tell)
    items = cold_item_study(config, dataset, seed=config.train.seed, tell=tell)
    report = form.Report(
        "Cold users and cold items",
        f"{dataset.name} ({dataset.source}), split {config.data.split}, like_threshold "
        f"{config.data.like_threshold:g}; intervals of 95% by bootstrap over users.",
    )
    _add_users(report, users)
    _add_items(report, items)
    report.notes.append(f"Both studies took {time.monotonic() - started:.0f} s.")
    return report


def _add_users(report: form.Report, study: ColdUserStudy) -> None:
    for (ranker, known, metric), value in study.figures.items():
        report.add(f"{ranker}, {known}", LABELS[metric], value.value, "mean of users")
    for ranker, ratio in study.ratios.items():
        report.ratios[f"{ranker}: withheld/trained on"] = ratio.value
    rankers = list(study.ratios)
    for metric, label in LABELS.items():
        lines = [
            [known, *(_text(study.figures[ranker, known, metric]) for ranker in rankers)]
            for known in dict.fromkeys(known for _, known, _ in study.figures)
        ]
        report.tables.append(form.table([f"{label} by what was known of the user", *rankers], lines))
    ratios = [[ranker, _text(ratio)] for ranker, ratio in study.ratios.items()]
    report.tables.append(form.table(["", "NDCG@10, withheld over trained on"], ratios))
    report.notes.append(
        f"{study.withheld} users were withheld, {study.per_user['user'].nunique()} of them with a liked test item. "
        "All of their earlier items are left out of their lists, also where the request has only the last few."
    )


def _add_items(report: form.Report, study: ColdItemStudy) -> None:
    name = f"{study.report.model}, cold items"
    lines = [["AUC", _text(study.auc), _text(Interval(study.auc.value / 0.5, math.nan, math.nan))]]
    report.add(name, "AUC", study.auc.value, "mean of users")
    report.ratios[f"{name}/random AUC"] = study.auc.value / 0.5
    for metric, label in LABELS.items():
        value, gain = study.report.metrics[metric], study.gains[metric]
        report.add(name, label, value.value, "mean of users")
        report.ratios[f"{name}/random {label}"] = gain.value
        lines.append([label, _text(value), _text(gain)])
    report.tables.append(form.table(["cold items", study.report.model, "times a random order"], lines))
    report.notes.append(
        f"{study.withheld} items were withheld; {study.candidates} candidates have no interactions, "
        f"{study.report.users} users liked one of them in the test part."
    )


def _text(value: Interval) -> str:
    interval = "" if math.isnan(value.low) else f" ({value.low:.3f}–{value.high:.3f})"
    return f"{value.value:.3f}{interval}"


def main(arguments: list[str] | None = None) -> int:
    flags = form.parser("cold", ABOUT)
    flags.add_argument("--dataset", help="which data (default auto; synthetic with --quick)")
    flags.add_argument("--data-dir", help="folder with the data")
    flags.add_argument("--rounds", type=int, help="fifths of the users to withhold, 1 to 5 (default 5)")
    flags.add_argument("--seed", type=int, default=0, help="decides who is withheld, and the training")
    options = flags.parse_args(arguments)
    rounds = options.rounds or (1 if options.quick else 5)
    if not 1 <= rounds <= 5:
        flags.error(f"--rounds must be 1 to 5, got {rounds}")
    config = QUICK if options.quick else Config()
    given: dict[str, Any] = {"dataset": options.dataset, "data_dir": options.data_dir}

    def make() -> form.Report:
        changes = {name: value for name, value in given.items() if value is not None}
        data = dataclasses.replace(config.data, **changes)
        train = dataclasses.replace(config.train, seed=options.seed)
        whole = dataclasses.replace(config, data=data, train=train)
        return run(whole, datasets.load(data), rounds, sys.stderr.isatty())

    return form.deliver(make, options.out)


if __name__ == "__main__":
    sys.exit(main())
