"""The model registry: what is registered, and its versions.

What is registered is one pyfunc model whose data is the bundle: `artifacts/model.pth` in its folder.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array

import widedeep
from experiments import environment
from experiments.store import check_store
from widedeep import store_trouble
from widedeep.errors import BundleError, RegistryError
from widedeep.recommender import Recommender
from widedeep.store_trouble import masked, trouble

BUNDLE = "model.pth"
CHECKED_USERS = 20
TAGS = {"task": "recommendation", "architecture": "Wide & Deep"}  # of a registered model
TOLERANCE = 1e-5  # by which scores of the model that came back from the registry may differ


@dataclass(frozen=True)
class Version:
    """A version of a registered model; `tags` and `description` are those of the version."""

    name: str
    number: int
    run_id: str
    tags: dict[str, str]
    description: str = ""

    @property
    def uri(self) -> str:
        return f"models:/{self.name}/{self.number}"

    def __str__(self) -> str:
        return f"{self.name} version {self.number}"


@contextlib.contextmanager
def reported(what: str) -> Iterator[None]:
    """Turns MLflow's complaints into RegistryError."""
    try:
        yield
    except MlflowException as error:
        found = trouble(error)
        raise RegistryError(f"Could not {what}: {found.reason}. {found.advice}".rstrip()) from error


def signature() -> ModelSignature:
    text, number = DataType.string, DataType.long
    return ModelSignature(
        inputs=Schema(
            [
                ColSpec(text, "user_id", required=False),
                ColSpec(number, "k", required=False),
                ColSpec(Array(text), "history", required=False),
                ColSpec(text, "item_id", required=False),
            ]
        ),
        outputs=Schema(
            [
                ColSpec(text, "user_id", required=False),
                ColSpec(text, "item_id"),
                ColSpec(number, "rank", required=False),
                ColSpec(DataType.double, "score"),
                ColSpec(text, "title"),
            ]
        ),
        params=ParamSchema(
            [ParamSpec("k", DataType.integer, 10), ParamSpec("exclude_seen", DataType.boolean, True)]
        ),
    )


def log_model(bundle: Path, card: Path, users: Sequence[Any]) -> str:
    """Log the bundle to the active run as a pyfunc model; its models:/ address.

    bundle  a file named model.pth
    card    what is to lie beside it
    users   some user ids, for the input example
    """
    logging.getLogger("mlflow.models.model").setLevel(logging.ERROR)
    example = pd.DataFrame({"user_id": [str(user) for user in users[:2]]})
    with reported("log the model"):
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={"model": str(bundle), "card": str(card)},
            code_paths=[str(Path(widedeep.__file__).parent)],
            pip_requirements=environment.requirements(),
            signature=signature(),
            input_example=example,
        )
    return str(logged.model_uri)


def register(model_uri: str, name: str, run_id: str, *, tags: dict[str, str], about: str) -> Version:
    """Make the logged model the next version of the registered model `name`, which is made if need be.

    tags   of the version
    about  description of the registered model
    """
    client = MlflowClient()
    with reported(f"register the model as {name}"):
        with contextlib.suppress(MlflowException):
            client.create_registered_model(name, tags=TAGS)
        client.update_registered_model(name, description=about)
        logged = mlflow.get_logged_model(model_uri.removeprefix("models:/"))
        made = client.create_model_version(
            name,
            logged.artifact_location,
            run_id=run_id,
            tags=tags,
            model_id=logged.model_id,
        )
        link = json.dumps([{"name": made.name, "version": made.version}])
        client.set_logged_model_tags(logged.model_id, {"mlflow.modelVersions": link})
    return version_of(made)


def version(name: str, number: int) -> Version:
    """Raises  RegistryError: there is no such version"""
    try:
        return version_of(MlflowClient().get_model_version(name, str(number)))
    except MlflowException as error:
        with reported(f"look up {name} version {number}"):
            if not is_missing(error, name):
                raise
        there = ", ".join(str(found) for found in numbers(name)) or "none"
        raise RegistryError(f"{name} has no version {number}. It has: {there}.") from error


