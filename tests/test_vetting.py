"""Jobs that hold their data against earlier ones: what they keep, say and refuse."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from experiment_runs import TRAINING, ok, ok_with_figures, run, table, words
from mlflow.tracking import MlflowClient

from experiments import references, tracking, vetting
from experiments.jobs import JobConfig
from experiments.profile import Profile
from experiments.profiling import examine
from experiments.progress import Console
from experiments.recipe import Prepared
from experiments.tracking import open_run
from widedeep import datasets
from widedeep.config import DataConfig
from widedeep.datasets import Dataset
from widedeep.errors import EmptyDataError
from widedeep.split import split

pytest_plugins = ["experiment_fixtures"]
CSV = ["--dataset", "files", "--rating-col", "stars"]


@pytest.fixture(scope="module")
def data() -> Dataset:
    return datasets.load(DataConfig(dataset="synthetic", users=300, items=200, interactions=12_000))


@pytest.fixture(scope="module")
def files(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """old: the first 80% by time; new: all; broken: all, with ratings out of ten"""
    folder = tmp_path_factory.mktemp("files")
    frame = data.interactions.to_frame().rename(columns={"rating": "stars"}).sort_values("timestamp")
    frames = {
        "old": frame[: int(0.8 * len(frame))],
        "new": frame,
        "broken": frame.assign(stars=2 * frame["stars"]),
    }
    for name, rows in frames.items():
        rows.to_csv(folder / f"{name}.csv", index=False)
    return {name: str(folder / f"{name}.csv") for name in frames}


@pytest.fixture(scope="module")
def kept(files: dict[str, str], shared_store: MlflowClient) -> str:
    """The id of a run of `validate` on old.csv, which a registered version says is its own."""
    ok_with_figures("validate", *CSV, "--ratings", files["old"], "--experiment", "data")
    [found] = shared_store.search_runs([shared_store.get_experiment_by_name("data").experiment_id])
    shared_store.create_registered_model("mine")
    shared_store.create_model_version("mine", "nowhere", run_id=found.info.run_id)
    shared_store.set_registered_model_alias("mine", "champion", "1")
    return str(found.info.run_id)


def test_validate_keeps_what_it_saw(kept: str, shared_store: MlflowClient) -> None:
    found = shared_store.get_run(kept)
    assert (found.info.status, found.data.tags["job"]) == ("FINISHED", "validate")
    assert "drift" not in found.data.tags
    assert [used.dataset.name for used in found.inputs.dataset_inputs] == ["files"]
    names = {Path(file.path).name for file in shared_store.list_artifacts(kept, "data")}
    assert names == {"profile.json", "user_ids.parquet", "item_ids.parquet", "overview.png"}
    assert "9,600 interactions" in found.data.tags["mlflow.note.content"].splitlines()[0]
    stored = Profile.from_dict(json.loads(tracking.artifact(kept, "data/profile.json").read_text()))
    assert (stored.interactions, references.of_run(kept).users.counts.sum()) == (9600, 9600)


def test_validate_compares_with_an_earlier_file(kept: str, files: dict[str, str]) -> None:
    del kept
    done = ok("validate", *CSV, "--ratings", files["new"], "--against", files["old"], "--experiment", "fine")
    assert done.out.rstrip().endswith("no drift")
    assert table(done.out)["interactions lost"][0] == "0.0%"


def test_a_run_and_the_version_that_it_made_name_the_same_data(kept: str, files: dict[str, str]) -> None:
    config = DataConfig(dataset="files", ratings=files["new"], rating_col="stars")
    for where in (kept, "models:/mine@champion", "models:/mine/1"):
        found, of_a_run = references.named(where, config, Console())
        assert (found.profile, of_a_run) == (references.of_run(kept).profile, True)
    again, of_a_run = references.named(files["old"], config, Console())
    assert (again.profile.digest, of_a_run) == (found.profile.digest, False)
    assert references.named("synthetic", config, Console())[0].profile.dataset == "synthetic"


def test_validate_ends_with_2_where_the_data_have_drifted(
    kept: str, files: dict[str, str], shared_store: MlflowClient
) -> None:
    words = ["validate", *CSV, "--ratings", files["broken"], "--against", kept, "--experiment", "refused"]
    done = run(*words)
    assert done.status == 2
    assert "ratings, PSI" in done.err
    assert "--on-drift warn" in done.err
    assert done.out.rstrip().splitlines()[-1].startswith("drift: ratings, PSI")
    [found] = shared_store.search_runs([shared_store.get_experiment_by_name("refused").experiment_id])
    assert (found.info.status, found.data.tags["drift"]) == ("FINISHED", "significant")
    assert found.data.metrics["drift/rating_psi"] > 0.25
    assert found.data.metrics["drift/new_users"] == pytest.approx(0.2, abs=0.06)
    description = found.data.tags["mlflow.note.content"]
    assert description.splitlines()[0] == "### files: 12,000 interactions; drift"
    assert "ratings, PSI" in description
    stored = json.loads(tracking.artifact(found.info.run_id, "data/drift.json").read_text())
    assert stored["verdict"] == "significant"
    assert ok(*words, "--on-drift", "warn").out == done.out


@pytest.mark.parametrize(
    ("against", "said"),
    [
        ("models:/mine@nobody", "No version of mine has the alias nobody"),
        ("models:/mine", "write models:/NAME@ALIAS"),
        ("0" * 32, "Could not get data/profile.json"),
        ("nothing.csv", "--against nothing.csv is no file"),
    ],
)
def test_validate_says_what_it_cannot_compare_with(
    kept: str, files: dict[str, str], against: str, said: str
) -> None:
    del kept
    done = run("validate", *CSV, "--ratings", files["old"], "--against", against)
    assert done.status == 2
    assert said in done.err


def test_train_refuses_before_it_trains_where_the_champions_data_were_others(
    kept: str, files: dict[str, str], shared_store: MlflowClient
) -> None:
    del kept
    settings = {
        name: value
        for name, value in TRAINING.items()
        if name not in ("dataset", "users", "items", "interactions")
    }
    done = run("train", *CSV, "--ratings", files["broken"], "--register", "mine", *words(settings))
    assert done.status == 2
    assert "The data are not like those of mine version 1 any more" in done.err
    [found] = shared_store.search_runs([shared_store.get_experiment_by_name("widedeep").experiment_id])
    assert (found.info.status, found.data.tags["drift"]) == ("FAILED", "significant")
    assert "seconds/select" not in found.data.metrics


def _prepared(data: Dataset) -> Prepared:
    config = DataConfig(dataset=data.name)
    return Prepared(data, split(data.interactions, config), config)


@pytest.mark.parametrize("on_drift", ["warn", "ignore"])
def test_who_asks_for_it_goes_on(
    kept: str, data: Dataset, shared_store: MlflowClient, capsys: pytest.CaptureFixture[str], on_drift: str
) -> None:
    del kept
    job = JobConfig(register="mine", on_drift=on_drift)
    with open_run("train", "a") as tracked:
        vetting.vet(_prepared(data), job, tracked, Console())
    tags = shared_store.get_run(tracked.id).data.tags
    assert tags.get("drift") == ("significant" if on_drift == "warn" else None)
    assert ("another data set" in tags.get("drift.reason", "")) == (on_drift == "warn")
    assert ("!!!" in capsys.readouterr().err) == (on_drift == "warn")
    assert references.of_run(tracked.id).profile.interactions == 12_000


def test_a_champion_without_a_profile_is_said_and_refuses_nothing(
    kept: str, data: Dataset, shared_store: MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    del kept
    shared_store.create_registered_model("older")
    shared_store.create_model_version("older", "nowhere")
    shared_store.set_registered_model_alias("older", "champion", "1")
    with open_run("train", "a") as tracked:
        vetting.vet(_prepared(data), JobConfig(register="older"), tracked, Console())
    assert "drift is not looked at. older version 1 has no profile" in capsys.readouterr().err
    assert "drift" not in shared_store.get_run(tracked.id).data.tags


def test_what_is_allowed_and_likely_to_disappoint_is_told(data: Dataset) -> None:
    profile = examine(data, DataConfig()).profile
    assert vetting.warnings(profile) == []
    few = dataclasses.replace(profile.per_user, quantiles=profile.per_user.quantiles | {"50": 3.0})
    told = vetting.warnings(
        dataclasses.replace(profile, per_user=few, liked=profile.interactions, last=profile.first)
    )
    assert [warning.split(" ", 2)[1] for warning in told] == ["of", "rating", "timestamps"]
    with pytest.raises(EmptyDataError, match="Lower --like-threshold"):
        vetting.warnings(dataclasses.replace(profile, liked=0))
