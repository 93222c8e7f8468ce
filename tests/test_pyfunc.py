"""The registered model by MLflow's own ways: load_model, models serve."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from experiment_runs import subprocess_environment
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from ports import free_port

from experiments import aliases, registry
from experiments.registry import Version
from experiments.tracking import open_run
from widedeep.errors import BundleError, RegistryError
from widedeep.recommender import Recommender

pytest_plugins = ["experiment_fixtures"]


@pytest.fixture(scope="module")
def version(
    shared_store: MlflowClient, trained: Recommender, tmp_path_factory: pytest.TempPathFactory
) -> Version:
    del shared_store
    bundle = tmp_path_factory.mktemp("bundle") / "model.pth"
    trained.save(bundle)
    card = bundle.with_name("model_card.md")
    card.write_text("# Model card")
    with open_run("train", "a") as run:
        address = registry.log_model(bundle, card, [1, 2])
        made = registry.register(address, "board", run.id, tags={"a": "b"}, about="model")
    aliases.move_alias(made, "champion", "a test")
    return made


@pytest.fixture(scope="module")
def loaded(version: Version) -> Any:
    return mlflow.pyfunc.load_model(version.uri)


def test_a_ranking_is_that_of_the_recommender(loaded: Any, trained: Recommender) -> None:
    found = loaded.predict(pd.DataFrame({"user_id": ["3", "4"]}), params={"k": 5})
    assert list(found.columns) == ["user_id", "item_id", "rank", "score", "title"]
    assert found["rank"].tolist() == [1, 2, 3, 4, 5] * 2
    for user in (3, 4):
        mine = found[found["user_id"] == str(user)]
        answer = trained.recommend(user, 5)
        assert mine["item_id"].tolist() == [str(item) for item in answer.item_ids]
        assert mine["score"].tolist() == pytest.approx(answer.scores)
        assert mine["title"].tolist() == [f"Film {item}" for item in answer.item_ids]


def test_a_row_may_have_its_own_k(loaded: Any) -> None:
    found = loaded.predict(pd.DataFrame({"user_id": ["3", "4"], "k": [2, 4]}))
    assert found["user_id"].tolist() == ["3", "3", "4", "4", "4", "4"]


def test_a_history_stands_for_someone_new(loaded: Any, trained: Recommender) -> None:
    found = loaded.predict(pd.DataFrame({"history": [["2", "4", "6", "8"]]}), params={"k": 5})
    assert [int(item) % 2 for item in found["item_id"]] == [0] * 5  # who likes even films likes even films
    assert found["item_id"].tolist() == [
        str(item) for item in trained.recommend_for_history([2, 4, 6, 8], 5).item_ids
    ]
    assert found["user_id"].isna().all()


def test_seen_items_come_back_on_request(loaded: Any, trained: Recommender) -> None:
    found = loaded.predict(pd.DataFrame({"user_id": ["3"]}), params={"k": 40, "exclude_seen": False})
    assert len(found) == trained.processor.warm_count


def test_pairs_get_the_probability_of_a_like(loaded: Any, trained: Recommender) -> None:
    pairs = pd.DataFrame({"user_id": ["3", "4", "3"], "item_id": ["5", "5", "6"]})
    found = loaded.predict(pairs)
    assert found[["user_id", "item_id"]].to_numpy().tolist() == pairs.to_numpy().tolist()
    expected = [trained.score(3, [5])[0], trained.score(4, [5])[0], trained.score(3, [6])[0]]
    assert found["score"].tolist() == pytest.approx(expected, abs=1e-6)
    assert found["score"].iloc[0] > 0.5 > found["score"].iloc[1]


@pytest.mark.parametrize(
    ("frame", "params", "said"),
    [
        ({"user_id": ["3"]}, {"k": 0}, "k: must be a whole number from 1 to 1000, got 0"),
        ({"user_id": ["3", "4"], "k": [0, 4]}, {}, "k: must be a whole number from 1 to 1000, got 0"),
        ({"user_id": [["3", "4"]]}, {}, "user_id must be one id a row"),
        ({"user_id": ["3"], "item_id": [["1", "2"]]}, {}, "item_id must be one id a row"),
        ({"user_id": ["3"], "item_id": ["999"]}, {}, "unknown items: '999'"),
        ({"item_id": ["1"]}, {}, "needs a column user_id or history"),
        ({"user_id": [3]}, {}, "user_id"),
    ],
)
def test_what_cannot_be_answered_is_explained(
    loaded: Any, frame: dict[str, Any], params: dict[str, Any], said: str
) -> None:
    with pytest.raises(MlflowException, match=said):
        loaded.predict(pd.DataFrame(frame), params=params)


def test_the_model_brings_its_own_code(version: Version, shared_store: MlflowClient, tmp_path: Path) -> None:
    """In a process that cannot import the project but for the model's own folder, and may unpickle nothing."""
    del shared_store
    code = (
        "import mlflow, pandas as pd, sys\n"
        f"model = mlflow.pyfunc.load_model({version.uri!r})\n"
        "found = model.predict(pd.DataFrame({'user_id': ['3']}), params={'k': 3})\n"
        "import widedeep\n"
        "assert 'artifacts/code' in widedeep.__file__, widedeep.__file__\n"
        "assert 'experiments' not in sys.modules\n"
        "print(len(found))"
    )
    environment = subprocess_environment(
        MLFLOW_TRACKING_URI=os.environ["MLFLOW_TRACKING_URI"], MLFLOW_ALLOW_PICKLE_DESERIALIZATION="false"
    )
    del environment["PYTHONPATH"]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("3")


