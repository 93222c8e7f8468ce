"""Studies on tiny data: the same again, gone on with, in a space of one's own, with several objectives."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from experiment_runs import run
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState

from experiments import (
    interrupts,
    objectives,
    recipe,
    search_space,
    spaces,
    studies,
    study_config,
    tracking,
    tune,
    warm_start,
)
from experiments.jobs import JobConfig
from experiments.progress import Console, Silent
from experiments.recipe import Prepared
from experiments.studies import Worker
from experiments.study_config import MEMORY, StudyConfig
from experiments.tracking import open_run
from experiments.trials import Trials
from experiments.tune import Search
from widedeep.config import Config, DataConfig, ModelConfig, TrainConfig, from_dict, to_dict
from widedeep.errors import ConfigError, TrackingError
from widedeep.recommender import Recommender

pytest_plugins = ["experiment_fixtures"]
EXAMPLE = str(Path(__file__).parent.parent / "examples" / "search_space.py")
SMALL = Config(
    DataConfig(dataset="synthetic", users=60, items=40, interactions=1500),
    ModelConfig(ranking_hidden=16, factor_share=0.0, wide_l2=100.0, wide_dropout=0.0, recency=0.0),
    TrainConfig(epochs=1, ranking_epochs=2, device="cpu"),
)
NOTHING = JobConfig(register="none")


@pytest.fixture(scope="module")
def data() -> Prepared:
    return recipe.prepare(SMALL.data, Silent())


def searched(
    data: Prepared, settings: StudyConfig, config: Config = SMALL, job: JobConfig = NOTHING
) -> tuple[Search, str]:
    """What it found, and its run."""
    with open_run("tune", "a") as tracked:
        return tune.search(config, data, job, settings, tracked, Console()), tracked.id


def children(client: MlflowClient, run_id: str) -> dict[int, dict[str, str]]:
    """The tags of a run's trials by their number."""
    [experiment] = {client.get_run(run_id).info.experiment_id}
    found = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{run_id}'")
    return {int(child.data.tags["trial.number"]): child.data.tags for child in found}


def test_the_same_seed_makes_the_same_trials(store: MlflowClient, data: Prepared) -> None:
    del store
    found = []
    for seed in (3, 3, 4):
        search, _ = searched(data, StudyConfig(trials=3, storage=MEMORY, tune_seed=seed))
        found.append([(attempt.params, attempt.value, attempt.state) for attempt in search.attempts])
    assert found[0] == found[1]
    assert found[0][1:] != found[2][1:]
    assert found[0][0] == found[2][0], "the settings as given, which no seed bears on"


def test_a_study_is_gone_on_with_under_its_name(store: MlflowClient, data: Prepared) -> None:
    first, first_run = searched(data, StudyConfig(trials=2, study="s"))
    again, again_run = searched(data, StudyConfig(trials=1, study="s"))
    assert [attempt.number for attempt in again.attempts] == [0, 1, 2]
    assert again.attempts[:2] == first.attempts, "curves, recipes and all, read from the journal"
    assert len({str(attempt.params) for attempt in again.attempts}) == 3, "it does not draw the same again"
    assert set(children(store, first_run)) == {1, 2}
    tags = children(store, again_run)[3]
    assert {tags["optuna.study"], tags["optuna.trial"], tags["trial.seed"]} == {"s", "2", "0"}
    assert Path(study_config.JOURNAL).is_file()
    other = dataclasses.replace(SMALL, train=dataclasses.replace(SMALL.train, epochs=2))
    with pytest.raises(ConfigError, match="made with epochs 1, and this call has 2"):
        searched(data, StudyConfig(trials=1, study="s"), other)
    with pytest.raises(ConfigError, match="another space"):
        searched(data, StudyConfig(trials=1, study="s", search_space=EXAMPLE))


def test_a_recipe_from_the_study_is_that_of_select(store: MlflowClient, data: Prepared) -> None:
    del store
    search, _ = searched(data, StudyConfig(trials=1, storage="here.journal"))
    alone = recipe.select(SMALL, data)
    assert search.selection.recipe == alone.recipe
    assert search.selection.curves == alone.curves
    assert search.selection.validation == alone.validation


