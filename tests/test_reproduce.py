"""A run trained again: equal, changed afterwards, on other data, and what cannot be trained again."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from boards import checkerboard
from experiment_runs import Done, ok, run, table, words
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from experiments import circumstances, recipe, reproduce, source_state, tracking
from experiments.circumstances import Check
from experiments.original import load
from experiments.progress import Silent
from experiments.sameness import Figure, Sameness, compare
from experiments.tracking import open_run
from widedeep.bootstrap import Interval
from widedeep.report import Report

pytest_plugins = ["experiment_fixtures"]
SETTINGS = {
    "dataset": "files",
    "ratings": "ratings.csv",
    "ranking-epochs": "20",
    "epochs": "2",
    "ranking-hidden": "16",
    "bootstrap": "50",
    "refit": "false",
    "device": "cpu",
}


@pytest.fixture(scope="module")
def original(shared_store: MlflowClient) -> Run:
    """A run of `train` whose data have moved since."""
    checkerboard().interactions.to_frame().to_csv("ratings.csv", index=False)
    ok("train", *words(SETTINGS))
    Path("ratings.csv").rename("moved.csv")
    experiment = shared_store.get_experiment_by_name("widedeep")
    [found] = shared_store.search_runs([experiment.experiment_id])
    return found


@pytest.fixture(scope="module")
def again(original: Run) -> Done:
    return ok("reproduce", original.info.run_id, "--ratings", "moved.csv")


@contextmanager
def changed(original: Run, path: str, **values: Any) -> Iterator[None]:
    """A file of the run with other values of `path`'s keys, which are A__B for one in another."""
    file = Path(original.info.artifact_uri.removeprefix("file://")) / path
    before = file.read_text()
    content = json.loads(before)
    for key, value in values.items():
        *sections, name = key.split("__")
        part = content
        for section in sections:
            part = part[section]
        part[name] = value
    file.write_text(json.dumps(content))
    try:
        yield
    finally:
        file.write_text(before)


def test_the_same_again_is_equal(again: Done) -> None:
    assert again.out.endswith("Reproduced: everything is equal, bit for bit.\n")
    assert "NDCG@10 is equal for 60 of 60 users." in again.out
    assert "Weights: equal." in again.out
    assert "What validation chose: equal." in again.out
    found = table(again.out)
    assert {
        found[row][-1] for row in ("python", "processor", "threads", "packages", "source", "settings")
    } == {"same"}
    assert found["data"][-1] == found["item and user tables"][-1] == "same"
    assert found["NDCG@10"][-1] == found["validation NDCG@10"][-1] == "equal"


def test_it_is_a_run_of_its_own(again: Done, original: Run, shared_store: MlflowClient) -> None:
    del again
    query = f"tags.reproduces = '{original.info.run_id}'"
    [found] = shared_store.search_runs([original.info.experiment_id], query)
    assert (found.data.tags["job"], found.data.tags["verdict"]) == ("reproduce", "reproduced")
    assert found.data.tags["weights_sha256"] == original.data.tags["weights_sha256"]
    assert found.data.metrics["ndcg_at_10"] == original.data.metrics["ndcg_at_10"]
    assert found.data.metrics["reproduction/largest_difference"] == 0
    note = found.data.tags["mlflow.note.content"]
    assert note.startswith("### Reproduced")
    assert f"runs/{original.info.run_id})" in note
    stored = json.loads(tracking.artifact(found.info.run_id, "reproduction/reproduction.json").read_text())
    assert stored["users"] == stored["users_equal"] == 60
    assert {figure["found"] for figure in stored["figures"]} == {"equal"}
    shown = json.loads(
        tracking.artifact(found.info.run_id, "reproduction/circumstances_table.json").read_text()
    )
    assert shown["columns"] == ["what", "then", "now", "found"]
    refused = run("reproduce", found.info.run_id)
    assert refused.status == 2
    assert f"Reproduce what it reproduces: {original.info.run_id}" in refused.err


def test_another_training_is_not_the_run(original: Run) -> None:
    """With a choice of validation that was not made, taken as it is and made anew."""
    id_, places = original.info.run_id, ("--ratings", "moved.csv")
    with changed(original, "recipe.json", chosen__like_epochs=1):
        taken = run("reproduce", "--run_id", id_, *places, "--from-scratch", "false")
    assert taken.status == 2
    assert "Not reproduced" in taken.out
    assert "Weights: other." in taken.out
    assert table(taken.out)["AUC"][-1] != "equal"
    assert (
        ") is not reproduced: machine, versions, source, settings and data are the same, and yet" in taken.err
    )


@pytest.mark.parametrize(
    ("path", "values", "said"),
    [
        (
            "recipe.json",
            {"config__train__seed": 1},
            "was changed after it (parameters: seed 0; recipe.json: seed 1)",
        ),
        (
            "recipe.json",
            {"config__data__like_threshold": 3.0},
            "was changed after it (parameters: like_threshold 4.0; recipe.json: like_threshold 3.0)",
        ),
        (
            "recipe.json",
            {"config__train__sead": 1},
            "do not fit this widedeep: TrainConfig has no field 'sead'",
        ),
    ],
)
def test_a_recipe_that_was_changed_is_not_trained(
    original: Run, path: str, values: dict[str, Any], said: str
) -> None:
    with changed(original, path, **values):
        done = run("reproduce", original.info.run_id, "--ratings", "moved.csv")
    assert done.status == 2
    assert said in done.err


