"""Retraining: the main job on the same data, on more data, and after a verdict."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pandas as pd
import pytest
from boards import checkerboard
from experiment_runs import Done, ok, run, words
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from experiments import aliases, recipe, registry, since, tracking
from experiments.flags import config_from
from experiments.jobs import JobConfig
from experiments.progress import Silent
from experiments.recipe import Prepared
from experiments.since import Key
from experiments.study_config import StudyConfig
from experiments.tracking import open_run
from widedeep.config import Config, DataConfig, TrainConfig

pytest_plugins = ["experiment_fixtures"]
SETTINGS = {
    "dataset": "files",
    "ratings": "ratings.csv",
    "trials": "1",
    "ranking-epochs": "20",
    "epochs": "2",
    "ranking-hidden": "16",
    "bootstrap": "0",
    "gate-samples": "200",
    "device": "cpu",
}
SPACE = Path(__file__).parent.parent / "examples" / "search_space.py"


def write(rows: pd.DataFrame) -> None:
    rows.to_csv("ratings.csv", index=False)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return checkerboard().interactions.to_frame()


@pytest.fixture(scope="module")
def first(shared_store: MlflowClient, rows: pd.DataFrame) -> Done:
    """The main job in an empty store, which has no champion to compare with."""
    del shared_store
    write(rows)
    return ok("main", *words(SETTINGS | {"since": "champion"}))


@pytest.fixture(scope="module")
def later(first: Done, rows: pd.DataFrame) -> Done:
    """With a row more, of another user, and fewer epochs; what comes of it takes no alias."""
    del first
    more = pd.DataFrame({"user_id": [61], "item_id": [2], "rating": [5.0], "timestamp": [2_000_000]})
    write(pd.concat([rows, more]))
    done = ok(
        "main",
        *words(SETTINGS | {"since": "champion", "alias": "none", "epochs": "1", "ranking-epochs": "1"}),
    )
    write(rows)
    return done


def newest(store: MlflowClient) -> Run:
    experiment = store.get_experiment_by_name("widedeep")
    return store.search_runs([experiment.experiment_id], "tags.job = 'main'", max_results=1)[0]


def test_without_a_champion_it_trains(first: Done, shared_store: MlflowClient) -> None:
    assert "no version of widedeep has the alias champion yet" in first.err
    version = shared_store.get_model_version_by_alias("widedeep", "champion")
    made_by = shared_store.get_run(version.run_id)
    assert made_by.data.tags[since.OUTCOME] == since.TRAINED
    assert version.tags[since.KEY] == made_by.data.tags[since.KEY]
    parts = json.loads(tracking.artifact(version.run_id, since.PARTS).read_text())
    assert Key(parts).text == version.tags[since.KEY]
    assert parts["data"] == version.tags["data_digest"]


def test_on_the_same_data_nothing_is_trained(first: Done, shared_store: MlflowClient) -> None:
    del first
    done = ok("main", *words(SETTINGS | {"since": "champion", "gate": "strict", "run-name": "nightly"}))
    assert done.out.startswith("Unchanged since widedeep version 1 (champion)")
    assert done.out.count("\n") == 1
    assert "trial" not in done.err
    assert len(registry.numbers("widedeep")) == 1
    found = newest(shared_store)
    assert (found.info.status, found.info.run_name) == ("FINISHED", "nightly")
    assert found.data.tags[since.OUTCOME] == since.UNCHANGED
    assert found.data.tags["mlflow.note.content"] == done.out.strip()
    assert "ndcg_at_10" not in found.data.metrics


def test_with_a_row_more_it_trains_and_says_what_is_new(later: Done, shared_store: MlflowClient) -> None:
    assert "since widedeep version 1: other data, +1 interactions, +1 users, +0 items" in later.err
    assert (
        "(1 later than its last, of 1970-01-12), epochs 2 -> 1, ranking_epochs 20 -> 1; training" in later.err
    )
    assert registry.numbers("widedeep") == [1, 2]
    found = newest(shared_store)
    assert found.data.metrics["since/interactions"] == found.data.metrics["since/later_interactions"] == 1
    assert found.data.tags[since.OUTCOME] == since.TRAINED


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        (
            {"gate": "refused", "gate.reason": "difference +0.0000."},
            "was refused by the gate (difference +0.0000)",
        ),
        ({"gate": "passed"}, "passed the gate"),
        (
            {"gate": "passed", "champion.rolled_back": "2026-03-04T05:06:07"},
            "lost the alias champion on 2026-03-04",
        ),
        ({"gate": "not judged yet"}, ""),
    ],
)
def test_what_was_judged_before_is_not_trained_again(later: Done, tags: dict[str, str], said: str) -> None:
    del later
    aliases.move_alias(registry.version("widedeep", 2), "champion", "for this test")
    registry.annotate(registry.version("widedeep", 1), tags=tags)
    job = JobConfig(since="champion")
    config, data = prepared()
    with open_run("main", "files") as tracked:
        known = since.nothing_new(
            Key.of(config, data, job, StudyConfig(trials=1)), data, job, tracked, Silent()
        )
    text = MlflowClient().get_run(tracked.id).data.tags.get("mlflow.note.content", "")
    assert known == bool(said)
    assert said in text
    assert not known or "python -m experiments promote --version 1;" in text


def prepared() -> tuple[Config, Prepared]:
    """What SETTINGS make."""
    config = config_from({name.replace("-", "_"): value for name, value in SETTINGS.items()})
    return config, recipe.prepare(config.data, Silent())


def test_the_key_is_of_what_decides_the_result(board_data: Prepared) -> None:
    def key(
        config: Config | None = None,
        data: Prepared = board_data,
        search: StudyConfig = StudyConfig(),  # noqa: B008
        **job: object,
    ) -> str:
        return Key.of(config or Config(), data, JobConfig(**job), search).text  # type: ignore[arg-type]

    same = key()
    assert key(Config(train=TrainConfig(device="cpu", checkpoint="a.ckpt"))) == same
    assert (
        key(gate="strict", run_name="nightly", since="champion", bootstrap=10, tensorboard="boards") == same
    )
    assert key(Config(train=TrainConfig(seed=1))) != same
    assert key(search=StudyConfig(jobs=3, study="nightly", storage="a.journal")) == same
    assert key(search=StudyConfig(trials=5)) != same
    assert key(search=StudyConfig(search_space=str(SPACE))) != same
    assert key(refit=False) != same
    other = dataclasses.replace(board_data, config=DataConfig(test_fraction=0.3))
    assert key(data=other) != same
    titles = board_data.dataset.items.assign(title="another")
    retitled = dataclasses.replace(board_data.dataset, items=titles)
    assert key(data=dataclasses.replace(board_data, dataset=retitled)) != same


@pytest.fixture
def board_data() -> Prepared:
    board = checkerboard()
    return Prepared(board, recipe.split(board.interactions, DataConfig()), DataConfig())


def test_since_needs_a_registered_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("main", "--since", "champion", "--register", "none")
    assert (done.status, list(tmp_path.iterdir())) == (2, [])
    assert "since=champion needs the name of a registered model: --register NAME" in done.err
