"""The job `recommend`: a file of every user's best items."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from experiment_runs import TRAINING, ok, run, words
from mlflow.tracking import MlflowClient

from experiments import registry

pytest_plugins = ["experiment_fixtures"]


@pytest.fixture(scope="module")
def uri(shared_store: MlflowClient) -> str:
    """A model that knows all interactions of the data."""
    del shared_store
    ok("train", *words(TRAINING | {"register": "widedeep"}))
    return "models:/widedeep/1"


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_recommend_writes_a_row_for_each_place(uri: str, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"recs.{ending}"
    ok("recommend", "--model", uri, "--k", "7", "--out", str(out), "--user_batch", "32", "--device", "cpu")
    found = pd.read_parquet(out) if ending == "parquet" else pd.read_csv(out)
    assert list(found.columns) == ["user_id", "item_id", "rank", "score"]
    assert found["user_id"].nunique() == 250
    assert (found.groupby("user_id")["rank"].apply(list).map(lambda ranks: ranks == list(range(1, 8)))).all()
    model = registry.load(uri)
    for user in (1, 60, 250):
        mine = found[found["user_id"] == user]
        answer = model.recommend(user, 7)
        assert mine["item_id"].tolist() == answer.item_ids
        assert mine["score"].tolist() == pytest.approx(answer.scores, abs=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]  # no half file beside it


def test_recommend_takes_users_from_a_file(uri: str, tmp_path: Path) -> None:
    users = tmp_path / "users.txt"
    users.write_text("3\n\n5\n3\n999999\n")
    out = tmp_path / "recs.parquet"
    done = ok("recommend", "--model", uri, "--users", str(users), "--out", str(out), "--device", "cpu")
    assert "1 users are not in the training data" in done.out
    found = pd.read_parquet(out)
    assert found["user_id"].unique().tolist() == [3, 5, 999999]
    pd.DataFrame({"user_id": [4]}).to_csv(tmp_path / "users.csv", index=False)
    ok(
        "recommend",
        "--model",
        uri,
        "--users",
        str(tmp_path / "users.csv"),
        "--out",
        str(out),
        "--device",
        "cpu",
    )
    assert pd.read_parquet(out)["user_id"].unique().tolist() == [4]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "models:/nothing@champion"], "Could not get models:/nothing@champion"),
        (["--model", "missing.pth"], "There is no model file missing.pth"),
        (["--out", "/nowhere/recs.csv"], "there is no folder /nowhere"),
        (["--users", "nobody.txt"], "There is no file of users nobody.txt"),
    ],
)
def test_recommend_explains_what_it_cannot_do(store: MlflowClient, arguments: list[str], said: str) -> None:
    del store
    done = run("recommend", *arguments)
    assert done.status == 2
    assert said in done.err
