"""The jobs on tiny data: what they log, register, print and refuse."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pandas as pd
import pytest
import typed
from event_files import are_equal
from experiment_runs import SETTINGS, TINY, TRAINING, Done, ok, ok_with_figures, run, table, words
from mlflow import artifacts
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.tracking import MlflowClient

from experiments import registry, tracking
from widedeep.baselines import BASELINES
from widedeep.config import ModelConfig, TrainConfig
from widedeep.recommender import Recommender

pytest_plugins = ["experiment_fixtures"]
METRICS = {
    "NDCG@10", "Recall@10", "Recall@20", "HR@10", "MRR", "Coverage@10", "AUC", "Log loss", "Calibration error",
}  # fmt: skip
REFERENCES = {f"reference/{baseline.name}_ndcg_at_10" for baseline in BASELINES}
MODELS = ["widedeep", *(baseline.name for baseline in BASELINES), "best reachable"]


@pytest.fixture(scope="module")
def first(shared_store: MlflowClient) -> Done:
    """The main job in an empty store, with all its figures."""
    del shared_store
    return ok_with_figures("main", *words(TINY | {"trials": "2", "tensorboard": "boards"}))


@pytest.fixture(scope="module")
def main_run(first: Done, shared_store: MlflowClient) -> Run:
    del first
    experiment = shared_store.get_experiment_by_name("widedeep")
    [found] = shared_store.search_runs([experiment.experiment_id], "tags.job = 'main'")
    return found


@pytest.fixture(scope="module")
def version(first: Done, shared_store: MlflowClient) -> ModelVersion:
    del first
    return shared_store.get_model_version("widedeep", "1")


def test_the_main_job_ends_with_the_table(first: Done) -> None:
    found = table(first.out)
    assert set(found) >= METRICS
    assert found["NDCG@10"][0] != found["NDCG@10"][1]
    assert len(found["NDCG@10"]) == len(MODELS)
    header = first.out.splitlines()[2]
    assert [name for name in MODELS if name in header] == MODELS


def test_the_main_job_ends_with_commands_that_name_what_there_is(
    first: Done, main_run: Run, shared_store: MlflowClient
) -> None:
    lines = first.out.split("Next:\n")[1].splitlines()
    assert len(lines) == 4
    assert f"python -m experiments reproduce {main_run.info.run_id}" in lines[3]
    assert "mlflow ui" in lines[0]
    assert "python -m server --model models:/widedeep@champion" in lines[1]
    user = lines[2].split("--user-id ")[1].split()[0]
    uri = f"models:/widedeep/{shared_store.get_model_version_by_alias('widedeep', 'champion').version}"
    assert registry.load(uri).recommend(user).cold_start is None


def test_synthetic_data_are_called_so(main_run: Run, version: ModelVersion) -> None:
    assert "Synthetic data: made up, not real." in main_run.data.tags["mlflow.note.content"]
    assert "Synthetic data: made up, not real." in version.description
    assert main_run.data.tags["synthetic"] == version.tags["synthetic"] == "true"
    assert [used.dataset.name for used in main_run.inputs.dataset_inputs] == ["synthetic"]


def test_the_run_holds_figures_tables_recipe_and_bundle(main_run: Run, shared_store: MlflowClient) -> None:
    def files(folder: str) -> set[str]:
        return {Path(file.path).name for file in shared_store.list_artifacts(main_run.info.run_id, folder)}

    assert files("") >= {
        "model.pth", "recipe.json", "config.json", "environment.json", "model_card.md", "data_sheet.md",
    }  # fmt: skip
    assert files("figures") == {
        "differences.png", "embedding_map.html", "embedding_map.png", "examples.html", "gate.png", "ndcg_by_model.png",
        "precision_recall.png", "reliability.png", "search.png", "search_parallel.png", "search_slices.png",
        "slices.png", "study.html", "thresholds.png", "time.png", "trade_offs.png", "training_curves.png",
    }  # fmt: skip
    assert files("evaluation") >= {
        "report_table.json",
        "per_user.parquet",
        "gate.json",
        "report.json",
        "baselines.json",
        "thresholds_table.json",
        "examples_table.json",
    }
    stored = json.loads(tracking.artifact(main_run.info.run_id, "recipe.json").read_text())
    assert stored["config"]["data"]["users"] == 250
    assert stored["chosen"]["ranking_epochs"] <= 6


def test_tensorboard_has_the_scalars_of_the_run_and_its_items(
    main_run: Run, shared_store: MlflowClient
) -> None:
    board = Path("boards") / f"main-{main_run.info.run_id[:8]}"
    assert are_equal(shared_store, main_run.info.run_id, board)
    for trial in ("trial 1", "trial 2"):
        assert list(board.glob(f"{trial}*/events.out.tfevents.*"))
    assert len((board / "00000/items_deep/metadata.tsv").read_text().splitlines()) > 100


def test_examples_are_of_the_model_that_has_not_seen_the_test_part(main_run: Run) -> None:
    """One that has would leave out of its lists whatever is liked there."""
    stored = json.loads(tracking.artifact(main_run.info.run_id, "evaluation/examples_table.json").read_text())
    examples = pd.DataFrame(stored["data"], columns=stored["columns"])
    recommended = examples[examples["list"] == "recommended"]
    assert len(recommended) == 60
    assert (recommended["in the test part"] == "liked").any()


def test_the_run_knows_where_its_time_went(main_run: Run) -> None:
    found = main_run.data.metrics
    stages = ("data", "tune", "train", "evaluate", "refit", "register", "gate", "figures")
    assert all(found[f"seconds/{stage}"] > 0 for stage in stages)


def test_the_report_says_what_its_figures_are_of(main_run: Run) -> None:
    said = tracking.artifact(main_run.info.run_id, "evaluation/report.md").read_text()
    assert said.startswith("# synthetic\n\nSplit user-time: ")
    assert "trained on what comes before the test part" in said
    assert "Lower is better for log loss" in said


def test_the_runs_description_is_a_short_report(main_run: Run, version: ModelVersion) -> None:
    said = main_run.data.tags["mlflow.note.content"]
    value = main_run.data.metrics["ndcg_at_10"]
    assert said.startswith(f"### synthetic: NDCG@10 {value:.4f} (")
    assert said.splitlines()[0].endswith("; widedeep version 1, gate passed")
    best = max((found for name, found in main_run.data.metrics.items() if name in REFERENCES), default=0.0)
    for part in (
        f"NDCG@10 {value:.4f} against {best:.4f}",
        "**Gate.** Passed by the rule `better`. There was no champion yet. It is surely better than popularity",
        "**Trust.** Made-up data. Leaks, looked for in the rows: none.",
        "| NDCG@10",
        main_run.data.tags["data_digest"][:16],
        "**Search.** ",
        "[widedeep version 1](#/models/widedeep/versions/1)",
        "in `recipe.json`",
        f"Commit `{main_run.data.tags['mlflow.source.git.commit']}`",
        f"experiments reproduce {main_run.info.run_id}",
    ):
        assert part in said
    assert main_run.data.tags["leaks"] == "none"
    assert version.run_id == main_run.info.run_id


def test_the_version_says_the_same_as_a_model(
    main_run: Run, version: ModelVersion, shared_store: MlflowClient
) -> None:
    paragraphs = version.description.split("\n\n")
    assert paragraphs[0].startswith("synthetic: NDCG@10 ")
    assert paragraphs[2].startswith("Gate: passed (better). There was no champion yet. NDCG@10 ")
    said = version.description
    assert f"[this run](#/experiments/{main_run.info.experiment_id}/runs/{main_run.info.run_id})" in said
    assert "python -m server --model models:/widedeep/1 " in said
    assert "promote --rollback" in said
    model = shared_store.get_registered_model("widedeep")
    assert "alias `champion`" in model.description
    assert model.tags["task"] == "recommendation"


def test_the_card_tells_how_good_and_for_whom(main_run: Run, version: ModelVersion) -> None:
    said = tracking.artifact(main_run.info.run_id, "model_card.md").read_text()
    metrics = main_run.data.metrics
    for heading in (
        "The model", "What it is for, and what not", "How good it is", "Newcomers and new items",
        "What is popular, and what is not", "The data", "How it was trained", "Limits", "Make it again",
    ):  # fmt: skip
        assert f"\n## {heading}\n" in said
    assert f"| widedeep | {metrics['ndcg_at_10']:.4f} (" in said
    constant = re.search(
        r"([\d.]+)% of the test rows are likes.* loss of ([\d.]+); the model's is ([\d.]+)", said
    )
    assert constant
    rate, loss, ours = float(constant[1]) / 100, float(constant[2]), float(constant[3])
    assert loss == pytest.approx(-(rate * math.log(rate) + (1 - rate) * math.log(1 - rate)), abs=5e-4)
    assert ours == pytest.approx(metrics["log_loss"], abs=1e-4)
    assert "| medium (20-99) | " in said
    assert "| head (first third) | " in said
    assert "250 users and 200 items; trained on all interactions" in said
    assert "age, region" in said
    assert "- search: " in said
    assert re.search(r"- time: .*tune \d+ s, train \d+ s, evaluate \d+ s, refit \d+ s", said)
    beside = Path(artifacts.download_artifacts(artifact_uri=f"models:/widedeep/{version.version}"))
    assert (beside / "artifacts" / "model_card.md").read_text() == said


def test_no_interval_is_broken_at_its_dash(main_run: Run, version: ModelVersion) -> None:
    for text in (main_run.data.tags["mlflow.note.content"], version.description):
        [first] = [line for line in text.splitlines() if line.startswith("| NDCG@10")]
        assert first.count("&NoBreak;–&NoBreak;") == first.count("–") == 1


def test_the_run_says_what_it_ran_on(main_run: Run) -> None:
    assert main_run.data.tags["device"] == "cpu"
    assert main_run.data.params["chosen.closed_form.likes_only"] in ("True", "False")


def test_the_run_holds_metrics_with_intervals(main_run: Run) -> None:
    found = main_run.data.metrics
    for name in ("ndcg_at_10", "recall_at_20", "auc", "log_loss"):
        assert found[f"{name}_low"] <= found[name] <= found[f"{name}_high"]
    for model in MODELS[1:]:
        assert f"reference/{model.replace(' ', '_')}_ndcg_at_10" in found
    assert {"auc", "log_loss", "calibration_error", "coverage_at_10", "gate/passed"} <= set(found)
    assert 0.5 < found["average_precision"] < 1
    assert "reference/popularity_auc" not in found
    assert not [name for name in found if "@" in name]


def test_the_best_trials_curves_are_the_runs(main_run: Run, shared_store: MlflowClient) -> None:
    points = shared_store.get_metric_history(main_run.info.run_id, "curves/ranking_ndcg_at_10")
    assert [point.step for point in points] == [1, 2, 3, 4, 5, 6]
    query = f"tags.mlflow.parentRunId = '{main_run.info.run_id}'"
    children = shared_store.search_runs([main_run.info.experiment_id], query)
    assert {child.info.run_name for child in children} == {"trial 1", "trial 2"}
    assert {child.info.status for child in children} == {"FINISHED"}


def test_the_first_trial_is_the_configuration_as_given(main_run: Run, shared_store: MlflowClient) -> None:
    query = f"tags.mlflow.parentRunId = '{main_run.info.run_id}' and tags.`trial.number` = '1'"
    [child] = shared_store.search_runs([main_run.info.experiment_id], query)
    assert float(child.data.params["ranking_dropout"]) == ModelConfig().ranking_dropout
    assert float(child.data.params["ranking_learning_rate"]) == TrainConfig().ranking_learning_rate
    said = child.data.tags["mlflow.note.content"]
    assert said.startswith(
        f"### Trial 1: validation NDCG@10 {child.data.metrics['validation/ndcg_at_10']:.4f}"
    )
    assert "the settings as given" in said


def test_the_registered_version_says_what_it_is(
    main_run: Run, version: ModelVersion, shared_store: MlflowClient
) -> None:
    assert version.run_id == main_run.info.run_id
    assert version.tags["gate"] == "passed"
    assert version.tags["trained_on"] == "all interactions"
    assert float(version.tags["ndcg_at_10"]) == pytest.approx(main_run.data.metrics["ndcg_at_10"], abs=1e-4)
    assert "NDCG@10" in version.description
    assert "Gate: passed" in version.description
    assert "python -m server" in shared_store.get_registered_model("widedeep").description


def test_what_is_registered_was_refit_on_everything(version: ModelVersion) -> None:
    model = registry.load(f"models:/widedeep/{version.version}")
    assert len(model.histories.item_index) == 9000
    assert model.about["trained_on"] == "all interactions"
    assert model.about["metrics"]["ndcg_at_10"] == pytest.approx(float(version.tags["ndcg_at_10"]), abs=1e-4)


def test_the_bundle_of_the_run_is_that_of_the_version(main_run: Run, version: ModelVersion) -> None:
    mine = Recommender.load(tracking.artifact(main_run.info.run_id, "model.pth"))
    theirs = registry.load(f"models:/widedeep/{version.version}")
    for user in (1, 2, 3):
        assert mine.recommend(user).item_ids == theirs.recommend(user).item_ids


def test_the_same_again_is_registered_and_refused(first: Done, shared_store: MlflowClient) -> None:
    del first
    again = ok("main", *words(TINY | {"trials": "2"}))
    assert "data: against those of widedeep version 1: no drift" in again.err
    assert "Gate (better): refused" in again.out
    assert "difference +0.0000" in again.out
    assert "python -m server --model models:/widedeep@champion" in again.out
    newest = max(int(found.version) for found in shared_store.search_model_versions("name = 'widedeep'"))
    refused = shared_store.get_model_version("widedeep", str(newest))
    assert refused.tags["gate"] == "refused"
    assert "needed above 0" in refused.tags["gate.reason"]
    assert "Gate: refused" in refused.description
    assert int(shared_store.get_model_version_by_alias("widedeep", "champion").version) == 1


def test_a_recipe_that_is_not_worse_passes_where_that_is_enough(
    first: Done, shared_store: MlflowClient
) -> None:
    del first
    again = ok(
        "main", *words(TINY | {"trials": "1", "gate": "not-worse", "refit": "false", "alias": "other"})
    )
    assert "Gate (better): passed. There was no champion yet" in again.out
    same = ok("main", *words(TINY | {"trials": "1", "gate": "not-worse", "refit": "false", "alias": "other"}))
    assert "Gate (not-worse): passed" in same.out
    assert "the results of" in same.err  # from the champion's run: the data and the split are the same
    newest = shared_store.get_model_version_by_alias("widedeep", "other")
    assert newest.tags["trained_on"] == "what comes before the test part"
    assert len(registry.load(f"models:/widedeep/{newest.version}").histories.item_index) < 9000


def test_other_data_are_refused_before_anything_is_trained(first: Done, shared_store: MlflowClient) -> None:
    del first
    before = len(shared_store.search_model_versions("name = 'widedeep'"))
    done = run("main", *words(TINY | {"trials": "1", "data-seed": "5"}))
    assert done.status == 2
    assert "The data are not like those of widedeep version 1 any more" in done.err
    assert "items' popularity, PSI" in done.err
    assert "--on-drift warn" in done.err
    experiment = shared_store.get_experiment_by_name("widedeep")
    [refused, *_] = shared_store.search_runs([experiment.experiment_id], "tags.job = 'main'")
    assert (refused.info.status, refused.data.tags["drift"]) == ("FAILED", "significant")
    assert refused.data.tags["mlflow.note.content"].startswith("Failed: The data are not like those")
    assert refused.data.metrics["drift/popularity_psi"] > 0.25
    assert "seconds/tune" not in refused.data.metrics
    assert len(shared_store.search_model_versions("name = 'widedeep'")) == before


def test_on_other_data_the_champions_recipe_is_trained_again(first: Done) -> None:
    del first
    done = ok("main", *words(TINY | {"trials": "1", "data-seed": "5", "on-drift": "warn"}))
    assert "The data have drifted, and --on-drift warn goes on" in done.err
    assert "was not evaluated on this split, so its recipe is trained on it" in done.err
    assert "Gate (not-worse)" in done.out


def test_train_registers_nothing_unless_told(first: Done, shared_store: MlflowClient) -> None:
    del first
    before = len(shared_store.search_model_versions("name = 'widedeep'"))
    done = ok("train", *words(TRAINING))
    assert "Registered" not in done.out
    assert len(shared_store.search_model_versions("name = 'widedeep'")) == before
    path = done.out.split("python -m server --model ")[1].split()[0]
    assert Recommender.load(path).recommend(1).item_ids


def test_tune_ends_with_the_command_that_trains_the_best(first: Done) -> None:
    del first
    done = ok_with_figures("tune", *words(SETTINGS | {"trials": "2"}))
    assert "Next:" in done.out
    command = done.out.split("python -m experiments ")[1].split()
    assert command[0] == "train"
    assert run(*command, "--help-me").err.startswith(
        "error: There is no flag --help-me"
    )  # the others there are


def test_evaluate_trains_the_recipe_of_a_model_again(
    first: Done, main_run: Run, version: ModelVersion
) -> None:
    del first
    done = ok_with_figures(
        "evaluate", "--model", f"models:/widedeep/{version.version}", "--bootstrap", "50", "--device", "cpu"
    )
    assert "trained on what comes before the test part" in done.out
    value = float(table(done.out)["NDCG@10"][0].split()[0])
    assert value == pytest.approx(
        main_run.data.metrics["ndcg_at_10"], abs=1e-4
    )  # not that of the refit weights


def test_evaluate_takes_a_file_and_another_split(first: Done, main_run: Run) -> None:
    del first
    bundle = tracking.artifact(main_run.info.run_id, "model.pth")
    done = ok(
        "evaluate",
        "--model",
        str(bundle),
        "--split",
        "leave-last-out",
        "--bootstrap",
        "50",
        "--device",
        "cpu",
    )
    assert "leave-last-out" in done.out
    assert set(table(done.out)) >= METRICS


def test_all_commands_in_texts_are_such(
    first: Done, shared_store: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the descriptions of all runs, versions and models that there are by now, in the cards and in the sheets."""
    del first
    experiment = shared_store.get_experiment_by_name("widedeep")
    runs = shared_store.search_runs([experiment.experiment_id])
    texts = [run.data.tags.get("mlflow.note.content", "") for run in runs]
    texts += [model.description for model in shared_store.search_registered_models()]
    texts += [found.description for found in shared_store.search_model_versions()]
    folders = [Path(run.info.artifact_uri.removeprefix("file://")) for run in runs]
    texts += [page.read_text() for folder in folders for page in folder.glob("*.md")]
    found = {command for text in texts for command in typed.commands(text)}
    assert len(found) >= 8  # of one main job
    for command in found:
        typed.check(command, monkeypatch)
