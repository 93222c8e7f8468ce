"""A real registry in an SQLite file, whose versions are folders with a bundle: made in milliseconds each."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from serving import save_bundle

from widedeep.bundle import DIGEST_TAG
from widedeep.files import sha256_of

NAME = "films"


class Releases:
    """The versions of models:/films."""

    def __init__(self, folder: Path, client: Any) -> None:
        self.folder = folder
        self.file = folder / "mlflow.db"
        self.client = client

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.file}"

    @functools.cached_property
    def content(self) -> dict[str, Any]:
        """Of a good bundle."""
        return torch.load(save_bundle(self.folder), weights_only=True)

    def add(self, content: dict[str, Any] | bytes | None = None, digest: str | None = None) -> str:
        """The number of a new version.

        content  of its bundle, or the bytes in place of one; None: a good one, by which this version is known
        digest   "": registered without one; None: the right one
        """
        number = sum(1 for _ in self.folder.glob("version-*")) + 1
        place = self.folder / f"version-{number}"
        place.mkdir()
        path = place / "model.pth"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            about = {**self.content["about"], "dataset": f"data {number}"}
            torch.save({**self.content, "about": about, **(content or {})}, path)
        digest = sha256_of(path) if digest is None else digest
        tags = {DIGEST_TAG: digest} if digest else {}
        return str(self.registered(path, tags).version)

    def registered(self, path: Path, tags: dict[str, str]) -> Any:
        """MLflow's version of this bundle."""
        return self.client.create_model_version(NAME, path.parent.as_uri(), tags=tags)

    def changed(self) -> dict[str, Any]:
        """Content of a bundle whose weights are not those that its probe was asked of."""
        state = dict(self.content["state"])
        state["calibration"] = state["calibration"] + 0.5
        return {"state": state}

    def move(self, version: str, alias: str = "champion") -> None:
        self.client.set_registered_model_alias(NAME, alias, version)

    @contextmanager
    def artifacts_away(self) -> Iterator[None]:
        """The artifact store cannot be reached."""
        away = self.folder / "away"
        away.mkdir()
        places = list(self.folder.glob("version-*"))
        for place in places:
            place.rename(away / place.name)
        yield
        for place in places:
            (away / place.name).rename(place)
        away.rmdir()

    @contextmanager
    def away(self) -> Iterator[None]:
        """The registry cannot be reached."""
        elsewhere = self.folder / "elsewhere.db"
        self.file.rename(elsewhere)
        self.file.mkdir()  # or SQLite makes an empty store for whoever is about to open it
        yield
        self.file.rmdir()
        elsewhere.rename(self.file)

    @contextmanager
    def replaced(self) -> Iterator[None]:
        """Another file takes the store's place, as from a backup: what is done in the block is done to it alone."""
        before = self.folder / "before.db"
        shutil.copy(self.file, before)
        yield
        shutil.copy(before, self.folder / "copy.db")
        (self.folder / "copy.db").rename(self.file)


@functools.cache
def _empty() -> Path:
    """A store with the model and no version: MLflow takes seconds to make one."""
    import mlflow

    file = Path(tempfile.mkdtemp()) / "empty.db"
    atexit.register(shutil.rmtree, file.parent)
    mlflow.MlflowClient(f"sqlite:///{file}").create_registered_model(NAME)
    return file


@contextmanager
def registry(folder: Path) -> Iterator[Releases]:
    """An empty registry; MLflow's settings of the whole process are put back at the end."""
    import mlflow

    environment = dict(os.environ)
    os.environ["MLFLOW_SQLALCHEMYSTORE_POOLCLASS"] = "NullPool"
    try:
        made = Releases(folder, None)
        shutil.copy(_empty(), made.file)
        mlflow.set_tracking_uri(made.uri)
        made.client = mlflow.MlflowClient()
        yield made
    finally:
        mlflow.set_tracking_uri(None)
        os.environ.clear()
        os.environ.update(environment)
