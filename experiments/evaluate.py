"""Model and baselines side by side on the test part of one split.

    mlflow run . -e evaluate -P model=models:/widedeep@champion
    python -m experiments evaluate --model models:/widedeep@champion
    python -m experiments evaluate --model model.pth --split time

What is registered was refit on everything and has seen the test part, so its weights cannot be judged: its
recipe is trained again on what comes before the test part, and that is what gets the figures.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from experiments import descriptions, recipe, registry, report
from experiments.figures import dashboard
from experiments.figures.album import Album
from experiments.flags import config_from
from experiments.jobs import JobConfig
from experiments.judging import Bench
from experiments.next_commands import again
from experiments.progress import Console
from experiments.recipe import Recipe, on_data
from experiments.stages import evaluation_line, log_results, start, timed
from experiments.store import check_store
from experiments.tracking import open_run
from experiments.weights import WEIGHTS_TAG, weights_digest
from widedeep.config import Config
from widedeep.errors import ConfigError
from widedeep.training import Chosen


def job(given: dict[str, Any], job_config: JobConfig, console: Console) -> None:
    """The entry point `evaluate`.  given: the flags that were given, as text"""
    where = given.get("model", "")
    config, chosen, key = config_from(given), None, ""
    if where:
        check_store()
        known = registry.load(where, device="cpu")
        config, chosen = config_from(given, _portable(known.config)), known.chosen
        key = recipe.comparison_key(str(known.about.get("digest")), known.config.data)
    if config.data.split == "none":
        raise ConfigError("split=none leaves nothing to evaluate on. Name another: --split user-time.")
    subject = where or config.data.dataset
    with open_run("evaluate", subject, job_config.experiment, job_config.run_name) as run:
        data = start(config, job_config, run, console)
        config = on_data(config, data.config)
        unchanged = chosen is not None and key == data.key and config.model == known.config.model
        found = Recipe(config, chosen) if unchanged and isinstance(chosen, Chosen) else None
        with console.training("train") as shown:
            found = found or timed(run, "select", lambda: recipe.select(config, data, shown)).recipe
            model = recipe.fit(found, data, data.before_test, "evaluate", shown)
        run.json(found.to_dict() | {"comparison_key": data.key}, "recipe.json")
        run.tags({WEIGHTS_TAG: weights_digest(model)})
        results = timed(
            run, "evaluate", lambda: Bench(data, job_config.bootstrap, console).against_baselines(model)
        )
        album = Album(run, console)
        log_results(results, data, run, album)
        dashboard.model(model, results.model, data, album)
        dashboard.times(run, data, album)
        console.say(f"evaluate: {evaluation_line(results)}")
        what = f"The recipe of {where}" if where else "The recipe in the flags"
        note = (
            f"{what}, trained on what comes before the test part.\n\n"
            f"{data.dataset.name}, split {data.split.description}"
        )
        run.describe(descriptions.of_evaluation(run, what, results, data, again(run, tested=True)))
        print(f"\n{note}\n{report.plain_table(report.rows(results.all))}")


def _portable(config: Config) -> Config:
    """Without what belongs to the machine that it was trained on."""
    train = dataclasses.replace(config.train, device="auto", precision="auto", checkpoint="", resume=False)
    return dataclasses.replace(config, train=train)