def test_the_folder_holds_the_bundle_where_servers_look_for_it(version: Version) -> None:
    folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=version.uri))
    assert [path.relative_to(folder) for path in folder.rglob("*.pth")] == [Path("artifacts/model.pth")]
    requirements = (folder / "requirements.txt").read_text()
    assert "torch==" in requirements
    assert "+" not in requirements
    assert not list(folder.rglob("*.pkl"))


def test_a_version_says_what_it_is(version: Version, shared_store: MlflowClient) -> None:
    found = shared_store.get_model_version("board", "1")
    assert (found.tags["a"], found.run_id) == ("b", version.run_id)
    assert shared_store.get_registered_model("board").description == "model"


def test_what_came_back_is_compared_with_what_was_trained(version: Version, trained: Recommender) -> None:
    assert registry.check_registered(version, trained, [1, 2, 3]) < 1e-5


def test_another_model_in_its_place_is_noticed(
    version: Version, trained: Recommender, board: Any, board_split: Any
) -> None:
    other, _ = Recommender.fit(
        trained.config, board, board_split.train.take(np.arange(400)), chosen=trained.chosen
    )
    with pytest.raises(RegistryError, match="board version 1"):
        registry.check_registered(version, other, [1, 2, 3])


def test_a_version_that_does_not_load_is_noticed(
    shared_store: MlflowClient, trained: Recommender, tmp_path: Path
) -> None:
    shared_store.create_registered_model("empty")
    shared_store.create_model_version("empty", str(tmp_path))
    with pytest.raises(RegistryError, match="empty version 1 was registered but does not load"):
        registry.check_registered(registry.version("empty", 1), trained, [1])


def test_a_model_is_found_by_alias_version_and_path(
    version: Version, trained: Recommender, tmp_path: Path
) -> None:
    trained.save(tmp_path / "a.pth")
    for where in (version.uri, "models:/board@champion", str(tmp_path / "a.pth")):
        assert registry.load(where, device="cpu").recommend(3).item_ids == trained.recommend(3).item_ids
    with pytest.raises(RegistryError, match=r"models:/board/77"):
        registry.load("models:/board/77")
    with pytest.raises(BundleError, match=r"no model file missing\.pth"):
        registry.load("missing.pth")


@pytest.fixture(scope="module")
def served(
    version: Version, shared_store: MlflowClient, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """`mlflow models serve` on a free port."""
    del version, shared_store
    port = free_port()
    command = [
        "models",
        "serve",
        "-m",
        "models:/board@champion",
        "--env-manager",
        "local",
        "-p",
        str(port),
        "-w",
        "1",
    ]
    environment = subprocess_environment(MLFLOW_TRACKING_URI=os.environ["MLFLOW_TRACKING_URI"])
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    log = tmp_path_factory.mktemp("served") / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *command],
            cwd=log.parent, env=environment, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
        try:
            yield _when_up(f"http://127.0.0.1:{port}", process, log)
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(20)


def _when_up(address: str, process: subprocess.Popen[bytes], log: Path) -> str:
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"{address}/ping", timeout=2):
                return address
        except OSError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
    raise AssertionError(log.read_text())


def _ask(address: str, body: dict[str, Any]) -> tuple[int, Any]:
    request = urllib.request.Request(
        f"{address}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_mlflow_serves_rankings_over_http(served: str, trained: Recommender) -> None:
    body = {"dataframe_records": [{"user_id": "3"}], "params": {"k": 4}}
    status, found = _ask(served, body)
    assert status == 200
    answer = trained.recommend(3, 4)
    assert [row["item_id"] for row in found["predictions"]] == [str(item) for item in answer.item_ids]
    assert [row["score"] for row in found["predictions"]] == pytest.approx(answer.scores, abs=1e-5)
    status, found = _ask(served, {"dataframe_records": [{"history": ["2", "4", "6"]}], "params": {"k": 3}})
    assert status == 200
    assert [row["rank"] for row in found["predictions"]] == [1, 2, 3]


def test_mlflow_serves_probabilities_and_errors_over_http(served: str, trained: Recommender) -> None:
    status, found = _ask(served, {"dataframe_records": [{"user_id": "3", "item_id": "5"}]})
    assert status == 200
    assert found["predictions"][0]["score"] == pytest.approx(float(trained.score(3, [5])[0]), abs=1e-5)
    status, found = _ask(served, {"dataframe_records": [{"user_id": "3", "item_id": "unheard of"}]})
    assert status == 400
    assert "unknown items: 'unheard of'" in json.dumps(found)