def test_a_call_joins_the_run_of_the_one_that_is_at_the_study(store: MlflowClient, data: Prepared) -> None:
    made = store.create_run(store.create_experiment("mine"))
    first = tracking.attach(made.info.run_id)
    settings = StudyConfig(trials=1, study="s")
    tune.search(SMALL, data, NOTHING, settings, first, Console())
    _, joined = searched(data, settings)
    assert set(children(store, first.id)) == {1, 2}
    assert store.get_run(joined).data.tags["study.run"] == first.id
    assert store.get_run(first.id).info.status == "RUNNING"
    store.set_terminated(first.id)
    _, next_run = searched(data, settings)
    assert set(children(store, next_run)) == {3}


def test_a_space_of_ones_own_and_several_objectives(store: MlflowClient, data: Prepared) -> None:
    settings = StudyConfig(trials=3, search_space=EXAMPLE, objectives="ndcg,coverage,cost", storage=MEMORY)
    search, run_id = searched(data, settings)
    assert [set(attempt.params) for attempt in search.attempts] == [{"ranking_hidden", "deep_share"}] * 3
    assert search.attempts[0].config == SMALL
    assert all(attempt.state == "COMPLETE" for attempt in search.attempts)
    assert search.best.value == max(attempt.value or 0 for attempt in search.attempts)
    for attempt in search.attempts:
        beaten = [
            other for other in search.attempts
            if other.values[0] >= attempt.values[0] and other.values[1] >= attempt.values[1]
            and other.values[2] <= attempt.values[2] and other.values != attempt.values
        ]  # fmt: skip
        assert (attempt.number in search.pareto) == (not beaten)
        assert attempt.config.model.ranking_dim == max(8, attempt.config.model.ranking_hidden // 4) or (
            attempt.number == 0
        )
    found = store.get_run(run_id)
    assert found.data.tags["study.storage"] == MEMORY


def test_the_cost_is_that_of_the_shape(data: Prepared) -> None:
    def cost(**model: object) -> float:
        values = to_dict(SMALL.model) | {"deep_share": 0.5} | model
        config = dataclasses.replace(SMALL, model=from_dict(ModelConfig, values))  # type: ignore[type-var]
        found, _ = Recommender.fit(config, data.dataset, data.split.train, data.split.validation)
        return objectives.serving_cost(found)

    narrow, wide = cost(ranking_hidden=16, ranking_dim=32), cost(ranking_hidden=32, ranking_dim=32)
    entries = len(data.split.train) / len(set(data.split.train.user_id))
    assert (wide - narrow) * 1e6 == pytest.approx(16 * entries + 16 * 32)


