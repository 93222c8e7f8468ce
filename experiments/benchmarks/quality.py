"""The ranking beside tuned baselines and beside itself without its parts, over several seeds.

    python -m experiments.benchmarks.quality [--quick] --out DIR [--dataset ml-latest-small] [--split time] [--seeds 3]

Every model is chosen on the validation part, trained on it as well, and judged on the test part: the defaults,
the same without the deep side, the same with the wide side alone, and the baselines. A model's value of a user
is the mean over the seeds; differences are paired by user.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time

import pandas as pd

from experiments import recipe
from experiments.benchmarks import form, trained
from experiments.judging import Bench, Results
from experiments.progress import Console
from experiments.recipe import Prepared
from widedeep.bootstrap import PairedDifference, paired_difference
from widedeep.config import SPLITS, Config
from widedeep.recommender import Recommender

ABOUT = "Compare the ranking with tuned baselines, and with itself without its parts."
FULL, WITHOUT_DEEP, WIDE_ALONE = "widedeep", "wide and low-rank", "wide alone"
METRICS = {"ndcg_at_10": "NDCG@10", "recall_at_20": "Recall@20"}
LIKE_METRICS = {"auc": "AUC", "log_loss": "log loss", "calibration_error": "calibration error"}
SAMPLES = 10_000


def variants(config: Config) -> dict[str, Config]:
    """The defaults, and what is left of them without the deep side and without the low-rank part, too."""
    model, untrained = config.model, dataclasses.replace(config.train, ranking_epochs=0, epochs=0)
    return {
        FULL: config,
        WITHOUT_DEEP: dataclasses.replace(
            config, model=dataclasses.replace(model, factor_share=1.0), train=untrained
        ),
        WIDE_ALONE: dataclasses.replace(
            config, model=dataclasses.replace(model, deep_share=0.0, factor_share=0.0), train=untrained
        ),
    }


def made(config: Config, data: Prepared) -> Recommender:
    return recipe.fit(recipe.select(config, data).recipe, data, data.before_test, "evaluate")


def mean_of(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Each user's mean over the seeds."""
    return pd.concat(parts).groupby(level=0)[list(METRICS)].mean()


def run(config: Config, seeds: int, console: Console) -> form.Report:
    data = recipe.prepare(config.data, console)
    bench = Bench(data, 1000, console)
    report = form.Report(
        "Ranking quality",
        f"{data.dataset.name} ({data.dataset.source}), {len(data.dataset.interactions):,} interactions, "
        f"{data.split.description}; like_threshold {config.data.like_threshold:g}; {seeds} seeds. "
        f"Intervals of 95% by bootstrap over users.",
    )
    values: dict[str, list[pd.DataFrame]] = {name: [] for name in variants(config)}
    results: Results | None = None
    for seed in range(seeds):
        train = dataclasses.replace(config.train, seed=seed)
        for name, variant in variants(dataclasses.replace(config, train=train)).items():
            started = time.process_time()
            model = made(variant, data)
            seconds = time.process_time() - started
            if name == FULL and results is None:
                results = bench.against_baselines(model)
                found = results.model
                values |= {other.model: [other.per_user] for other in results.others}
            else:
                found = bench.model(model)
            values[name].append(found.per_user)
            if name == FULL:
                for metric, label in LIKE_METRICS.items():
                    report.add(f"{name}, seed {seed}", label, found.metrics[metric].value, "")
                report.add(f"{name}, seed {seed}", "choice and training", seconds, "CPU s")
            ndcg = found.metrics["ndcg_at_10"].value
            report.add(f"{name}, seed {seed}", "NDCG@10", ndcg, "")
            console.say(f"seed {seed}: {name} NDCG@10 {ndcg:.4f}, {seconds:.0f} CPU s")
    means = {name: mean_of(parts) for name, parts in values.items()}
    for name, mean in means.items():
        for metric, label in METRICS.items():
            report.add(name, label, mean[metric].mean(), "mean of users")
    differences = {
        (name, metric): paired_difference(means[FULL][metric], mean[metric], samples=SAMPLES)
        for name, mean in means.items()
        if name != FULL
        for metric in METRICS
    }
    report.ratios = {
        f"{FULL}/{name}, {METRICS[metric]}": form.ratio_of_gains(found.mean, found.reference_mean)
        for (name, metric), found in differences.items()
        if found.reference_mean
    }
    report.tables.append(_table(differences))
    report.notes += data.dataset.notes
    return report


def _table(differences: dict[tuple[str, str], PairedDifference]) -> str:
    head = ["widedeep against", "metric", "widedeep", "the other", "difference", "95% interval"]
    rows = [
        [
            name,
            METRICS[metric],
            f"{found.mean:.4f}",
            f"{found.reference_mean:.4f}",
            f"{found.absolute.value:+.4f} ({found.relative.value:+.1%})",
            f"{found.absolute.low:+.4f} to {found.absolute.high:+.4f}",
        ]
        for (name, metric), found in differences.items()
    ]
    return form.table(head, rows)


def main(arguments: list[str] | None = None) -> int:
    flags = form.parser("quality", ABOUT)
    trained.add_flags(flags)
    flags.add_argument("--split", default="user-time", choices=[name for name in SPLITS if name != "none"])
    flags.add_argument("--seeds", type=_count, default=3, help="(default: %(default)s)")
    for name in ("users", "items", "interactions"):
        flags.add_argument(f"--{name}", type=_count, help="of dataset=synthetic")
    options = flags.parse_args(arguments)

    def make() -> form.Report:
        config = trained.configuration(options)
        sizes = {
            name: getattr(options, name)
            for name in ("users", "items", "interactions")
            if getattr(options, name) is not None
        }
        data = dataclasses.replace(config.data, split=options.split, **sizes)
        seeds = 1 if options.quick else options.seeds
        return run(dataclasses.replace(config, data=data), seeds, Console())

    return form.deliver(make, options.out)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
