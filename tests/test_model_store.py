"""What is served: a bundle by its path, or a version of a real registry."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import registries
import torch
from serving import recommender, running, save_bundle

from server.client import Client
from server.model_store import ModelStore
from server.registry import Registry
from server.settings import ServerSettings
from server.status import UnavailableError
from widedeep.errors import BundleError, ConfigError, DeviceError, RegistryError, TrackingError

MODEL_CODE = """
import mlflow

class Model(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input: list[str], params=None) -> list[str]:
        return model_input

mlflow.models.set_model(Model())
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A store with models:/films: version 1 and 2 are bundles, 3 has none, 4 has two; champion is 2."""
    import mlflow

    folder = tmp_path_factory.mktemp("registry")
    environment = dict(os.environ)
    uri = f"sqlite:///{folder}/mlflow.db"
    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient()
    experiment = client.create_experiment("films", artifact_location=(folder / "artifacts").as_uri())
    code = folder / "model_code.py"
    code.write_text(MODEL_CODE)
    bundle = save_bundle(folder)
    other = folder / "notes.txt"
    other.write_text("not a model")
    second = folder / "second"
    second.mkdir()
    shutil.copy(bundle, second)
    for artifacts in (
        {"bundle": str(bundle)},
        {"bundle": str(bundle)},
        {"notes": str(other)},
        {"bundle": str(bundle), "folder": str(second)},
    ):
        with mlflow.start_run(experiment_id=experiment):
            mlflow.pyfunc.log_model(
                name="model",
                python_model=str(code),
                artifacts=artifacts,
                pip_requirements=["torch"],
                registered_model_name="films",
            )
    client.set_registered_model_alias("films", "champion", "2")
    yield uri
    mlflow.set_tracking_uri(None)
    os.environ.clear()
    os.environ.update(environment)


def opened(model: str | Path, uri: str = "sqlite:///nowhere.db", device: str = "cpu") -> ModelStore:
    return ModelStore(ServerSettings(model=str(model), device=device, tracking_uri=uri, cache_models=False))


def load(model: str | Path, uri: str = "sqlite:///nowhere.db", device: str = "cpu") -> ModelStore:
    async def life() -> ModelStore:
        store = opened(model, uri, device)
        try:
            await store.start()
        finally:
            await store.stop()
        return store

    return asyncio.run(life())


def test_alias_is_pinned_to_its_version(registry: str) -> None:
    with load("models:/films@champion", registry).lease() as model:
        assert (model.name, model.version, model.alias) == ("films", "2", "champion")
        assert model.recommender.recommend(1, k=5) == recommender().recommend(1, k=5)


def test_version(registry: str) -> None:
    with load("models:/films/1", registry).lease() as model:
        assert (model.name, model.version, model.alias) == ("films", "1", "")


def test_served_from_the_registry_over_the_wire(registry: str) -> None:
    with (
        running("models:/films@champion", tracking_uri=registry, cache_models=False) as started,
        Client(started.target) as client,
    ):
        answer = client.recommend(1, k=5)
        assert str(answer.model) == "films version 2 (champion)"
        assert [item.item_id for item in answer.items] == [
            str(item) for item in recommender().recommend(1, k=5).item_ids
        ]


@pytest.mark.parametrize(
    ("model", "error", "text"),
    [
        ("models:/films@nobody", RegistryError, "nobody"),
        ("models:/films/99", RegistryError, r"version=99\) not found\. Register one"),
        ("models:/absent@champion", RegistryError, "absent"),
        ("models:/films/3", BundleError, "holds 0.*notes.txt"),
        ("models:/films/4", BundleError, "holds 2"),
    ],
)
def test_what_the_registry_does_not_have(
    registry: str, model: str, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        load(model, registry)


@pytest.mark.parametrize("uri", ["films@champion", "models:/films", "models:/films@", "models:/films/latest",
                                 "models:/films/0", "models:/a/b/1", "models:/films@champion/1"])  # fmt: skip
def test_model_uris_of_another_form(uri: str) -> None:
    if uri.startswith("models:"):
        with pytest.raises(ConfigError, match="models:/widedeep@champion"):
            opened(uri)
    else:
        with pytest.raises(BundleError, match="does not exist"):
            load(uri)


@pytest.mark.usefixtures("registry")  # it puts MLflow's global settings back
@pytest.mark.parametrize("uri", ["sqlite:///nowhere/mlflow.db", "http://127.0.0.1:9", "bogus://x"])
def test_a_store_that_is_not_there(uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrackingError, match=r"There is no MLflow store|cannot be used"):
        load("models:/films@champion", uri)
    assert list(tmp_path.iterdir()) == [], "no empty store is left behind"


def test_a_store_that_goes_away_is_not_made_anew(tmp_path: Path) -> None:
    with registries.registry(tmp_path) as releases:
        releases.move(releases.add())
        opened = Registry(releases.uri)
        found = opened.find(registries.NAME, "champion")
        releases.file.rename(tmp_path / "elsewhere.db")
        with pytest.raises(TrackingError, match="There is no MLflow store"):
            opened.find(registries.NAME, "champion")
        with pytest.raises(TrackingError, match="There is no MLflow store"):
            opened.download(found, tmp_path)
        assert not releases.file.exists(), "an empty store was made in its place"


def test_bundle_by_path(tmp_path: Path) -> None:
    path = save_bundle(tmp_path)
    with pytest.raises(UnavailableError, match="loading"), opened(path).lease():
        pass
    with load(path).lease() as model:
        assert model.name == "model.pth"
        assert len(model.version) == 12
        version = model.version
    path.write_bytes(path.read_bytes() + b"\0")
    with load(path).lease() as model:
        assert model.version != version, "the version tells files apart"


def test_a_model_that_cannot_answer_is_never_served(tmp_path: Path) -> None:
    path = save_bundle(tmp_path)
    content = torch.load(path, weights_only=True)
    content["processor"]["years"] = []
    torch.save(content, path)
    with pytest.raises(BundleError, match=r"model\.pth version \w+ was loaded but cannot answer"):
        load(path)


def test_files_that_cannot_be_served(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(save_bundle(tmp_path).read_bytes()[:-1000])
    with pytest.raises(BundleError, match=r"damaged\.pth"):
        load(damaged)
    with pytest.raises(BundleError, match="folder"):
        load(tmp_path)


def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises((DeviceError, ConfigError), match="abacus"):
        load(save_bundle(tmp_path), device="abacus")
