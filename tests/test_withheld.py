"""Withheld users and items: they are kept out of every fit, and what they get is as it must be."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from boards import small_config

from experiments.benchmarks import cold
from widedeep import Recommender
from widedeep.datasets import Dataset
from widedeep.errors import EmptyDataError
from widedeep.histories import Histories
from widedeep.interactions import concatenate
from widedeep.split import Split
from widedeep.withheld import cold_item_study, cold_user_study
from widedeep.withheld.parts import draw

CONFIG = small_config(epochs=1, ranking_epochs=6)


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[set[int], set[int]]]:
    """The users and the items that each fit was shown."""
    shown: list[tuple[set[int], set[int]]] = []
    real = Recommender.fit

    def watched(config: Any, dataset: Any, train: Any, validation: Any = None, **options: Any) -> Any:
        rows = train if validation is None else concatenate([train, validation])
        shown.append((set(rows.user_id.tolist()), set(rows.item_id.tolist())))
        return real(config, dataset, train, validation, **options)

    monkeypatch.setattr(Recommender, "fit", watched)
    return shown


def test_withheld_users_are_in_no_fit_and_get_what_their_history_says(
    board: Dataset, fits: list[tuple[set[int], set[int]]]
) -> None:
    study = cold_user_study(CONFIG, board, share=0.25, rounds=2, bootstrap=50)
    everyone = set(board.interactions.user_id.tolist())
    missing = [everyone - users for users, _ in fits]
    assert [len(users) for users in missing] == [0, 0, 15, 15, 15, 15]
    assert missing[2] == missing[3]
    assert missing[4] == missing[5]
    assert not missing[2] & missing[4]
    assert study.withheld == 30
    assert set(study.per_user["user"]) <= missing[2] | missing[4]
    ndcg = {
        known: study.figures["widedeep", known, "ndcg_at_10"].value
        for _, known, metric in study.figures
        if metric == "ndcg_at_10"
    }
    assert list(ndcg) == [
        "trained on",
        "whole history",
        "last 10 likes",
        "last 3 likes",
        "last like",
        "nothing",
    ]
    assert ndcg["whole history"] > 0.9 * ndcg["trained on"]  # the history tells even from odd
    assert ndcg["last like"] > ndcg["nothing"] + 0.1
    assert study.ratios["widedeep"].value == pytest.approx(ndcg["whole history"] / ndcg["trained on"])
    found = study.ratios["widedeep"]
    assert found.low <= found.value <= found.high


def test_with_nothing_known_every_ranker_is_popularity(board: Dataset) -> None:
    study = cold_user_study(CONFIG, board, share=0.25, bootstrap=0)
    rows = study.per_user
    nothing = {
        name: rows[(rows["ranker"] == name) & (rows["known"] == "nothing")].set_index("user")["ndcg_at_10"]
        for name in ("widedeep", "EASE")
    }
    assert nothing["widedeep"].equals(nothing["EASE"])  # both by likes, as EASE is chosen on them here
    popular = rows[rows["ranker"] == "popularity"]
    by_known = popular[popular["known"] != "trained on"].groupby("known")["ndcg_at_10"].mean()
    assert by_known.nunique() == 1


def test_cold_items_are_in_no_fit_and_are_told_apart_by_genre(
    board: Dataset, fits: list[tuple[set[int], set[int]]]
) -> None:
    study = cold_item_study(CONFIG, board, share=0.2, bootstrap=50)
    items = set(board.interactions.item_id.tolist())
    assert len(fits) == 2
    assert [len(items - seen) for _, seen in fits] == [8, 8]
    assert items - fits[0][1] == items - fits[1][1]
    assert study.withheld == 8
    assert study.candidates == 10  # and two that nobody ever had
    assert study.auc.low > 0.7  # comedies for the even users, dramas for the odd ones
    assert study.gains["ndcg_at_10"].value > 1.2
    assert study.gains["ndcg_at_10"].low > 1.0  # better than a random order, surely
    shuffled = board.items.assign(genres=np.random.default_rng(1).permutation(board.items["genres"]), year=0)
    blind = cold_item_study(CONFIG, dataclasses.replace(board, items=shuffled), share=0.2, bootstrap=0)
    assert blind.auc.value < study.auc.low


def test_a_random_order_of_cold_items_gains_nothing(board: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)

    def rank_scores(self: Recommender, user_index: torch.Tensor, histories: Histories) -> torch.Tensor:
        assert len(user_index) == len(histories)
        return torch.rand(len(user_index), self.processor.item_count, generator=generator)

    monkeypatch.setattr(Recommender, "rank_scores", rank_scores)
    study = cold_item_study(CONFIG, board, share=0.2, bootstrap=200)
    for found, expected in ((study.auc, 0.5), (study.gains["ndcg_at_10"], 1.0)):
        slack = (found.high - found.low) / 2  # the interval and as much again
        assert found.low - slack < expected < found.high + slack


def test_rounds_draw_others_each_time() -> None:
    ids = np.arange(100, 111)
    drawn = draw(ids, 0.2, 5, 0, "users")
    assert [len(part) for part in drawn] == [3, 3, 3]  # no fourth three among eleven
    assert len(set(np.concatenate(drawn).tolist())) == 9
    assert all((np.diff(part) > 0).all() for part in drawn)
    assert not np.array_equal(drawn[0], draw(ids, 0.2, 1, 1, "users")[0])
    for share in (0.0, 0.95):
        with pytest.raises(EmptyDataError, match="There are 11 users, of which"):
            draw(ids, share, 1, 0, "users")


def test_items_without_a_description_cannot_be_studied(board: Dataset, board_split: Split) -> None:
    assert len(board_split.train)
    bare = dataclasses.replace(board, items=board.items.iloc[:0])
    with pytest.raises(EmptyDataError, match="There are 0 items that the item table describes"):
        cold_item_study(CONFIG, bare)


def test_the_benchmark_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cold.main(["--quick", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    for line in ("| whole history | ", "| last 3 likes | ", "| nothing | ", "times a random order"):
        assert line in printed
    results = json.loads((tmp_path / "results.json").read_text())
    assert {"widedeep: withheld/trained on", "EASE: withheld/trained on"} <= set(results["ratios"])
    values = {(row["name"], row["metric"]): row["value"] for row in results["rows"]}
    ratio = values["widedeep, whole history", "NDCG@10"] / values["widedeep, trained on", "NDCG@10"]
    assert results["ratios"]["widedeep: withheld/trained on"] == pytest.approx(ratio)
    area = values["widedeep, cold items", "AUC"]
    assert results["ratios"]["widedeep, cold items/random AUC"] == pytest.approx(area / 0.5)


@pytest.mark.parametrize("flags", [[], ["--out", "x", "--rounds", "6"], ["--out", "x", "--rounds", "few"]])
def test_wrong_flags_stop_at_once(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cold.main(flags)
    assert caught.value.code == 2
    assert "--" in capsys.readouterr().err


def test_data_that_is_not_there_is_said_plainly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--dataset", "ml-1m", "--data-dir", str(tmp_path), "--out", str(tmp_path)]
    assert cold.main(flags) == 1
    assert "ml-1m" in capsys.readouterr().err
