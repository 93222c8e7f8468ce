"""A job's MLflow run: how it is opened, and how it ends. What is written to it is in `experiments.runs`.

Under `mlflow run` the run exists already and is the one that is written to; otherwise a new one is made in the
experiment.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import mlflow
import optuna
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.tracking import MlflowClient
from mlflow.tracking.fluent import run_id_to_system_metrics_monitor

from experiments import environment, experiment_page, source_state
from experiments.runs import Run
from experiments.store import STORE_ERRORS, brief_requests, check_store, make_experiment, reached
from experiments.writes import Batch
from widedeep.errors import TrackingError
from widedeep.store_trouble import masked

__all__ = ["Run", "artifact", "attach", "open_run", "quieten"]

DEFAULT_EXPERIMENT = "widedeep"
OTHER_EXPERIMENT = (
    "Use another experiment: --experiment-name widedeep (mlflow run) or --experiment widedeep "
    "(python -m experiments)"
)
GENERATED_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")  # what MLflow calls a run that nobody named
SYSTEM_SAMPLING = "2"  # seconds between samples of the system metrics


def quieten() -> None:
    """MLflow, Alembic and Optuna say much that is of no use to the person who waits."""
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in (
        "mlflow.system_metrics",
        "mlflow.store.db.utils",
        "urllib3.connectionpool",
    ):  # the outbox says it
        logging.getLogger(name).setLevel(logging.CRITICAL)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    os.environ.setdefault("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", SYSTEM_SAMPLING)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")


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
    run.outbox.on_return = lambda: _sample_again(run.id)
    try:
        with reached("log tags"):
            first = tags | {"mlflow.runName": name_here} if generated else tags
            Batch(run.id, tags=first).send(run.client, again=False)
        with reached("describe the experiment"):
            experiment_page.dress(run.client, run.experiment_id)
        _check_artifacts(run)
        yield run
    except KeyboardInterrupt as interrupt:
        _break_off(run, "KILLED", str(interrupt) or "Interrupted before its end.")
        raise
    except BaseException as error:
        away = isinstance(error, TrackingError)
        _break_off(run, "FAILED", "" if away else f"Failed: {error or type(error).__name__}")
        raise
    else:
        _end(run, "FINISHED")


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


def _end(run: Run, status: str) -> None:
    """What waits goes first, if it can. In any case it is then no longer MLflow's active run."""
    run.outbox.retry(now=True)
    if run.outbox.was_away:
        _stop_sampling(run.id)
    try:
        with brief_requests(retries=0):
            mlflow.end_run(status)
    except STORE_ERRORS:
        run.end(status)
    run.close()


def _break_off(run: Run, status: str, why: str) -> None:
    """End the run as `status`; the error that led here matters more than one that comes up now.

    why  becomes the description: `mlflow run` itself turns KILLED into FAILED, and a status alone explains nothing
    """
    with contextlib.suppress(*STORE_ERRORS, TrackingError):
        if why:
            run.describe(why)
        _end(run, status)


def _sample_again(run_id: str) -> None:
    """MLflow's sampler gives up when the store is away."""
    if _stop_sampling(run_id):
        sampler = SystemMetricsMonitor(run_id, resume_logging=True)  # type: ignore[no-untyped-call]
        sampler.start()  # type: ignore[no-untyped-call]
        run_id_to_system_metrics_monitor[run_id] = sampler


def _stop_sampling(run_id: str) -> bool:
    """Whether there was a sampler. It is not waited for, as MLflow does: it may sleep for minutes between its tries."""
    sampler = run_id_to_system_metrics_monitor.pop(run_id, None)
    if sampler is not None:
        sampler._shutdown_event.set()
    return sampler is not None


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
        with brief_requests(), reached("log environment.json"):
            text = json.dumps(environment.describe(), indent=2) + "\n"
            run.client.log_text(run.id, masked(text), "environment.json")
        if source_state.current().dirty:
            run.text(source_state.current().diff, "source.diff")
    except TrackingError as error:
        other = "" if where.startswith("mlflow-artifacts:") else f" {OTHER_EXPERIMENT}."
        raise TrackingError(f"{error}\nThe run's files would go to {where}.{other}") from error


def _source_tags(there: Mapping[str, str]) -> dict[str, str]:
    commit = str(source_state.current())
    tags = {"git.commit": commit} if commit else {}
    if commit and "mlflow.source.git.commit" not in there:
        tags["mlflow.source.git.commit"] = commit.removesuffix("-dirty")
    return tags


def artifact(run_id: str, path: str) -> Path:
    """A file of a finished run, on this machine.

    Raises  TrackingError: the run or the file is not there
    """
    with reached(f"get {path} of run {run_id}"):
        return Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=path))


def attach(run_id: str) -> Run:
    """A run that another process has open, to write to.  Raises  TrackingError: it has ended, or is not there"""
    with reached(f"find run {run_id}"):
        found = MlflowClient().get_run(run_id)
    if found.info.status != "RUNNING":
        raise TrackingError(f"Run {run_id} has ended ({found.info.status}).")
    data = found.inputs.dataset_inputs if found.inputs else ()
    return Run(run_id, found.info.experiment_id, {"job": "", **found.data.tags}, named=True, data=data)
