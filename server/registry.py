"""MLflow's model registry, as far as serving needs it. MLflow is imported when a registry is opened."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from widedeep.errors import RegistryError, TrackingError

SQLITE = "sqlite:///"
NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # the second is said of an alias


class Registry:
    """The models of one MLflow store.

    Raises  TrackingError, also from its methods: the store is not there or does not answer
    """

    def __init__(self, uri: str) -> None:
        """uri  as MLFLOW_TRACKING_URI; becomes the tracking URI of the whole process"""
        self._uri = uri
        file = uri.removeprefix(SQLITE).partition("?")[0]
        if uri.startswith(SQLITE) and not Path(file).is_file():
            # MLflow would make an empty database here and then find nothing in it.
            raise TrackingError(
                f"There is no MLflow store at {uri} (working directory: {Path.cwd()}). "
                "Start where the model was trained, or name the store with --tracking-uri."
            )
        # MLflow's own patience is meant for training: it would retry for minutes before it says a word.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        if not sys.stderr.isatty():
            os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        with self._explained():
            import mlflow

            mlflow.set_tracking_uri(uri)
            self._mlflow: Any = mlflow
            self._client = mlflow.MlflowClient()
            self._client.search_registered_models(max_results=1)  # so that later errors are about the model

    def version_of(self, name: str, alias: str) -> str:
        """The version that an alias means now.

        Raises  RegistryError: no such model or alias
        """
        with self._explained(f"models:/{name}@{alias}"):
            return str(self._client.get_model_version_by_alias(name, alias).version)

    def download(self, name: str, version: str, folder: Path) -> Path:
        """Put a version's files under `folder` and say where.

        Raises  RegistryError: no such model or version
        """
        uri = f"models:/{name}/{version}"
        with self._explained(uri):
            self._client.get_model_version(name, version)
        with self._explained():
            return Path(self._mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder)))

    @contextmanager
    def _explained(self, model: str = "") -> Iterator[None]:
        """model  what is looked up in the block, if its absence is to be a RegistryError"""
        try:
            yield
        except Exception as error:  # drivers of databases and object stores raise types of their own
            text = (str(error).splitlines()[0] if str(error) else type(error).__name__).rstrip(".")
            if model and getattr(error, "error_code", "") in NOT_THERE:
                raise RegistryError(
                    f"{model} is not in the registry at {self._uri}: {text}. "
                    "Register one with: mlflow run . --env-manager local"
                ) from error
            raise TrackingError(
                f"The MLflow store at {self._uri} cannot be used: {text}. "
                "Check that it runs, and name it with --tracking-uri or MLFLOW_TRACKING_URI."
            ) from error
