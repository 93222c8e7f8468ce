"""The benchmarks of a trained model, run small, and the figures that they are made of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from experiments.benchmarks import cold_items, diversity, quality
from widedeep import Recommender
from widedeep.split import Split


def rows(folder: Path) -> dict[tuple[str, str], float]:
    found = json.loads((folder / "results.json").read_text())["rows"]
    return {(row["name"], row["metric"]): row["value"] for row in found}


def test_variety_grows_and_accuracy_pays(trained: Recommender, board_split: Split) -> None:
    points = diversity.curve(trained, board_split.test, shares=(0.0, 0.5, 1.0))
    ours = [point for point in points if point.name == "widedeep"]
    others = [point for point in points if point.name != "widedeep"]
    assert ours[0].ndcg == others[0].ndcg
    assert ours[0].diversity == others[0].diversity
    assert [point.share for point in ours] == [0.0, 0.5, 1.0]
    assert ours[0].diversity.value < min(ours[1].diversity.value, ours[2].diversity.value)
    assert ours[0].ndcg.value > ours[2].ndcg.value
    assert ours[0].ndcg.low < ours[0].ndcg.value < ours[0].ndcg.high


def test_random_places_are_the_ranking_at_0_and_anything_at_1() -> None:
    pool = torch.arange(1, 101).repeat(300, 1)
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(diversity._shuffled(pool, 0.0, generator), pool[:, :10])
    anything = diversity._shuffled(pool, 1.0, generator)
    assert anything.double().mean() == pytest.approx(50.5, abs=2)
    assert all(len(set(row)) == 10 for row in anything.tolist())
    short = torch.tensor([[5, 6, 0, 0]])
    assert diversity._shuffled(short, 1.0, generator)[0, 2:].tolist() == [0, 0]


def test_quality_of_a_known_ranking() -> None:
    places = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0], [0, 1, 2, 3]])
    liked = torch.tensor(
        [[True, False, False, False], [True, False, False, False], [True, False, False, True]]
    )
    values = cold_items.quality(places, liked)
    np.testing.assert_allclose(values[:, 0], [1, 1 / np.log2(5), (1 + 1 / np.log2(5)) / (1 + 1 / np.log2(3))])
    np.testing.assert_allclose(values[:, 1], [1, 0, 0.5])


def test_diversity_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert diversity.main(["--quick", "--out", str(tmp_path)]) == 0
    assert "# What variety costs" in capsys.readouterr().out
    assert (tmp_path / "diversity.png").read_bytes().startswith(b"\x89PNG")
    found = rows(tmp_path)
    assert found["widedeep, 1", "diversity@10"] > found["widedeep, 0", "diversity@10"]
    assert {f"widedeep, {share:g}" for share in diversity.SHARES} <= {name for name, _ in found}


def test_cold_items_from_the_command_line(tmp_path: Path) -> None:
    assert cold_items.main(["--quick", "--out", str(tmp_path)]) == 0
    found = rows(tmp_path)
    assert found["random", "liked above others"] == pytest.approx(0.5, abs=0.08)
    assert {name for name, _ in found} == {"widedeep", "newest first", "random"}


def test_a_release_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--dataset", "files", "--out", str(tmp_path)]
    assert diversity.main(flags) == 1
    assert cold_items.main(flags) == 1
    assert "ratings" in capsys.readouterr().err


def test_quality_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each part that is taken away is another row; nothing beats what the data was made from."""
    assert quality.main(["--quick", "--out", str(tmp_path), "--users", "150", "--interactions", "5000"]) == 0
    assert "| wide and low-rank | NDCG@10 |" in capsys.readouterr().out
    found = rows(tmp_path)
    names = {name for name, metric in found if metric == "Recall@20"}
    assert names == {
        "widedeep", "wide and low-rank", "wide alone", "popularity", "item-kNN", "iALS", "EASE", "best reachable",
    }  # fmt: skip
    assert found["widedeep", "NDCG@10"] == pytest.approx(found["widedeep, seed 0", "NDCG@10"])
    assert max(names, key=lambda name: found[name, "NDCG@10"]) == "best reachable"
    assert 0 < found["widedeep, seed 0", "AUC"] < 1


def test_the_mean_over_seeds_is_by_user() -> None:
    parts = [
        pd.DataFrame({"ndcg_at_10": values, "recall_at_20": values, "mrr": values}, index=["a", "b"])
        for values in ([0.0, 1.0], [1.0, 1.0], [0.5, 0.25])
    ]
    mean = quality.mean_of(parts)
    assert list(mean.columns) == ["ndcg_at_10", "recall_at_20"]
    assert mean["ndcg_at_10"].to_dict() == {"a": 0.5, "b": 0.75}


def test_a_quality_benchmark_of_nothing_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        quality.main(["--out", str(tmp_path), "--seeds", "0"])
    assert quality.main(["--out", str(tmp_path), "--dataset", "nothing"]) == 1
    assert "dataset" in capsys.readouterr().err
