"""The search: its space, what it may look at, and what it says when nothing comes of it."""

from __future__ import annotations

import dataclasses

import numpy as np
import optuna
import pytest
from mlflow.tracking import MlflowClient

from experiments import recipe, search_space, spaces, tune
from experiments.jobs import JobConfig
from experiments.progress import Console
from experiments.recipe import Prepared
from experiments.study_config import StudyConfig
from experiments.tracking import open_run
from widedeep.config import Config, DataConfig, ModelConfig, TrainConfig
from widedeep.datasets import Dataset
from widedeep.errors import TrainingError
from widedeep.interactions import Interactions

pytest_plugins = ["experiment_fixtures"]


def test_the_space_holds_the_defaults_and_leaves_alone_what_a_fit_chooses() -> None:
    point = spaces.nearest(search_space.suggest, Config())
    assert point == search_space.values(Config())
    assert search_space.suggest(optuna.trial.FixedTrial(point), Config()) == Config()
    given = dataclasses.replace(Config(), model=dataclasses.replace(ModelConfig(), wide_l2=100.0))
    assert search_space.suggest(optuna.trial.FixedTrial(point), given) == given


def test_a_configuration_outside_of_the_space_is_still_the_first_trial() -> None:
    odd = Config(model=ModelConfig(ranking_dropout=0.9, ranking_dim=7), train=TrainConfig(ranking_decay=0.0))
    point = spaces.nearest(search_space.suggest, odd)
    assert (point["ranking_dropout"], point["ranking_dim"], point["ranking_decay"]) == (0.8, 32, 1e-5)


def test_the_search_never_looks_at_the_test_part(store: MlflowClient) -> None:
    del store
    console = Console()
    config = Config(
        DataConfig(dataset="synthetic", users=60, items=40, interactions=1500),
        ModelConfig(ranking_hidden=16),
        TrainConfig(epochs=2, ranking_epochs=3, device="cpu"),
    )
    data = recipe.prepare(config.data, console)
    spoilt = dataclasses.replace(
        data, split=dataclasses.replace(data.split, test=data.split.test.take(np.arange(0)))
    )
    found = []
    for prepared in (data, spoilt):
        with open_run("tune", "a") as tracked:
            settings = StudyConfig(trials=3, storage="memory")
            search = tune.search(config, prepared, JobConfig(), settings, tracked, console)
        found.append([(attempt.value, attempt.config) for attempt in search.attempts])
    assert found[0] == found[1]


def test_a_search_whose_trials_all_fail_says_why(store: MlflowClient, board: Dataset) -> None:
    del store
    interactions = board.interactions
    parts = recipe.split(interactions, DataConfig())
    config = Config(train=TrainConfig(learning_rate=10.0, epochs=1, ranking_epochs=1, device="cpu"))
    broken = dataclasses.replace(parts, train=_with_endless_ratings(parts.train))
    prepared = Prepared(board, broken, config.data)
    with (
        open_run("tune", "a") as tracked,
        pytest.raises(TrainingError, match="None of the 2 trials got to its end"),
    ):
        tune.search(
            config, prepared, JobConfig(), StudyConfig(trials=2, storage="memory"), tracked, Console()
        )


def _with_endless_ratings(rows: Interactions) -> Interactions:
    assert rows.rating is not None
    return dataclasses.replace(rows, rating=np.where(rows.rating > 4, np.inf, rows.rating).astype(np.float32))
