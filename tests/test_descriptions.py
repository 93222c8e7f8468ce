"""The texts that people read: what they say of known results."""

from __future__ import annotations

import dataclasses
import math
import shlex

import numpy as np
import pandas as pd
import pytest
import torch
import typed

from experiments import data_sheet, descriptions, experiment_page, exposure, report, search_texts, trust
from experiments.progress import Console
from experiments.recipe import Prepared, prepare
from experiments.trial_record import TrialRecord
from widedeep import DataConfig, Recommender
from widedeep.bootstrap import PairedDifference, paired_difference
from widedeep.config import SPLITS
from widedeep.datasets import Dataset
from widedeep.evaluation import POPULARITY_PARTS, thirds
from widedeep.interactions import Interactions, concatenate
from widedeep.split import Split, split


def prepared(board: Dataset, **settings: object) -> Prepared:
    config = DataConfig(**settings)  # type: ignore[arg-type]
    return Prepared(board, split(board.interactions, config), config)


@pytest.mark.parametrize("method", SPLITS)
def test_the_splits_do_not_leak(board: Dataset, method: str) -> None:
    found = prepared(board, split=method).trust
    assert found.clean
    assert (found.out_of_time == 0) == (method in trust.IN_ORDER)
    assert "none. Every row is in one part" in str(found)
    assert ("time was not looked at" in str(found)) == (method in ("random", "none"))


def test_others_futures_are_counted(board: Dataset) -> None:
    """All users of the board act at the same times, so those of user-time overlap by nothing, those of time neither."""
    assert prepared(board).trust.later == 0
    times = np.arange(len(board.interactions), dtype=np.int64)  # one user after the other
    rows = dataclasses.replace(board.interactions, timestamp=times)
    data = Prepared(board, split(rows, DataConfig()), DataConfig())
    assert data.trust.later == pytest.approx(0.5, abs=0.02)
    assert "50% of the rows" in data.trust.caution or "49% of the rows" in data.trust.caution
    assert Prepared(board, split(rows, DataConfig(split="time")), DataConfig()).trust.later == 0


def leaky(parts: Split, rows: Interactions) -> Split:
    """With `rows` in the test part, too."""
    return dataclasses.replace(parts, test=concatenate([parts.test, rows]))


def test_a_row_in_two_parts_is_found(board: Dataset, board_split: Split) -> None:
    rows = len(board.interactions)
    spoilt = leaky(board_split, board_split.train.take(np.arange(3)))
    found = trust.look(spoilt, rows + 3)
    assert not found.clean
    assert found.shared == 3
    assert str(found) == "Leak: 3 pairs of a user and an item are in two parts"
    assert "not have as many rows" in str(trust.look(spoilt, rows))


@pytest.mark.parametrize("method", trust.IN_ORDER)
def test_the_past_in_the_test_part_is_found(board: Dataset, method: str) -> None:
    parts = split(board.interactions, DataConfig(split=method))
    first = np.zeros(len(parts.train), dtype=bool)
    first[:2] = True
    moved = dataclasses.replace(leaky(parts, parts.train.take(first)), train=parts.train.take(~first))
    found = trust.look(moved, len(board.interactions))
    assert found.out_of_time == 1  # both rows are of the first user
    assert "earlier than rows they are predicted from" in str(found)


def test_thirds_are_of_the_interactions() -> None:
    count = torch.tensor([0, 30, 16, 14, 10, 9, 8, 3, 0])
    names = [POPULARITY_PARTS[part].split()[0] for part in thirds(count).tolist()]
    assert names == ["not", "head", "middle", "middle", "tail", "tail", "tail", "tail", "not"]


def test_exposure_counts_the_places_of_the_lists(trained: Recommender) -> None:
    found = exposure.look(trained)
    assert (found.users, found.catalogue) == (60, 40)
    assert sum(size for size, _, _ in found.parts.values()) == 40
    for column in (1, 2):
        assert sum(part[column] for part in found.parts.values()) == pytest.approx(1)
    lists = [trained.recommend(user, exposure.K).item_ids for user in range(1, 61)]
    assert found.items == len({item for items in lists for item in items})
    assert exposure.look(trained, seed=1).parts == found.parts  # all users are asked


def gain(ours: list[float], theirs: list[float], samples: int = 500) -> PairedDifference:
    return paired_difference(pd.Series(ours), pd.Series(theirs), samples=samples)


