"""Everything that is written to an MLflow run.

Under `mlflow run` the run exists already and is the one that is written to; otherwise a new one is made in the
experiment.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mlflow
import optuna
import pandas as pd
from matplotlib.figure import Figure
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunStatus, RunTag
from mlflow.tracking import MlflowClient

from experiments import environment
from experiments.store import STORE_ERRORS, brief_requests, check_store, make_experiment, reached
from experiments.tracked_data import InteractionsDataset
from experiments.trial_record import TrialRecord
from widedeep.datasets import Dataset
from widedeep.errors import TrackingError
from widedeep.store_trouble import masked

DEFAULT_EXPERIMENT = "widedeep"
OTHER_EXPERIMENT = (
    "Use another experiment: --experiment-name widedeep (mlflow run) or --experiment widedeep "
    "(python -m experiments)"
)
GENERATED_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")  # what MLflow calls a run that nobody named
SYSTEM_SAMPLING = "2"  # seconds between samples of the system metrics
SOURCE_TAGS = (
    "mlflow.user",
    "mlflow.source.name",
    "mlflow.source.type",
    "mlflow.source.git.commit",
    "git.commit",
)
PARAMS_PER_CALL = 100  # what MLflow takes at once
VALUE_LENGTH = 500


def quieten() -> None:
    """MLflow, Alembic and Optuna say much that is of no use to the person who waits."""
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    os.environ.setdefault("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", SYSTEM_SAMPLING)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")


class Run:
    """An MLflow run that is being written."""

    def __init__(self, run_id: str, experiment_id: str, tags: Mapping[str, str], *, named: bool) -> None:
        """tags: whose it is and where its source is from;  named: by a person"""
        self.id = run_id
        self.experiment_id = experiment_id
        self.named = named
        self.job = tags["job"]
        self.source = {key: tags[key] for key in SOURCE_TAGS if key in tags}
        self.client = MlflowClient()
        self._data: list[DatasetInput] = []

    def rename(self, subject: str) -> None:
        """Call it after what the job turned out to be about, unless a person has named it."""
        if not self.named:
            self.tags({"mlflow.runName": f"{self.job} {subject}"})

    def params(self, section: str, values: Mapping[str, Any]) -> None:
        """Parameters, but for empty ones, as SECTION.NAME: `mlflow run` logs its own as NAME, and none may clash."""
        found = [
            Param(name, _short(value))
            for name, value in _flat(section, values)
            if value is not None and value != ""
        ]
        with reached("log parameters"):
            for start in range(0, len(found), PARAMS_PER_CALL):
                self.client.log_batch(self.id, params=found[start : start + PARAMS_PER_CALL])

    def metrics(self, values: Mapping[str, float | None], step: int = 0) -> None:
        """Those that are numbers; NaN is left out."""
        found = _metrics(values, step)
        if found:
            with reached("log metrics"):
                self.client.log_batch(self.id, metrics=found)

    def tags(self, values: Mapping[str, Any]) -> None:
        with reached("log tags"):
            self.client.log_batch(
                self.id, tags=[RunTag(key, masked(str(value))) for key, value in values.items()]
            )

    def describe(self, text: str) -> None:
        """The run's description in the UI, as Markdown."""
        self.tags({"mlflow.note.content": text})

    def text(self, text: str, path: str) -> None:
        with reached(f"log {path}"):
            self.client.log_text(self.id, masked(text), path)

    def json(self, values: Any, path: str) -> None:
        self.text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", path)

    def table(self, frame: pd.DataFrame, path: str) -> None:
        """A table that the UI shows as one; `path` ends in .json."""
        with reached(f"log {path}"):
            self.client.log_table(self.id, frame, path)

    def parquet(self, frame: pd.DataFrame, path: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / Path(path).name
            frame.to_parquet(file, index=False)
            self.file(file, str(Path(path).parent))

    def file(self, file: Path, folder: str = "") -> None:
        with reached(f"log {file.name}"):
            self.client.log_artifact(self.id, str(file), "" if folder == "." else folder)

    def figure(self, figure: Figure, path: str) -> None:
        with reached(f"log {path}"):
            self.client.log_figure(self.id, figure, path)

    def dataset(self, dataset: Dataset) -> None:
        """The data set with its digest, for the run's Datasets in the UI."""
        entity = InteractionsDataset(dataset)._to_mlflow_entity()
        self._data = [DatasetInput(entity, tags=[InputTag("mlflow.data.context", "training")])]
        with reached("log the data set"):
            self.client.log_inputs(self.id, self._data)

    def trial(self, trial: TrialRecord) -> None:
        """A finished trial as a child of this run, with its data set and its source, in a few calls."""
        points = _metrics({**trial.metrics, "seconds": trial.seconds}, 0)
        for row in trial.curves:
            head, epoch = row["head"], int(row["epoch"])
            values = {f"curves/{head}_{name}": row[name] for name in row if name not in ("head", "epoch")}
            points += _metrics(values, epoch)
        number = trial.number
        own = {"mlflow.parentRunId": self.id, "trial.number": str(number), "trial.state": trial.state}
        with reached(f"log trial {number}"):
            made = self.client.create_run(
                self.experiment_id,
                start_time=int(trial.started * 1000),
                run_name=f"trial {number} (pruned)" if trial.state == "PRUNED" else f"trial {number}",
                tags={**self.source, **own, **trial.tags},
            )
            if self._data:
                self.client.log_inputs(made.info.run_id, self._data)
            self.client.log_batch(
                made.info.run_id,
                metrics=points[:1000],
                params=[Param(name, _short(value)) for name, value in trial.params.items()][:PARAMS_PER_CALL],
            )
            status = RunStatus.FAILED if trial.state == "FAIL" else RunStatus.FINISHED
            self.client.set_terminated(made.info.run_id, RunStatus.to_string(status))


@contextlib.contextmanager
def open_run(job: str, subject: str, experiment: str = "", name: str = "") -> Iterator[Run]:
    """The run of this job: open until the block is left, then FINISHED, FAILED, or KILLED by Ctrl-C.

    job         main, train, tune, evaluate …
    subject     the data set or model that it is about; the run is called "JOB SUBJECT"
    experiment  empty: what MLflow's environment says, else "widedeep"
    name        what a person wants the run to be called
    Raises      TrackingError: the store is away, or does not take artefacts
    """
    check_store()
    name_here = name or f"{job} {subject}"
    with reached("open a run"):
        if "MLFLOW_RUN_ID" in os.environ:
            active = mlflow.start_run(log_system_metrics=True)
        else:
            active = mlflow.start_run(
                run_name=name_here, experiment_id=_experiment(experiment), log_system_metrics=True
            )
    generated = GENERATED_NAME.fullmatch(active.info.run_name or "")
    named = bool(name) or not (generated or active.info.run_name == name_here)
    tags = {"job": job, **_source_tags(active.data.tags)}
    run = Run(active.info.run_id, active.info.experiment_id, active.data.tags | tags, named=named)
    try:
        run.tags(tags | {"mlflow.runName": name_here} if generated else tags)
        _check_artifacts(run)
        yield run
    except KeyboardInterrupt:
        _end(run, "KILLED", "Interrupted before its end.")
        raise
    except BaseException as error:
        away = isinstance(error, TrackingError)
        _end(run, "FAILED", "" if away else f"Failed: {error or type(error).__name__}")
        raise
    else:
        with reached("end the run"):
            mlflow.end_run("FINISHED")


def _experiment(name: str) -> str:
    """The id of the experiment of that name, which is made if need be."""
    name = name or os.environ.get("MLFLOW_EXPERIMENT_NAME", "")
    if not name and "MLFLOW_EXPERIMENT_ID" in os.environ:
        return os.environ["MLFLOW_EXPERIMENT_ID"]
    name = name or DEFAULT_EXPERIMENT
    client = MlflowClient()
    found = client.get_experiment_by_name(name) or make_experiment(client, name)
    if found.lifecycle_stage == "deleted":
        raise TrackingError(
            f"The experiment {name!r} was deleted. Restore it with `mlflow experiments restore --experiment-id "
            f"{found.experiment_id}`, or name another with --experiment."
        )
    return str(found.experiment_id)


def _end(run: Run, status: str, why: str) -> None:
    """End the run as `status`; the error that led here matters more than one that comes up now.

    why  becomes the description: `mlflow run` itself turns KILLED into FAILED, and a status alone explains nothing
    """
    with contextlib.suppress(*STORE_ERRORS, TrackingError):
        if why:
            run.describe(why)
        mlflow.end_run(status)


def _check_artifacts(run: Run) -> None:
    """Write the environment at once: where that fails, nothing is trained in vain."""
    where = mlflow.get_artifact_uri()
    if where.startswith("mlflow-artifacts:") and not mlflow.get_tracking_uri().startswith("http"):
        raise TrackingError(
            "This experiment was made by `mlflow ui` or `mlflow server`, which keeps its files behind itself "
            f"({where}).\n{OTHER_EXPERIMENT}; or hand the files to it, where it runs: "
            "MLFLOW_TRACKING_URI=http://127.0.0.1:5000"
        )
    try:
        with brief_requests():
            run.json(environment.describe(), "environment.json")
    except TrackingError as error:
        other = "" if where.startswith("mlflow-artifacts:") else f" {OTHER_EXPERIMENT}."
        raise TrackingError(f"{error}\nThe run's files would go to {where}.{other}") from error


def _source_tags(there: Mapping[str, str]) -> dict[str, str]:
    commit = environment.commit()
    tags = {"git.commit": commit} if commit else {}
    if commit and "mlflow.source.git.commit" not in there:
        tags["mlflow.source.git.commit"] = commit.removesuffix("-dirty")
    return tags


def _metrics(values: Mapping[str, float | None], step: int) -> list[Metric]:
    now = int(time.time() * 1000)
    return [
        Metric(name, float(value), now, step)
        for name, value in values.items()
        if value is not None and value == value
    ]


def _flat(section: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """SECTION.NAME and the value of each; what holds values itself is a section, too."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{section}.{name}", value)
        else:
            yield f"{section}.{name}", value


def _short(value: Any) -> str:
    text = masked(",".join(map(str, value)) if isinstance(value, list | tuple) else str(value))
    return text if len(text) <= VALUE_LENGTH else text[: VALUE_LENGTH - 1] + "…"


def artifact(run_id: str, path: str) -> Path:
    """A file of a finished run, on this machine.

    Raises  TrackingError: the run or the file is not there
    """
    with reached(f"get {path} of run {run_id}"):
        return Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=path))