def test_the_best_of_an_earlier_study_is_tried_early(store: MlflowClient, data: Prepared) -> None:
    del store
    first, _ = searched(data, StudyConfig(trials=2, study="s"))
    settings = StudyConfig(trials=3, study="t", warm_start="s")
    search, _ = searched(data, settings)
    assert [attempt.origin for attempt in search.attempts] == ["given", "study s", ""], "none is tried twice"
    assert [attempt.value for attempt in search.attempts[:2]] == [attempt.value for attempt in first.attempts]
    assert search.attempts[1].params == first.attempts[1].params
    assert search.attempts[2].params != first.attempts[1].params, (
        "the seed does not lead to the same draw again"
    )
    with pytest.raises(ConfigError, match=r"'missing' that is not in optuna.journal. There are: s, t."):
        searched(data, StudyConfig(trials=1, warm_start="missing"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def suggest(trial, base:\n", "cannot be read: SyntaxError"),
        ("x = 1\n", "has no function suggest. It needs `def suggest"),
        ("def suggest(trial, base):\n    return 3\n", "returned a int, not a Config"),
        ("def suggest(trial, base):\n    return base\n", "asks the trial for nothing"),
        ("def suggest(trial, base):\n    return base.nothing\n", "failed with AttributeError"),
        (
            "import dataclasses as d\ndef suggest(trial, base):\n"
            "    return d.replace(base, data=d.replace(base.data, data_seed=trial.suggest_int('data_seed', 1, 9)))\n",
            "changes the data or its split",
        ),
    ],
)
def test_a_space_that_cannot_be_used_is_told_at_once(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "space.py"
    file.write_text(text)
    done = run("tune", "--search-space", str(file))
    assert done.status == 2
    assert said in done.err
    assert "space.py" in done.err
    assert "There is no search space nothing.py" in run("tune", "--search-space", "nothing.py").err


def test_the_nearest_point_of_a_space() -> None:
    def suggest(trial: optuna.trial.BaseTrial, base: Config) -> Config:
        trial.suggest_float("ranking_learning_rate", 1e-4, 1e-3, log=True)
        trial.suggest_int("ranking_hidden", 100, 1000, step=50)
        trial.suggest_categorical("learn_from", ["all", "likes"])
        trial.suggest_float("of_mine", 2.0, 4.0)
        trial.suggest_float("ranking_dropout", 0.0, 0.25, step=0.1)
        trial.suggest_categorical("ranking_dim", [32, 64, 100])
        return base

    assert spaces.nearest(suggest, Config(), wanted={"ranking_dropout": 0.25}) == {
        "ranking_learning_rate": 1e-3, "ranking_hidden": 500, "learn_from": "all", "of_mine": 3.0, "ranking_dim": 100,
        "ranking_dropout": 0.2,
    }  # fmt: skip


def test_a_worker_is_the_same_though_its_start_seems_to_have_moved() -> None:
    worker = Worker.this()
    moved, another = (dataclasses.replace(worker, started=worker.started - ago) for ago in (1.0, 60.0))
    assert moved.is_same(worker)
    assert not moved.is_gone
    assert not another.is_same(worker)
    assert another.is_gone


def test_a_password_is_not_logged() -> None:
    url = "postgresql://me:secret@db:5432/optuna"
    assert study_config.to_dict(StudyConfig(storage=url))["storage"] == "postgresql://me:***@db:5432/optuna"
    assert (
        study_config.shown("postgresql://me@db/optuna?password=secret")
        == "postgresql://me@db/optuna?password=***"
    )
    with pytest.raises(TrackingError) as refused:
        studies.open_storage("postgresql://me:secret@127.0.0.1:1/optuna")
    assert "secret" not in str(refused.value)
    assert "--storage" in str(refused.value)


def test_a_trial_that_another_process_took_for_lost_is_let_go(store: MlflowClient, data: Prepared) -> None:
    del store
    settings = StudyConfig(trials=2, storage=MEMORY, warm_start="none")
    study = optuna.create_study(direction="maximize")

    def suggest(trial: optuna.trial.BaseTrial, base: Config) -> Config:
        found = search_space.suggest(trial, base)
        if (
            isinstance(trial, optuna.Trial) and trial.number == 0
        ):  # what another machine does when this one has slept for long
            study.tell(0, state=TrialState.FAIL)
            assert studies.try_again(study, study.trials[0])
        return found

    done: list[int] = []
    tune.one_by_one(Trials(SMALL, data, settings, suggest, Silent()), study, done.append)
    assert done == [1, 2]
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert study.trials[1].params == study.trials[0].params


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C as usual: where tests share the cores it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_waits_for_what_must_be_whole(ctrl_c: None) -> None:
    del ctrl_c
    written = []
    with pytest.raises(KeyboardInterrupt), interrupts.held_off():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        written.append("all of it")
    assert written
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_nothing_is_taken_from_a_champion_that_is_not_there(store: MlflowClient) -> None:
    del store
    storage = studies.open_storage(MEMORY)
    suggest = spaces.load("", SMALL)
    found = warm_start.points(SMALL, JobConfig(), StudyConfig(), suggest, storage, Console())
    assert [origin for origin, _ in found] == ["given"]