def test_a_gain_is_said_as_sure_as_it_is() -> None:
    low, high = [0.1, 0.2, 0.15] * 20, [0.3, 0.4, 0.36] * 20
    mixed = [0.1, 0.2, 0.16] * 20
    assert report.gain_text(gain(high, low), "EASE").startswith(
        "surely better than EASE: NDCG@10 0.3533 against 0.1500, +0.2033 (+135.6%), 95% interval +0.2"
    )
    assert report.gain_text(gain(low, high), "EASE").startswith("surely worse than EASE")
    assert report.gain_text(gain(mixed, mixed[::-1]), "EASE").startswith("not surely better than EASE")
    without = report.gain_text(gain(high, low, samples=0), "EASE")
    assert without == "above EASE: NDCG@10 0.3533 against 0.1500, +0.2033 (+135.6%)"


def trial(number: int = 2, state: str = "COMPLETE", value: float = 0.25, **tags: str) -> TrialRecord:
    named = {name.replace("_", ".", 1): text for name, text in tags.items()}
    metrics = {"validation/ndcg_at_10": None if math.isnan(value) else value}
    return TrialRecord(number, state, 0.0, 12.0, {"ranking_dropout": 0.5}, metrics, tags=named)


def test_a_trial_says_how_it_went() -> None:
    said = search_texts.of_trial(trial(optuna_study="nightly"))
    assert said.startswith("### Trial 2: validation NDCG@10 0.2500\n\n")
    assert "ranking_dropout 0.5" in said
    assert "suggested by the search" in said
    assert "of the study `nightly`" in said
    assert "the settings as given" in search_texts.of_trial(trial(number=1))
    assert "(from champion)" in search_texts.of_trial(trial(trial_origin="champion"))
    pruned = search_texts.of_trial(trial(state="PRUNED", trial_pruned_at="7"))
    assert "0.2500, pruned at epoch 7: it fell behind the others" in pruned
    failed = search_texts.of_trial(trial(state="FAIL", value=math.nan, trial_error="training diverged"))
    assert "### Trial 2: no figure, failed: training diverged" in failed


def test_a_data_sheet_answers_its_questions(board: Dataset) -> None:
    said = data_sheet.write(prepared(board))
    for heading in (
        "Where they are from", "What is in them", "What a like is", "What was done to them", "How they are split",
        "What is missing", "Whose data they are", "Terms", "Load them again",
    ):  # fmt: skip
        assert f"\n## {heading}\n" in said
    assert board.digest in said
    assert "| interactions | 1,440 |" in said
    assert "A rating of 4 or more" in said
    assert "age, city" in said
    assert "would have stopped the run" in said
    assert "the data are files of your own" in said
    parts = prepared(board).split
    assert f"| test | {len(parts.test):,} | {int(parts.test.liked(4.0).sum()):,} |" in said


def test_a_data_sheet_says_what_is_not_there(board: Dataset) -> None:
    rows = board.interactions
    bare = dataclasses.replace(
        board,
        interactions=dataclasses.replace(rows, rating=None, timestamp=None),
        users=board.users[["user_id"]],
        items=board.items.assign(genres="", title=""),
        notes=("ratings.csv: dropped 3 rows",),
    )
    said = data_sheet.write(prepared(bare))
    assert (
        "Not in the data: times, ratings, attributes of the users, genres of the items, titles of 42" in said
    )
    assert "every interaction counts as a like" in said
    assert "- ratings.csv: dropped 3 rows" in said


def test_a_data_sheet_of_made_up_data_says_so() -> None:
    config = DataConfig(dataset="synthetic", users=50, items=30, interactions=900)
    said = data_sheet.write(prepare(config, Console()))
    assert "Made up: 50 users, 30 items, seed 0. The preferences are planted" in said
    assert "Nobody's: the users are made up." in said


def test_the_experiments_columns_are_those_that_are_explained() -> None:
    said = experiment_page.description("7")
    assert "#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey=widedeep" in said
    for column in experiment_page.COLUMNS:
        kind, name = column.split(".", 1)
        if kind == "metrics":
            assert f"`{name.strip('`')}`" in said


def test_long_commands_are_broken_where_a_shell_goes_on() -> None:
    command = f"python -m server --model /{'long/' * 12}model.pth --host 127.0.0.1 --port 50051"
    said = descriptions.shell([("serve it", command), ("ask it", "python -m server.client info")])
    assert max(map(len, said.splitlines())) <= descriptions.WIDTH + 2
    assert [" ".join(shlex.split(found)) for found in typed.commands(said)] == [
        command,
        "python -m server.client info",
    ]
