"""The stages that jobs have in common: start, from a recipe to its model, and what is logged on the way."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from experiments import data_sheet, recipe, report
from experiments.figures import dashboard, likes
from experiments.figures.album import Album
from experiments.jobs import JobConfig, to_dict
from experiments.judging import Bench, Results, per_user_frame
from experiments.progress import Console
from experiments.recipe import Prepared, Selection
from experiments.tracking import Run
from experiments.weights import WEIGHTS_TAG, weights_digest
from widedeep import config as configuration
from widedeep.config import Config
from widedeep.device import resolve_device
from widedeep.distributed import World
from widedeep.recommender import Recommender
from widedeep.training import Progress, Step

Value = TypeVar("Value")
ALL = "all interactions"
BEFORE_TEST = "what comes before the test part"


@dataclass(frozen=True)
class Made:
    """A trained model.

    results     figures of the recipe beside the baselines; None without a test part
    evaluated   the model that got them
    final       the model that is to be used: refit on all interactions, or `evaluated`
    trained_on  what `final` has seen, in words
    """

    selection: Selection
    results: Results | None
    evaluated: Recommender | None
    final: Recommender
    trained_on: str


def start(config: Config, job_config: JobConfig, run: Run, console: Console) -> Prepared:
    """Load and split the data, and log all that is known before the training."""
    run.show_in(job_config.tensorboard)
    run.json({"config": configuration.to_dict(config), "job": to_dict(job_config)}, "config.json")
    run.params("data", configuration.to_dict(config.data))
    run.params("job", to_dict(job_config))
    data = timed(run, "data", lambda: recipe.prepare(config.data, console))
    if data.config.dataset != config.data.dataset:
        run.rename(data.config.dataset)
    run.dataset(data.dataset)
    run.text(data_sheet.write(data), data_sheet.FILE)
    if not data.trust.clean:
        console.say(f"warning: {data.trust}")
    rows = data.dataset.interactions
    run.tags(
        {
            "dataset": data.dataset.name,
            "data_digest": data.dataset.digest,
            "tables_digest": data.tables_digest,
            "synthetic": str(data.dataset.truth is not None).lower(),
            "split": data.split.description,
            "split.method": data.split.method,
            "leaks": data.trust.word,
            "device": resolve_device(config.train.device),
        }
    )
    run.params(
        "rows",
        {
            "all": len(rows),
            "train": len(data.split.train),
            "validation": len(data.split.validation),
            "test": len(data.split.test),
        },
    )
    return data


def make(selection: Selection, data: Prepared, job_config: JobConfig, run: Run, console: Console) -> Made:
    """From a recipe to its figures and its final model, with everything logged."""
    chosen = selection.recipe
    run.json(chosen.to_dict() | {"comparison_key": data.key}, "recipe.json")
    run.params("model", configuration.to_dict(chosen.config.model))
    run.params("train", configuration.to_dict(chosen.config.train))
    run.params("chosen", chosen.chosen.to_dict())
    run.metrics({f"validation/{name}": value for name, value in selection.validation.items()})
    album = Album(run, console)
    dashboard.training(selection, data, album)
    results, evaluated = None, None
    if len(data.split.test):
        with console.training("train on train and validation") as shown:
            evaluated = timed(run, "train", lambda: recipe.fit_before_test(chosen, data, shown))
        judged = evaluated
        run.tags({WEIGHTS_TAG: weights_digest(judged)})
        console.say(f"train: the recipe on the {len(data.before_test):,} interactions before the test part")
        bench = Bench(data, job_config.bootstrap, console)
        with World.current().all_threads():
            results = timed(run, "evaluate", lambda: bench.against_baselines(judged))
        log_results(results, data, run, album)
        dashboard.model(evaluated, results.model, data, album)
        console.say(f"evaluate: {evaluation_line(results)}")
    if evaluated is not None and not job_config.refit:
        return Made(selection, results, evaluated, evaluated, BEFORE_TEST)
    with console.training("refit on all interactions") as shown:
        final = timed(run, "refit", lambda: recipe.refit(chosen, data, shown))
    console.say(f"refit: the same recipe on all {len(data.dataset.interactions):,} interactions")
    return Made(selection, results, evaluated, final, ALL)


def log_results(results: Results, data: Prepared, run: Run, album: Album) -> None:
    """The report as metrics, tables, figures and Parquet."""
    reports = results.all
    run.metrics(report.metrics_of(reports) | {"average_precision": likes.average_precision(results.model)})
    run.json([found.to_dict() for found in reports], "evaluation/report.json")
    run.json([found.to_dict() for found in results.tuned], "evaluation/baselines.json")
    run.table(report.wide_frame(reports), "evaluation/report_table.json")
    run.table(report.slices_frame(reports), "evaluation/slices_table.json")
    run.parquet(per_user_frame(reports), "evaluation/per_user.parquet")
    run.text(report.document(reports, data.dataset.name, data.split.description), "evaluation/report.md")
    dashboard.results(results, data, album)


def live_curves(run: Run) -> Progress:
    """Writes each epoch to the run as it ends."""

    def log(step: Step) -> None:
        if step.metrics:
            run.metrics(
                {f"curves/{step.head}_{name}": value for name, value in step.metrics.items()}, step.epoch
            )

    return log


def validation_line(selection: Selection) -> str:
    found = ", ".join(
        f"{report.LABELS.get(name, name)} {value:.4f}" for name, value in selection.validation.items()
    )
    chosen = selection.recipe.chosen
    return (
        f"{found or 'no validation part'}; epochs kept: {chosen.ranking_epochs} of the ranking head, "
        f"{chosen.like_epochs} of the like head; deep share {chosen.deep_share:.2f} "
        f"({report.duration(selection.seconds)})"
    )


def evaluation_line(results: Results) -> str:
    return "test NDCG@10 " + ", ".join(
        f"{found.model} {found.metrics['ndcg_at_10'].value:.4f}" for found in results.all
    )


def timed(run: Run, stage: str, work: Callable[[], Value]) -> Value:
    """Does the work and logs how long it took without its figures, which are a stage of their own, as seconds/STAGE."""
    started, drawn = time.monotonic(), run.seconds.get("figures", 0.0)
    value = work()
    drawn = run.seconds.get("figures", 0.0) - drawn
    run.seconds[stage] = run.seconds.get(stage, 0.0) + time.monotonic() - started - drawn
    run.metrics({f"seconds/{stage}": run.seconds[stage]})
    return value
