"""Jobs in a store that is empty but for what a test puts there."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from experiment_runs import TINY, TRAINING, ok, run, table, words
from mlflow.tracking import MlflowClient

from experiments import registry
from widedeep.errors import RegistryError

pytest_plugins = ["experiment_fixtures"]


def test_train_without_a_test_part_trains_on_everything(store: MlflowClient, tmp_path: Path) -> None:
    rows = pd.DataFrame(
        {"user": [f"u{n // 20}" for n in range(800)], "item": [f"i{n % 20 + n // 400}" for n in range(800)]}
    )
    rows.to_csv(tmp_path / "train.csv", index=False)
    settings = {
        name: value
        for name, value in TRAINING.items()
        if name not in ("dataset", "users", "items", "interactions")
    }
    done = ok(
        "train", "--dataset", "files", "--ratings", "train.csv", "--user-col", "user", "--item-col", "item",
        "--split", "none", "--register", "mine", "--alias", "champion", *words(settings),
    )  # fmt: skip
    assert "there are no test figures" in done.out
    assert "without a gate" in done.err
    model = registry.load("models:/mine@champion")
    assert len(model.histories.item_index) == 800
    assert model.recommend("u0", 3, exclude_seen=False).cold_start is None
    [found] = store.search_runs(
        [store.get_experiment_by_name("widedeep").experiment_id], "tags.job = 'train'"
    )
    assert "ndcg_at_10" not in found.data.metrics
    assert "validation/ndcg_at_10" in found.data.metrics
    assert store.get_model_version_by_alias("mine", "champion").tags["gate"] == "not asked"


def test_a_champion_that_cannot_be_read_is_not_beaten_by_default(store: MlflowClient, tmp_path: Path) -> None:
    """As after a change of the bundle's form: the new version stays, the reason is told, and nothing moves."""
    store.create_registered_model("widedeep")
    store.create_model_version("widedeep", str(tmp_path / "gone"))
    store.set_registered_model_alias("widedeep", "champion", "1")
    done = ok("main", *words(TINY | {"trials": "1"}))
    assert (
        "refused. It could not be compared with widedeep version 1: Could not get models:/widedeep/1"
        in done.out
    )
    assert "promote --version 2 --force" in done.out
    assert int(store.get_model_version_by_alias("widedeep", "champion").version) == 1
    assert store.get_model_version("widedeep", "2").tags["gate"] == "refused"


def test_a_version_that_does_not_answer_stays_registered_and_says_so(
    store: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> float:
        raise RegistryError("it was registered but does not load")

    monkeypatch.setattr(registry, "check_registered", broken)
    done = run("train", *words(TRAINING | {"register": "broken", "alias": "champion"}))
    assert done.status == 2
    assert "does not load" in done.err
    found = store.get_model_version("broken", "1")
    assert (found.tags["gate"], found.aliases) == ("refused", [])
    assert "Gate: refused (loaded back). it was registered but does not load." in found.description


def test_validate_prints_what_is_in_a_data_set(store: MlflowClient) -> None:
    del store
    done = ok("validate", "--dataset", "synthetic", "--users", "50", "--items", "30", "--interactions", "900")
    found = table(done.out)
    assert found["interactions"] == ["900"]
    assert found["users"] == ["50"]
    assert found["density"] == ["60.000%"]
    assert "the data can be trained on" in done.out


def test_validate_names_bad_rows_and_counts_repairs(store: MlflowClient, tmp_path: Path) -> None:
    del store
    file = tmp_path / "ratings.csv"
    rows = [
        f"u{user},i{item},{(user + item) % 5 + 1},{1000 + item}" for user in range(8) for item in range(8)
    ]
    file.write_text("user_id,item_id,rating,timestamp\n" + "\n".join([*rows, "u1,i1,4,1"]) + "\n")
    refused = run("validate", "--dataset", "files", "--ratings", str(file))
    assert refused.status == 2
    assert "line" in refused.err
    repaired = ok("validate", "--dataset", "files", "--ratings", str(file), "--on-bad-rows", "repair")
    assert "note: " in repaired.out
    assert table(repaired.out)["interactions"] == ["64"]
