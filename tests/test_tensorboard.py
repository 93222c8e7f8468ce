"""What TensorBoard shows of a run is what MLflow has of it. Of whole jobs test_pipeline and test_distributed see it."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import numpy as np
import pytest
import torch.nn.functional as F
from event_files import are_equal, in_files
from google.protobuf import text_format
from mlflow.tracking import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from experiments import tensorboard
from experiments.progress import Console
from experiments.tensorboard import Board
from experiments.tracking import open_run
from experiments.trial_record import TrialRecord
from widedeep import Recommender

pytest_plugins = ["experiment_fixtures"]


def test_scalars_are_those_of_mlflow(store: MlflowClient, tmp_path: Path) -> None:
    curves = [{"head": "ranking", "epoch": epoch, "ndcg_at_10": epoch / 7} for epoch in (1, 2, 3)]
    figures = {"validation/ndcg_at_10": 1 / 3, "auc": float("nan")}
    with open_run("tune", "a") as run:
        run.show_in(str(tmp_path / "boards"))
        for epoch in range(1, 4):
            run.metrics({"curves/a loss": 1 / epoch, "none": None}, epoch)
        run.metrics({"seconds/data": 0.1})
        for number, state in ((1, "COMPLETE"), (2, "PRUNED")):
            trial = TrialRecord(number, state, time.time(), 0.7, {"l2": 0.1, "kind": "a"}, figures, curves)
            run.trial(trial, leader=trial if number == 1 else None)
    board = tmp_path / "boards" / f"tune-{run.id[:8]}"
    assert are_equal(store, run.id, board)
    assert in_files(board)["best/ndcg_at_10"] == [(1, np.float32(1 / 3))]
    trials = store.search_runs([run.experiment_id], f"tags.mlflow.parentRunId = '{run.id}'")
    assert {child.info.run_name for child in trials} == {"trial 1", "trial 2 (pruned)"}
    for child in trials:
        assert are_equal(store, child.info.run_id, board / child.info.run_name)
    found = EventAccumulator(str(board / "trial 1"))
    found.Reload()
    content = found.SummaryMetadata(SESSION_START_INFO_TAG).plugin_data.content
    settings = HParamsPluginData.FromString(content).session_start_info.hparams
    assert (settings["l2"].number_value, settings["kind"].string_value) == (0.1, "a")


def test_without_a_folder_nothing_is_written(store: MlflowClient, tmp_path: Path) -> None:
    with open_run("tune", "a") as run:
        run.show_in("")
        run.metrics({"loss": 1.0})
    assert store.get_run(run.id).data.metrics["loss"] == 1.0
    assert list(tmp_path.rglob("events.out.tfevents*")) == []


def test_the_projector_has_the_items_with_most_likes_and_what_they_are(
    trained: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tensorboard, "SHOWN_ITEMS", 30)
    monkeypatch.setattr(trained.net, "factor_share", trained.net.factor_share.new_tensor(0.5))
    monkeypatch.setattr(trained.net.factors, "vectors", trained.net.factors.vectors.new_ones(43, 4))
    board = Board(tmp_path / "board")
    board.items(trained, Console())
    board.close()
    assert "vectors of the 30 of 40 items with most likes" in capsys.readouterr().err
    projector = text_format.Parse((tmp_path / "board/projector_config.pbtxt").read_text(), ProjectorConfig())
    assert [shown.tensor_name for shown in projector.embeddings] == [
        "items_deep:00000",
        "items_low_rank:00000",
    ]
    deep = projector.embeddings[0]
    with (tmp_path / "board" / deep.metadata_path).open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    vectors = np.loadtxt(tmp_path / "board" / deep.tensor_path, delimiter="\t")
    assert len(rows) == len(vectors) == 30
    likes = [float(row["likes"]) for row in rows]
    assert likes == sorted(likes, reverse=True)
    expected = F.normalize(trained.net.deep.candidate_vectors(trained.net.item_features)).detach()
    for row, vector in zip(rows, vectors, strict=True):
        item = int(row["item_id"])
        assert row["title"] == f"Film {item}"
        assert row["genres"] == ("Comedy" if item % 2 == 0 else "Drama|War")
        assert int(row["year"]) == 1980 + item % 30
        index = trained.processor.items.index_of([item])[0]
        np.testing.assert_allclose(vector, expected[index], atol=1e-6)
        assert float(row["likes"]) == float(trained.net.popularity[index])
