"""Studies of several processes: one is killed, all are interrupted, and two have nothing but PostgreSQL in common."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from databases import postgres
from experiment_runs import in_store, ok, run, subprocess_environment, words
from mlflow.tracking import MlflowClient
from optuna.trial import FrozenTrial, TrialState

from experiments import crew, studies
from experiments.study_config import JOURNAL

pytest_plugins = ["experiment_fixtures"]
SMALL = {
    "dataset": "synthetic", "users": "60", "items": "40", "interactions": "1500", "ranking-epochs": "2", "epochs": "1",
    "ranking-hidden": "16", "factor-share": "0", "wide-l2": "100", "wide-dropout": "0", "recency": "0", "device": "cpu",
    "register": "none",
}  # fmt: skip
SECONDS = 120


@pytest.fixture
def handlers() -> Iterator[None]:
    """An interrupted command leaves SIGTERM ignored, because its process ends then."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


opened = functools.cache(studies.open_storage)  # each keeps its connections, and a server has few


def trials(storage: str, study: str, *states: TrialState) -> list[FrozenTrial]:
    try:
        found = optuna.load_study(study_name=study, storage=opened(storage))
    except KeyError:
        return []
    return found.get_trials(states=states or None)


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


def test_a_killed_workers_trial_is_tried_again_and_ctrl_c_keeps_what_was_found(
    store: MlflowClient, tmp_path: Path, handlers: None
) -> None:
    del handlers
    journal = str(tmp_path / JOURNAL)
    killed: list[FrozenTrial] = []

    def interfere() -> None:
        def at_work() -> bool:
            running = trials(journal, "s", TrialState.RUNNING)
            killed[:] = [
                trial for trial in running if 0 < len(trial.intermediate_values) < 10
            ]  # not about to end
            return bool(killed)

        try:
            wait_for(at_work)
            os.kill(studies.Worker.parse(killed[0].user_attrs["worker"]).pid, signal.SIGKILL)
            wait_for(lambda: killed[0].number in studies.retried(trials(journal, "s")))
            wait_for(lambda: trials(journal, "s", TrialState.COMPLETE))
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interfere)
    thread.start()
    # more epochs than the rest, so that a trial lasts long enough to be killed in it
    slow = SMALL | {"ranking-epochs": "60", "ranking-patience": "60"}
    done = run("tune", *words(slow), "--trials", "500", "--jobs", "2", "--study", "s")
    thread.join()
    assert done.status == 130, done.err
    assert "its trial is tried again" in done.err
    assert not multiprocessing.active_children(), "no worker outlives the call"
    found = trials(journal, "s")
    [again] = [trial for trial in found if trial.system_attrs.get("retry_history") == [killed[0].number]]
    assert again.params == killed[0].params
    assert found[killed[0].number].state == TrialState.FAIL
    assert not trials(journal, "s", TrialState.RUNNING), "what was under way waits to be tried again"
    [tuned] = store.search_runs([store.get_experiment_by_name("widedeep").experiment_id], "tags.job = 'tune'")
    assert tuned.info.status == "KILLED"
    assert "nothing was registered. The best so far is trial" in tuned.data.tags["mlflow.note.content"]
    query = f"tags.mlflow.parentRunId = '{tuned.info.run_id}'"
    children = store.search_runs([tuned.info.experiment_id], query)
    ended = trials(journal, "s", TrialState.COMPLETE, TrialState.PRUNED)
    assert {child.data.tags["optuna.trial"] for child in children} == {str(trial.number) for trial in ended}

    waiting = trials(journal, "s", TrialState.WAITING)
    on = ok("tune", *words(slow), "--trials", "1", "--study", "s")
    assert f"goes on after {len(ended)} trials" in on.err
    assert f"tune: trial {waiting[0].number + 1} (1 of 1)" in on.err


def test_two_processes_share_a_study_through_postgresql(store_template: Path, tmp_path: Path) -> None:
    with postgres() as server:
        url = server.create("optuna")
        here, there = tmp_path / "here", tmp_path / "there"
        here.mkdir()
        there.mkdir()
        arguments = ("tune", *words(SMALL), "--storage", url, "--study", "s")
        (here / "mlflow.db").write_bytes(store_template.read_bytes())
        with in_store(here):
            ok(*arguments, "--trials", "1")
        with pytest.warns(UserWarning, match="Heartbeat"):
            lost = optuna.load_study(study_name="s", storage=studies.open_storage(url)).ask()
        lost.set_user_attr("worker", "elsewhere:1:0.0")
        lost.storage.record_heartbeat(lost._trial_id)
        with sqlalchemy.create_engine(
            url
        ).begin() as connection:  # that machine has lost its power a while ago
            connection.execute(
                sqlalchemy.text("UPDATE trial_heartbeats SET heartbeat = heartbeat - interval '1 hour'")
            )
        (there / "mlflow.db").write_bytes(store_template.read_bytes())
        command = [sys.executable, "-m", "experiments", *arguments, "--trials", "2"]
        environment = subprocess_environment(MLFLOW_TRACKING_URI="sqlite:///mlflow.db")
        with subprocess.Popen(
            command, cwd=there, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as other:
            wait_for(lambda: len(trials(url, "s")) > 2 or other.poll() is not None)
            with in_store(here):
                mine = ok(*arguments, "--trials", "2")
            out, said = other.communicate(timeout=SECONDS)
        assert other.returncode == 0, said
        found = trials(url, "s")
        assert [trial.number for trial in found] == list(range(6))
        ended = [trial for trial in found if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
        assert len(ended) == 5, "1 + 2 + 2"
        assert studies.retried(found) == {lost.number}
        assert found[lost.number].state == TrialState.FAIL
        pids = [studies.Worker.parse(trial.user_attrs["worker"]).pid for trial in ended]
        assert (pids.count(os.getpid()), pids.count(other.pid)) == (3, 2)
        for text in (out, mine.out):
            assert "was the best" in text or "None of the" in text


def test_a_worker_is_born_with_its_gpu_and_leaves_ctrl_c_to_the_first_process() -> None:
    assert crew.gpu_names(1, "") == []
    assert crew.gpu_names(2, "") == ["0", "1"]
    assert crew.gpu_names(2, "GPU-a, GPU-b") == ["GPU-a", "GPU-b"]
    code = (
        "import os, signal; print(os.environ['CUDA_VISIBLE_DEVICES'], signal.getsignal(signal.SIGINT).name)"
    )
    before = os.environ.get("CUDA_VISIBLE_DEVICES"), signal.getsignal(signal.SIGINT)
    with crew.born_with({"CUDA_VISIBLE_DEVICES": "1"}):
        assert subprocess.check_output([sys.executable, "-c", code], text=True) == "1 SIG_IGN\n"
    assert (os.environ.get("CUDA_VISIBLE_DEVICES"), signal.getsignal(signal.SIGINT)) == before
