"""From `mlflow run .` to ten titles over gRPC, by the commands that a person types and is then told to type."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from experiment_runs import ROOT, TINY, empty_store, in_store, subprocess_environment, table
from mlflow.tracking import MlflowClient
from ports import free_port

from experiments import registry
from server.client import Client

pytest_plugins = ["experiment_fixtures"]


def environment() -> dict[str, str]:
    """As in a shell with the virtual environment active, and no Python path that helps."""
    found = subprocess_environment()
    del found["PYTHONPATH"]
    found["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{found['PATH']}"
    return found


def mlflow_run(folder: Path, **parameters: str) -> subprocess.CompletedProcess[str]:
    settings = {
        name.replace("-", "_"): value for name, value in (TINY | {"trials": "2"} | parameters).items()
    }
    command = ["mlflow", "run", str(ROOT), "--env-manager", "local"]
    for name, value in settings.items():
        command += ["-P", f"{name}={value}"]
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=240, check=False
    )


@pytest.fixture(scope="module")
def workplace(store_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a person's own, from which the project is run; the store is made there."""
    return empty_store(store_template, tmp_path_factory.mktemp("workplace"))


@pytest.fixture(scope="module")
def first(workplace: Path) -> str:
    done = mlflow_run(workplace)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def client(first: str, workplace: Path) -> Iterator[MlflowClient]:
    del first
    with in_store(workplace) as found:
        yield found


def told(output: str, what: str) -> str:
    """One of the next commands that the job ended with."""
    found = re.search(rf"^  {what} +(.*)$", output, re.MULTILINE)
    assert found, output
    return found.group(1)


@contextmanager
def shell(command: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A command as it is pasted into a shell in `folder`; ended with all that it started."""
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, shell=True, cwd=folder, env=environment(), stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


def wait_for(text: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the command has said `text`."""
    for _ in range(900):
        if text in log.read_text():
            return
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def test_the_project_runs_to_its_table(first: str, client: MlflowClient) -> None:
    assert set(table(first)) >= {
        "NDCG@10",
        "Recall@20",
        "HR@10",
        "MRR",
        "AUC",
        "Log loss",
        "Calibration error",
    }
    assert "Gate (better): passed" in first
    assert int(client.get_model_version_by_alias("widedeep", "champion").version) == 1


def test_it_writes_to_the_run_that_mlflow_made(client: MlflowClient) -> None:
    [run] = client.search_runs(["0"], "tags.job = 'main'")
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "main synthetic"
    assert run.data.params["trials"] == "2"  # logged by mlflow run
    assert run.data.params["study.trials"] == "2"  # logged by us
    assert run.data.tags["mlflow.source.type"] == "PROJECT"
    assert run.data.metrics["gate/passed"] == 1.0


def test_the_next_commands_lead_to_ten_titles(first: str, client: MlflowClient, tmp_path: Path) -> None:
    del client
    port = free_port()
    command = told(first, "serve it").replace("50051", str(port))
    assert command.startswith("python -m server --model models:/widedeep@champion")
    with shell(command, tmp_path) as server:
        wait_for("serving on", server, tmp_path / "log")
        asked = shlex.split(told(first, "ask it").replace("50051", str(port)))
        done = subprocess.run(
            asked, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        shown = [line for line in done.stdout.splitlines() if re.match(r" +\d+  ", line)]
        assert len(shown) == 10
        user = asked[asked.index("--user-id") + 1]
        offline = registry.load("models:/widedeep@champion", device="cpu")
        answer = offline.recommend(user, 10)
        assert [line.split()[1] for line in shown] == [str(item) for item in answer.item_ids]
        for line, title in zip(shown, offline.item_titles(answer.item_ids), strict=True):
            assert title in line
        with Client(f"127.0.0.1:{port}") as stub:
            over_the_wire = stub.score(user, [str(item) for item in answer.item_ids])
        values = [found.score for found in over_the_wire.items]
        assert values == pytest.approx(offline.score(user, answer.item_ids).tolist(), abs=1e-6)


def test_a_second_run_must_win_and_the_same_again_does_not(first: str, workplace: Path) -> None:
    del first
    done = mlflow_run(workplace)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Registered: widedeep version 2" in done.stdout
    assert "Gate (better): refused. NDCG@10" in done.stdout
    assert "against" in done.stdout
    with in_store(workplace) as client:
        assert int(client.get_model_version_by_alias("widedeep", "champion").version) == 1
        assert client.get_model_version("widedeep", "2").tags["gate"] == "refused"


def test_a_mistake_in_a_parameter_ends_the_project_with_its_reason(workplace: Path) -> None:
    done = mlflow_run(workplace, learning_rte="3")
    assert done.returncode != 0
    assert "There is no flag --learning_rte. Did you mean --learning-rate?" in done.stdout + done.stderr