def is_missing(error: MlflowException, name: str) -> bool:
    """Whether MLflow complains that a version or an alias of the model, or the model, is not there."""
    return store_trouble.is_missing(error, lambda: MlflowClient().get_registered_model(name))


def check_may_write(name: str) -> None:
    """See to it that this user may register versions of a model: after the training it would be dear to find out.

    name    empty: of none
    Raises  RegistryError
    """
    if not name:
        return
    with reported(f"write to the registered model {name}"):
        try:
            MlflowClient().delete_registered_model_tag(name, "widedeep.may_write")  # which is not there
        except MlflowException as error:
            if not is_missing(error, name):
                raise


def numbers(name: str) -> list[int]:
    """Of the versions that there are, ascending.  Raises  RegistryError"""
    with reported(f"list the versions of {name}"):
        return sorted(int(made.version) for made in MlflowClient().search_model_versions(f"name = '{name}'"))


def version_of(made: ModelVersion) -> Version:
    """What MLflow knows of a version, as ours."""
    tags, description = dict(made.tags or {}), made.description or ""
    return Version(made.name, int(made.version), made.run_id or "", tags, description)


def annotate(which: Version, *, tags: dict[str, str], description: str | None = None) -> None:
    client = MlflowClient()
    with reported(f"write to {which}"):
        for key, value in tags.items():
            client.set_model_version_tag(which.name, str(which.number), key, value)
        if description is not None:
            client.update_model_version(which.name, str(which.number), description=description)


def load(where: str, device: str = "auto") -> Recommender:
    """The Recommender at the path of a bundle or at a models:/ or runs:/ address.

    Raises  BundleError, RegistryError, TrackingError, DeviceError
    """
    if ":/" not in where:
        path = os.path.expanduser(where)
        if not os.path.isfile(path):
            raise BundleError(f"There is no model file {where}. Give a .pth file or models:/NAME@ALIAS.")
        return Recommender.load(path, device=device)
    check_store()  # which waits for seconds, where a download would for minutes
    try:
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=where))
    except (MlflowException, OSError) as error:
        raise RegistryError(
            f"Could not get {where} from {masked(mlflow.get_tracking_uri())}: {trouble(error).reason}. "
            "Is it registered? Look at the models in the MLflow UI, or train one with `mlflow run .`."
        ) from error
    bundle = folder if folder.is_file() else folder / "artifacts" / BUNDLE
    if not bundle.is_file():
        raise RegistryError(f"{where} is not a model of widedeep: it has no artifacts/{BUNDLE}.")
    return Recommender.load(bundle, device=device)


def check_registered(which: Version, trained: Recommender, users: Sequence[Any]) -> float:
    """Load the version as anyone would, and hold its answers against the trained model's.

    users    some user ids to ask for
    Returns  the largest difference of a score
    Raises   RegistryError: it does not load, or answers otherwise
    """
    asked = [str(user) for user in users]
    try:
        loaded = mlflow.pyfunc.load_model(which.uri)
        found = loaded.predict(pd.DataFrame({"user_id": asked}), params={"k": 20})
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RegistryError(f"{which} was registered but does not load or answer: {reason}") from error
    largest = 0.0
    for user in asked:
        mine = trained.recommend(user, 20)
        theirs = found[found["user_id"] == user]
        scores = theirs["score"].to_numpy(float)
        same_items = [str(item) for item in mine.item_ids] == theirs["item_id"].tolist()
        if len(scores) != len(mine.scores) or not (
            same_items or np.allclose(mine.scores, scores, atol=TOLERANCE)
        ):
            raise RegistryError(f"{which} ranks other items for user {user} than the model that was trained.")
        difference = np.abs(np.array(mine.scores) - scores).max(initial=0.0)
        largest = max(largest, float(difference))
    if largest > TOLERANCE:
        raise RegistryError(
            f"{which} gives scores that are up to {largest:.2g} away from those of the model that was trained."
        )
    return largest


def check_answers(which: Version) -> None:
    """Hold a version against the bundle in it, which the server reads.  Raises  RegistryError, BundleError"""
    bundle = load(which.uri)
    check_registered(which, bundle, bundle.processor.users.ids[:CHECKED_USERS].tolist())
