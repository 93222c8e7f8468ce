"""What a run holds, and what happens when the store is away."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from experiments import registry, source_state, tracking
from experiments.store import check_store, make_experiment
from experiments.tracked_data import InteractionsDataset
from experiments.tracking import Run, open_run
from experiments.trial_record import TrialRecord
from widedeep.datasets import Dataset
from widedeep.errors import TrackingError

pytest_plugins = ["experiment_fixtures"]


def test_a_run_ends_as_it_went(store: MlflowClient) -> None:
    with open_run("train", "a name") as good:
        pass
    with pytest.raises(ValueError, match="boom"), open_run("train", "a name") as failed:
        raise ValueError("boom")
    with pytest.raises(KeyboardInterrupt), open_run("train", "a name") as killed:
        raise KeyboardInterrupt
    found = [store.get_run(run.id).info for run in (good, failed, killed)]
    assert [info.status for info in found] == ["FINISHED", "FAILED", "KILLED"]
    assert {info.run_name for info in found} == {"train a name"}
    said = [store.get_run(run.id).data.tags.get("mlflow.note.content") for run in (good, failed, killed)]
    assert said == [None, "Failed: boom", "Interrupted before its end."]
    assert {store.get_experiment(info.experiment_id).name for info in found} == {"widedeep"}
    assert mlflow.active_run() is None


def test_the_experiment_is_the_flags_then_the_environments(
    store: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "from the environment")
    with open_run("train", "a") as first, pytest.raises(Exception, match="already active"):
        mlflow.start_run()
    with open_run("train", "b", "from the flag") as second:
        pass
    names = [store.get_experiment(run.experiment_id).name for run in (first, second)]
    assert names == ["from the environment", "from the flag"]


def test_under_mlflow_run_the_run_is_the_one_that_is_there(
    store: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = store.create_run(store.create_experiment("mine"), run_name="brave-owl-123")
    store.log_param(made.info.run_id, "trials", "'3'")  # mlflow run logs raw parameters
    monkeypatch.setenv("MLFLOW_RUN_ID", made.info.run_id)
    with open_run("main", "synthetic", "ignored") as run:
        run.params("job", {"trials": 3})
    assert run.id == made.info.run_id
    found = store.get_run(run.id)
    assert found.info.run_name == "main synthetic"
    assert found.data.params == {"trials": "'3'", "job.trials": "3"}


def test_a_name_that_a_person_gave_is_kept(store: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    made = store.create_run(store.create_experiment("mine"), run_name="the one for Monday")
    monkeypatch.setenv("MLFLOW_RUN_ID", made.info.run_id)
    with open_run("main", "synthetic"):
        pass
    assert store.get_run(made.info.run_id).info.run_name == "the one for Monday"


def test_a_run_is_renamed_after_what_it_is_about_unless_a_person_named_it(store: MlflowClient) -> None:
    for name, called in (("", "main synthetic"), ("mine", "mine")):
        with open_run("main", "auto", name=name) as run:
            run.rename("synthetic")
        assert store.get_run(run.id).info.run_name == called


def test_nested_settings_are_parameters_of_their_own(store: MlflowClient) -> None:
    with open_run("train", "a") as run:
        run.params("chosen", {"closed_form": {"wide_l2": 250.0, "factors": {"dim": 8}}, "epochs": 3})
    assert store.get_run(run.id).data.params == {
        "chosen.closed_form.wide_l2": "250.0",
        "chosen.closed_form.factors.dim": "8",
        "chosen.epochs": "3",
    }


def test_a_run_holds_metrics_tables_and_environment(store: MlflowClient, board: Dataset) -> None:
    with open_run("train", "a") as run:
        run.metrics({"loss": 0.5, "auc": float("nan"), "none": None}, step=1)
        run.metrics({"loss": 0.25}, step=2)
        run.params("model", {"hidden": (256, 128), "deep_share": None, "long": "x" * 9000})
        run.table(pd.DataFrame({"model": ["a", "b"], "ndcg": [0.1, 0.2]}), "evaluation/table.json")
        run.parquet(pd.DataFrame({"user": [1, 2]}), "evaluation/rows.parquet")
        run.dataset(board)
        run.describe("# hello")
    history = store.get_metric_history(run.id, "loss")
    assert [(point.step, point.value) for point in history] == [(1, 0.5), (2, 0.25)]
    found = store.get_run(run.id)
    assert set(found.data.metrics) & {"auc", "none"} == set()
    assert found.data.params["model.hidden"] == "256,128"
    assert len(found.data.params["model.long"]) == 500
    assert found.data.tags["mlflow.note.content"] == "# hello"
    assert found.data.tags["job"] == "train"
    environment = json.loads(tracking.artifact(run.id, "environment.json").read_text())
    assert environment["packages"]["torch"].startswith("2.")
    assert environment["source"] == source_state.current().to_dict()
    assert pd.read_parquet(tracking.artifact(run.id, "evaluation/rows.parquet"))["user"].tolist() == [1, 2]
    assert json.loads(tracking.artifact(run.id, "evaluation/table.json").read_text())["columns"] == [
        "model",
        "ndcg",
    ]
    [used] = found.inputs.dataset_inputs
    assert used.dataset.name == "checkerboard"
    assert board.digest.startswith(used.dataset.digest)
    assert json.loads(used.dataset.profile)["users"] == 60


def test_system_metrics_are_sampled(store: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking.quieten()
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    with open_run("train", "a") as run:
        time.sleep(1.0)
    assert "system/cpu_utilization_percentage" in store.get_run(run.id).data.metrics


def test_a_trial_is_a_child_with_its_curves(store: MlflowClient, board: Dataset) -> None:
    with open_run("tune", "a") as run:
        run.dataset(board)
        run.trial(
            TrialRecord(
                number=3,
                state="PRUNED",
                started=time.time() - 2,
                seconds=2.0,
                params={"dropout": 0.25},
                metrics={"validation/ndcg_at_10": 0.2},
                curves=[{"head": "ranking", "epoch": epoch, "ndcg_at_10": epoch / 10} for epoch in (1, 2)],
                tags={"trial.seed": "7"},
            )
        )
    [child] = store.search_runs([run.experiment_id], f"tags.mlflow.parentRunId = '{run.id}'")
    assert child.info.run_name == "trial 3 (pruned)"
    assert child.info.status == "FINISHED"
    assert child.data.tags["trial.state"] == "PRUNED"
    assert child.data.tags["trial.seed"] == "7"
    assert child.data.params == {"dropout": "0.25"}
    assert child.data.metrics["validation/ndcg_at_10"] == 0.2
    assert child.data.metrics["seconds"] >= 2
    points = store.get_metric_history(child.info.run_id, "curves/ranking_ndcg_at_10")
    assert [(point.step, point.value) for point in points] == [(1, 0.1), (2, 0.2)]
    parent = store.get_run(run.id)
    assert child.inputs.dataset_inputs == parent.inputs.dataset_inputs
    for tag in ("mlflow.user", "mlflow.source.name", "mlflow.source.type"):
        assert child.data.tags[tag] == parent.data.tags[tag]


@pytest.mark.usefixtures("store")
def test_a_trial_costs_a_few_calls_whatever_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("create_run", "log_batch", "set_terminated", "log_metric", "log_param", "set_tag"):
        real = getattr(MlflowClient, name)

        def counted(*args: object, _real: object = real, _name: str = name, **kwargs: object) -> object:
            calls.append(_name)
            return _real(*args, **kwargs)  # type: ignore[operator]

        monkeypatch.setattr(MlflowClient, name, counted)
    with open_run("tune", "a") as run:
        calls.clear()
        curves = [{"head": "ranking", "epoch": epoch, "a": 1.0, "b": 2.0} for epoch in range(100)]
        params = {f"p{number}": number for number in range(20)}
        run.trial(TrialRecord(1, "COMPLETE", time.time(), 1.0, params, {"v": 1.0}, curves))
        assert calls == ["create_run", "log_batch", "set_terminated"]
        calls.clear()
        best = TrialRecord(2, "COMPLETE", 1e9, 1.0, params, {"validation/ndcg_at_10": 1.0}, curves)
        run.trial(best, leader=best)
        run.trial(TrialRecord(3, "COMPLETE", time.time(), 1.0, params, {"v": 1.0}, curves), leader=best)
        trial = ["create_run", "log_batch", "set_terminated"]
        assert calls == [*trial, "log_batch", *trial]


def test_a_failed_trial_says_so_and_no_point_is_dropped(store: MlflowClient) -> None:
    curves = [{"head": "ranking", "epoch": epoch, "a": 1.0, "b": 2.0} for epoch in range(700)]
    with open_run("tune", "a") as run:
        run.trial(TrialRecord(4, "FAIL", 1e9, 61.5, {}, curves=curves, tags={"trial.error": "diverged"}))
    [child] = store.search_runs([run.experiment_id], f"tags.mlflow.parentRunId = '{run.id}'")
    assert child.info.status == "FAILED"
    assert child.data.tags["trial.error"] == "diverged"
    assert (child.info.start_time, child.info.end_time) == (1e12, 1e12 + 61_500)
    for name in ("a", "b"):
        points = store.get_metric_history(child.info.run_id, f"curves/ranking_{name}")
        assert [point.step for point in points] == list(range(700))


def test_the_parent_shows_the_best_so_far_whichever_worker_writes(store: MlflowClient) -> None:
    def record(number: int, value: float) -> TrialRecord:
        return TrialRecord(number, "COMPLETE", 1e9, number, {"l2": number}, {"validation/ndcg_at_10": value})

    one, five, seven, late = record(1, 0.1), record(5, 0.4), record(7, 0.3), record(6, 0.2)
    with open_run("tune", "a") as run:
        tags = store.get_run(run.id).data.tags
        other = Run(run.id, run.experiment_id, tags, named=True)
        run.trial(one, leader=one)
        other.trial(seven, leader=seven)
        run.trial(late, leader=late)  # does not know of trial 7
        other.trial(five, leader=five)
        run.trial(record(8, 0.05), leader=five)
    parent = store.get_run(run.id)
    assert parent.data.metrics["best/ndcg_at_10"] == 0.4
    assert (parent.data.tags["best.trial"], parent.data.tags["best.settings"]) == ("5", "l2=5")
    points = store.get_metric_history(run.id, "best/ndcg_at_10")
    assert sorted((point.step, point.value) for point in points) == [(1, 0.1), (7, 0.3), (8, 0.4)]
    assert len(store.search_runs([run.experiment_id], f"tags.mlflow.parentRunId = '{run.id}'")) == 5


def test_a_server_that_is_away_is_noticed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    said = r"127\.0\.0\.1:9: nothing answers.*\n.*MLFLOW_TRACKING_URI"
    with pytest.raises(TrackingError, match=said), open_run("a", "b"):
        pass
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


def test_a_model_of_a_server_that_is_away_is_given_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(TrackingError, match=r"127\.0\.0\.1:9: nothing answers"):
        registry.load("models:/widedeep@champion")


def test_a_store_that_cannot_be_opened_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    file.write_text("this is no database " * 100)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{file}")
    with pytest.raises(TrackingError, match=r"mlflow\.db"):
        check_store()


def test_files_that_cannot_be_written_are_noticed_before_training(
    store: MlflowClient, tmp_path: Path
) -> None:
    (tmp_path / "blocked").write_text("a file where a folder is needed")
    store.create_experiment("broken", artifact_location=str(tmp_path / "blocked" / "files"))
    with pytest.raises(TrackingError, match="--experiment-name"), open_run("train", "a", "broken"):
        raise AssertionError("training started")


def test_an_experiment_behind_mlflow_ui_is_explained(store: MlflowClient) -> None:
    store.create_experiment("proxied", artifact_location="mlflow-artifacts:/7")
    said = "--experiment-name widedeep"
    with pytest.raises(TrackingError, match=said) as refusal, open_run("train", "a", "proxied"):
        raise AssertionError("training started")
    assert "Start the tracking server" not in str(refusal.value)


def test_an_experiment_that_another_job_made_at_the_same_moment_is_used(store: MlflowClient) -> None:
    first, second = (make_experiment(store, "both") for _ in range(2))
    assert first.experiment_id == second.experiment_id
    with pytest.raises(MlflowException):
        make_experiment(store, "")


def test_a_deleted_experiment_is_named(store: MlflowClient) -> None:
    store.delete_experiment(store.create_experiment("gone"))
    with pytest.raises(TrackingError, match="'gone' was deleted"), open_run("train", "a", "gone"):
        pass


def test_the_data_set_is_listed_without_its_rows(board: Dataset) -> None:
    listed = InteractionsDataset(board)
    assert [column.name for column in listed.schema.inputs] == ["user_id", "item_id", "rating", "timestamp"]
    assert listed.profile["num_rows"] == len(board.interactions)
    assert json.loads(listed.to_dict()["source"])["tags"] == {"source": "made up for a test"}


def test_what_is_not_committed_is_kept_with_the_run(
    store: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    dirty = source_state.SourceState(commit="a" * 40, diff="-two\n+three\n", sha256="b" * 64)
    monkeypatch.setattr(source_state, "current", lambda: dirty)
    with open_run("train", "a") as run:
        pass
    tags = store.get_run(run.id).data.tags
    assert (tags["git.commit"], tags["mlflow.source.git.commit"]) == (f"{'a' * 40}-dirty", "a" * 40)
    assert tracking.artifact(run.id, "source.diff").read_text() == dirty.diff
    monkeypatch.setattr(source_state, "current", lambda: source_state.SourceState(commit="a" * 40))
    with open_run("train", "a") as clean:
        pass
    assert store.get_run(clean.id).data.tags["git.commit"] == "a" * 40
    assert "source.diff" not in {file.path for file in store.list_artifacts(clean.id)}
