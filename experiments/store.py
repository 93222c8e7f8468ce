"""The store that runs are written to: is it there, and what is said where it is not.

It is MLFLOW_TRACKING_URI, else mlflow.db in the working directory.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import mlflow
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy import NullPool, create_engine
from sqlalchemy.exc import SQLAlchemyError

from widedeep.errors import TrackingError
from widedeep.store_trouble import masked, trouble

STORE_ERRORS = (
    MlflowException,
    SQLAlchemyError,
    OSError,
    ImportError,
)  # the last: no driver for the database
REFUSALS = (  # BAD_REQUEST is not among them: MLflow says it of any trouble with its database
    "INVALID_PARAMETER_VALUE",
    "MALFORMED_REQUEST",
    "RESOURCE_DOES_NOT_EXIST",
    "RESOURCE_ALREADY_EXISTS",
)
ADVICE = (
    "Start the tracking server, or set MLFLOW_TRACKING_URI to one that runs; without it the store is mlflow.db in the "
    "working directory."
)
CONNECT_SECONDS = 10


@contextlib.contextmanager
def reached(what: str) -> Iterator[None]:
    """Turns what goes wrong between us and the store into TrackingError."""
    try:
        yield
    except STORE_ERRORS as error:
        found = trouble(error)
        raise TrackingError(
            f"Could not {what} at {masked(mlflow.get_tracking_uri())}: {found.reason}.\n{found.advice or ADVICE}"
        ) from error


@contextlib.contextmanager
def brief_requests(seconds: int = 10, retries: int = 1) -> Iterator[None]:
    """Within the block, requests to an MLflow server wait so long for an answer and are tried again so often.

    MLflow's own patience is meant for training: it would retry for minutes before it says a word.
    """
    patience = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(retries), "MLFLOW_HTTP_REQUEST_TIMEOUT": str(seconds)}
    before = {name: os.environ.get(name) for name in patience}
    os.environ.update(patience)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def check_store() -> None:
    """Ask the store for something, once and without long retries.

    Raises  TrackingError
    """
    with brief_requests(), reached("reach the tracking store"):
        _check_database(mlflow.get_tracking_uri())
        MlflowClient().search_experiments(max_results=1)


def make_experiment(client: MlflowClient, name: str) -> Experiment:
    """The new experiment, or the one that another job has made at the same moment."""
    try:
        return client.get_experiment(client.create_experiment(name))
    except MlflowException:
        made = client.get_experiment_by_name(name)
        if made is None:
            raise
        return made


def is_refusal(error: BaseException) -> bool:
    """Whether MLflow itself has said that it will not do what was asked, now or later.

    All else may pass: no connection, no answer in time, a locked database, a proxy's page.
    """
    refused = isinstance(error, MlflowException) and error.error_code in REFUSALS
    return refused and not str(error).startswith("API request to")  # so begins what no MLflow server has said


def _check_database(uri: str) -> None:
    """Connect to PostgreSQL once, where the store is one: MLflow tries for 100 seconds, also with a wrong password."""
    if uri.startswith("postgresql"):
        engine = create_engine(uri, poolclass=NullPool, connect_args={"connect_timeout": CONNECT_SECONDS})
        engine.connect().close()