def test_other_data_are_refused(original: Run) -> None:
    rows = pd.read_csv("moved.csv")
    rows.iloc[:-1].to_csv("fewer.csv", index=False)
    done = run("reproduce", original.info.run_id, "--ratings", "fewer.csv")
    assert done.status == 2
    assert "(files of fewer.csv: 1439 interactions, digest " in done.err
    assert "so nothing was trained. Name those with --data-dir or --ratings" in done.err
    assert table(done.out)["data"][-1] == "other"
    gone = run("reproduce", original.info.run_id)
    assert gone.status == 2
    assert "could not be loaded again, so nothing was trained: " in gone.err


def test_what_differs_is_said(original: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run that was made elsewhere, by an earlier version, from a source that nobody has."""
    values = {"packages__numpy": "1.0", "build__torch": "2.0", "processor": None, "threads": 10_000}
    monkeypatch.setattr(
        source_state, "current", lambda: source_state.SourceState("a" * 40, "+one\n", "b" * 64)
    )
    with changed(original, "environment.json", **values):
        then = load(original.info.run_id)
    places = dataclasses.replace(then.recipe.config.data, ratings="moved.csv")
    with circumstances.threads_of(then):
        checks = circumstances.look(then, then.recipe.config, recipe.prepare(places, Silent()))
    found = {check.what: check for check in checks}
    assert found["packages"].then == "numpy 1.0, torch 2.0"
    assert found["packages"].same is False
    assert found["processor"].word == "unknown"
    assert (found["threads"].then, found["threads"].now) == ("10000", "1")
    assert found["source"].now == f"{'a' * 12} and changes {'b' * 12}"
    assert found["data"].same
    assert not circumstances.equality_expected(checks, "cpu")


@pytest.mark.parametrize("job", ["tune", "validate"])
def test_what_has_no_test_figures_cannot_be_reproduced(original: Run, job: str) -> None:
    del original
    with open_run(job, "a") as other:
        pass
    done = run("reproduce", other.id)
    assert done.status == 2
    assert (
        f"is a finished run of {job}. What can be reproduced: finished runs of main, train, evaluate"
        in done.err
    )


def test_a_run_that_is_not_there_or_not_named(original: Run) -> None:
    del original
    assert "Could not find run 0123" in run("reproduce", "0123").err
    assert "reproduce needs the id of a run" in run("reproduce").err
    with open_run("train", "a") as bare:
        pass
    assert "has no figures of a test part" in run("reproduce", bare.id).err


def report(ndcg: float, users: dict[int, float]) -> Report:
    per_user = pd.DataFrame({"ndcg_at_10": users.values()}, index=pd.Index(users.keys(), name="user"))
    metrics = {"ndcg_at_10": Interval(ndcg, 0.4, 0.6), "auc": Interval(math.nan, math.nan, math.nan)}
    return Report("widedeep", metrics, len(users), 10, per_user=per_user)


def found(ndcg: float, users: dict[int, float] | None = None, **others: bool) -> Sameness:
    then = report(0.5, {1: 0.25, 2: 0.75})
    return compare(then, report(ndcg, users or {2: 0.75, 1: 0.25}), ({}, {}), others)


def test_equality_is_of_every_bit() -> None:
    assert found(0.5).equal
    assert not found(np.nextafter(0.5, 1)).equal
    assert not found(0.5, {1: 0.25, 2: float(np.nextafter(0.75, 1))}).equal
    assert not found(0.5, weights=False).equal
    apart = found(0.5, {1: 0.5, 2: 0.75})
    assert (apart.users, apart.users_equal, apart.farthest) == (2, 1, 0.25)
    assert found(0.5, {1: 0.25, 3: 0.75}).lines()[0] == "The users of the test part are not the same."


def test_the_verdict_asks_for_equality_only_where_it_can_be() -> None:
    near, far = found(0.55), found(0.61)
    assert reproduce.judge(found(0.5), exact=True).word == "reproduced"
    assert reproduce.judge(near, exact=True).word == "not reproduced"
    within = reproduce.judge(near, exact=False)
    assert within.word == "reproduced"
    assert "within the 95% intervals" in within.reason
    assert "+0.05, of NDCG@10" in within.reason
    weights = reproduce.judge(found(0.5, weights=False), exact=False)
    assert weights.reason.startswith("every test figure is equal; ")
    assert weights.reason.endswith("(not equal: weights).")
    assert reproduce.judge(found(0.5, weights=False), exact=True).word == "not reproduced"
    outside = reproduce.judge(far, exact=False)
    assert outside.word == "not reproduced"
    assert outside.reason.startswith("outside of the 95% interval: NDCG@10")


def test_a_figure_without_an_interval_has_to_be_equal() -> None:
    bare = Interval(0.5, math.nan, math.nan)
    assert Figure("auc", bare, 0.5).within
    assert not Figure("auc", bare, 0.51).within
    biased = Interval(0.010, 0.011, 0.03)  # as of a calibration error
    assert Figure("calibration_error", biased, 0.0105).within
    assert not Figure("auc", Interval(0.5, 0.4, 0.6), math.nan).within


def test_equality_is_expected_where_nothing_differs_and_a_cpu_computes() -> None:
    same, other, unknown = (Check.of("a", "x", now) for now in ("x", "y", None))
    assert circumstances.equality_expected([same], "cpu")
    assert not circumstances.equality_expected([same], "cuda")
    assert not circumstances.equality_expected([same, other], "cpu")
    assert not circumstances.equality_expected([same, unknown], "cpu")
