"""MLflow's model registry, as far as serving needs it. MLflow is imported when a registry is opened."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from widedeep.bundle import DIGEST_TAG
from widedeep.errors import RegistryError, TrackingError
from widedeep.store_trouble import is_missing, masked, trouble

SQLITE = "sqlite:///"
ADVICE = "Check that it runs, and name it with --tracking-uri or MLFLOW_TRACKING_URI."


@dataclass(frozen=True)
class Found:
    """A version as the registry describes it; alias is empty where it was asked for by number."""

    name: str
    version: str
    alias: str
    tags: Mapping[str, str]
    created: int  # ms since 1970

    @property
    def digest(self) -> str:
        """The SHA-256 that its bundle must have; empty where it was registered without."""
        return self.tags.get(DIGEST_TAG, "")

    @property
    def uri(self) -> str:
        return f"models:/{self.name}/{self.version}"


def absolute(uri: str) -> str:
    """`uri` with the path of an SQLite file made absolute: the same store by one name, wherever one starts."""
    file, mark, options = uri.removeprefix(SQLITE).partition("?")
    return f"{SQLITE}{Path(file).absolute()}{mark}{options}" if uri.startswith(SQLITE) and file else uri


class Registry:
    """The models of one MLflow store. Its methods block.

    Raises  TrackingError, also from its methods: the store is not there or does not answer
    """

    def __init__(self, uri: str) -> None:
        """uri  as MLFLOW_TRACKING_URI; becomes the tracking URI of the whole process"""
        self._uri = uri
        where = absolute(uri)
        self._file = Path(where.removeprefix(SQLITE).partition("?")[0]) if uri.startswith(SQLITE) else None
        self._check_file()
        # MLflow's own patience is meant for training: it would retry for minutes before it says a word.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        if self._file:  # a connection that is kept would go on reading a file that another has replaced
            os.environ.setdefault("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
        if not sys.stderr.isatty():
            os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        with self._explained():
            import mlflow

            mlflow.set_tracking_uri(where)
            self._mlflow: Any = mlflow
            self._client = mlflow.MlflowClient()
            self._client.search_registered_models(max_results=1)  # so that later errors are about the model

    def find(self, name: str, alias: str = "", version: str = "") -> Found:
        """The version that an alias means now, or that has a number.

        Raises  RegistryError: no such model, alias or version
        """
        self._check_file()
        with self._explained(name, f"models:/{name}@{alias}" if alias else f"models:/{name}/{version}"):
            made = (
                self._client.get_model_version_by_alias(name, alias)
                if alias
                else self._client.get_model_version(name, version)
            )
            return Found(name, str(made.version), alias, dict(made.tags or {}), made.creation_timestamp or 0)

    def download(self, found: Found, folder: Path) -> Path:
        """Put a version's files under `folder` and say where."""
        self._check_file()
        with self._explained():
            return Path(
                self._mlflow.artifacts.download_artifacts(artifact_uri=found.uri, dst_path=str(folder))
            )

    def _check_file(self) -> None:
        """MLflow would make an empty database where there is none, and then find nothing in it."""
        if self._file and not self._file.is_file():
            raise TrackingError(
                f"There is no MLflow store at {self._uri} ({self._file}). "
                "Start where the model was trained, or name the store with --tracking-uri."
            )

    @contextmanager
    def _explained(self, name: str = "", model: str = "") -> Iterator[None]:
        """name, model  what is looked up in the block, if its absence is to be a RegistryError"""
        try:
            yield
        except Exception as error:  # drivers of databases and object stores raise types of their own
            found = trouble(error)
            if name and is_missing(error, lambda: self._client.get_registered_model(name)):
                raise RegistryError(
                    f"{model} is not in the registry at {masked(self._uri)}: {found.reason}. "
                    "Register one with: mlflow run . --env-manager local"
                ) from error
            raise TrackingError(
                f"The MLflow store at {masked(self._uri)} cannot be used: {found.reason}. {found.advice or ADVICE}"
            ) from error
