"""A run as it was: what it takes to train it again and to hold the result against it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import pandas as pd
from mlflow.tracking import MlflowClient

from experiments import tracking
from experiments.promote import PER_USER, RECIPE
from experiments.recipe import Recipe
from experiments.store import check_store, reached
from widedeep.errors import ConfigError, ReproductionError, TrackingError
from widedeep.recommender import Recommender
from widedeep.report import Report

JOBS = ("main", "train", "evaluate")
REPORT = "evaluation/report.json"
CAN_BE = f"What can be reproduced: finished runs of {', '.join(JOBS)} with a test part."
MISFITS = (ConfigError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError, OSError)


@dataclass(frozen=True)
class Original:
    """What the run logged.

    parameters   of the run, as text: what recipe.json is held against
    report       the evaluated model's, with every user's values
    validation   its figures on the validation part
    environment  where it ran (environment.json)
    tags         of the run
    """

    run_id: str
    experiment_id: str
    job: str
    parameters: dict[str, str]
    recipe: Recipe
    report: Report
    validation: dict[str, float]
    environment: dict[str, Any]
    tags: dict[str, str]

    def __str__(self) -> str:
        return f"run {self.run_id[:8]} ({self.tags.get('mlflow.runName', self.job)})"


def load(run_id: str) -> Original:
    """Read a run of this store.

    Raises  TrackingError: there is no such run;  ReproductionError: it is none that can be trained again
    """
    check_store()
    with reached(f"find run {run_id}"):
        run = MlflowClient().get_run(run_id)
    tags = dict(run.data.tags)
    job = tags.get("job", "")
    if "reproduces" in tags:
        raise ReproductionError(
            f"Run {run_id} is itself a reproduction. Reproduce what it reproduces: {tags['reproduces']}."
        )
    if "mlflow.parentRunId" in tags and not job:
        raise ReproductionError(
            f"Run {run_id} is a trial of run {tags['mlflow.parentRunId']}, and trials are not tested. {CAN_BE}"
        )
    if job not in JOBS or run.info.status != "FINISHED":
        what = f"a {run.info.status.lower()} run of {job or 'something else than widedeep'}"
        raise ReproductionError(f"Run {run_id} is {what}. {CAN_BE}")
    try:
        stored = [Report.from_dict(values) for values in _json(run_id, REPORT)]
        users = pd.read_parquet(tracking.artifact(run_id, PER_USER))
    except (TrackingError, *MISFITS) as error:
        raise ReproductionError(f"Run {run_id} has no figures of a test part ({error}). {CAN_BE}") from error
    try:
        [report] = [found for found in stored if found.model == Recommender.name]
        own = users[users["model"] == Recommender.name].drop(columns="model").set_index("user")
        return Original(
            run_id,
            run.info.experiment_id,
            job,
            dict(run.data.params),
            Recipe.from_dict(_json(run_id, RECIPE)),
            dataclasses.replace(report, per_user=own),
            {
                name.removeprefix("validation/"): value
                for name, value in run.data.metrics.items()
                if name.startswith("validation/")
            },
            _json(run_id, "environment.json"),
            tags,
        )
    except MISFITS as error:
        raise ReproductionError(
            f"The files of run {run_id} do not fit this widedeep: {error}. Take the source that it was made with "
            f"(commit {tags.get('git.commit', 'unknown')})."
        ) from error


def _json(run_id: str, path: str) -> Any:
    return json.loads(tracking.artifact(run_id, path).read_text())
