"""A tracking store that is away for a while, or for good: no trial is lost, and none is there twice."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
import tracking_servers
from experiment_runs import run
from mlflow.entities import Run as MlflowRun
from mlflow.tracking import MlflowClient
from mlflow.tracking.fluent import run_id_to_system_metrics_monitor
from tracking_servers import MODES, Between

from experiments import kept as kept_module
from experiments import outbox
from experiments.kept import Kept
from experiments.tracking import Run, open_run
from experiments.trial_record import TrialRecord
from experiments.writes import Batch, File
from widedeep.errors import TrackingError

pytest_plugins = ["experiment_fixtures"]
TRIALS = 4


def record(number: int, value: float | None = None) -> TrialRecord:
    return TrialRecord(
        number=number,
        state="COMPLETE",
        started=time.time() - 3,
        seconds=2.5,
        params={"dropout": number / 100},
        metrics={"validation/ndcg_at_10": number / 10 if value is None else value},
        curves=[{"head": "ranking", "epoch": epoch, "ndcg_at_10": epoch / 10} for epoch in (1, 2)],
        tags={"trial.seed": str(number)},
    )


def children(client: MlflowClient, parent: Run) -> list[MlflowRun]:
    return list(client.search_runs([parent.experiment_id], f"tags.mlflow.parentRunId = '{parent.id}'"))


def is_whole(client: MlflowClient, parent: Run, trials: int = TRIALS) -> None:
    """All that was written is there, and once."""
    found = sorted(children(client, parent), key=lambda child: int(child.data.tags["trial.number"]))
    assert [child.info.run_name for child in found] == [f"trial {number}" for number in range(1, trials + 1)]
    for number, child in enumerate(found, 1):
        assert child.info.status == "FINISHED"
        assert child.info.end_time - child.info.start_time == pytest.approx(2500, abs=2)
        assert child.data.params == {"dropout": str(number / 100)}
        assert child.data.tags["trial.seed"] == str(number)
        assert child.data.metrics["validation/ndcg_at_10"] == number / 10
        points = client.get_metric_history(child.info.run_id, "curves/ranking_ndcg_at_10")
        assert [(point.step, point.value) for point in points] == [(1, 0.1), (2, 0.2)]
    whole = client.get_run(parent.id)
    assert whole.info.status == "FINISHED"
    assert whole.data.params == {"job.trials": "4"}
    assert whole.data.tags["best.trial"] == str(trials)
    assert whole.data.tags["best.settings"] == f"dropout={trials / 100}"
    best = client.get_metric_history(parent.id, "best/ndcg_at_10")
    assert [(point.step, point.value) for point in best] == [(n, n / 10) for n in range(1, trials + 1)]
    losses = client.get_metric_history(parent.id, "loss")
    assert [point.step for point in losses] == list(range(1, trials + 1))
    assert len(client.list_artifacts(parent.id, "notes")) == trials
    path = client.download_artifacts(parent.id, f"notes/{trials}.txt")
    assert Path(path).read_text() == f"note {trials}\n"


def write(parent: Run, number: int) -> None:
    """What a search writes of a trial."""
    if number == 1:
        parent.params("job", {"trials": 4})
    parent.trial(record(number), leader=record(number))
    parent.metrics({"loss": 1 / number}, number)
    parent.text(f"note {number}\n", f"notes/{number}.txt")


@pytest.fixture(scope="module")
def between(store_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Between]:
    """In front of a real server."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(store_template, folder / "mlflow.db")
    with tracking_servers.mlflow_server(folder) as uri:
        made = Between(uri)
        yield made
        made.close()


@pytest.fixture
def client(between: Between, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """Of the server, with what is between it and us in order; a store that was away is asked again at each write."""
    monkeypatch.setattr(outbox, "FIRST_WAIT", 0.0)
    between.become("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", between.uri)
    return MlflowClient()


@pytest.mark.parametrize("mode", MODES)
def test_a_server_that_fails_for_a_while_loses_no_trial(
    mode: str,
    between: Between,
    client: MlflowClient,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if mode == "silent":
        monkeypatch.setattr(outbox, "ANSWER_SECONDS", 2)
        monkeypatch.setattr(outbox, "FIRST_WAIT", 600.0)  # one wait for an answer, the rest at the end
    with open_run("tune", "a") as parent:
        for number in range(1, TRIALS + 1):
            if number == 2:
                between.become(mode)
            if number == 4:
                between.become("")
                monkeypatch.setattr(outbox, "ANSWER_SECONDS", 30)
            write(parent, number)
            assert parent.outbox.waiting == 0 or number in (2, 3) or mode == "silent"
    is_whole(client, parent)
    assert list(Path("mlflow-outbox").iterdir()) == []
    said = capfd.readouterr().err
    assert said.count("the tracking store is away") == 1
    assert said.count("the tracking store is back") == 1


def test_of_a_server_that_stays_away_sync_brings_all(
    between: Between, client: MlflowClient, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_run("tune", "a") as parent:
        for number in range(1, TRIALS + 1):
            if number == 2:
                between.become("refused")
            write(parent, number)
    assert "python -m experiments sync" in capfd.readouterr().err
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    still_away = run("sync")
    assert still_away.status == 2
    assert f"still wait in {next(Path('mlflow-outbox').glob('*.jsonl'))}" in still_away.err
    assert "nothing answers at that address" in still_away.err
    between.become("")
    done = run("sync")
    assert done.status == 0, done.err
    assert f"of run {parent.id} to {between.uri}" in done.out
    is_whole(client, parent)
    assert list(Path("mlflow-outbox").iterdir()) == []
    assert "Nothing waits in mlflow-outbox" in run("sync").out


def test_a_store_that_does_not_know_the_run_is_told_nothing(
    between: Between,
    client: MlflowClient,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    store_template: Path,
) -> None:
    with open_run("tune", "a") as parent:
        between.become("refused")
        write(parent, 1)
    shutil.copy(store_template, tmp_path / "other.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'other.db'}")
    done = run("sync")
    assert done.status == 2
    assert f"They are for {between.uri}; set MLFLOW_TRACKING_URI" in done.err
    assert MlflowClient().search_runs(["0"]) == []
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    between.become("")
    assert run("sync").status == 0
    is_whole(client, parent, 1)


def test_what_mlflow_refuses_is_an_error_at_once_and_is_set_aside_later(
    between: Between, client: MlflowClient, capfd: pytest.CaptureFixture[str]
) -> None:
    with open_run("tune", "a") as parent:
        parent.params("job", {"trials": 1})
        with pytest.raises(TrackingError, match="Could not log parameters"):
            parent.params("job", {"trials": 2})
        between.become("a page")
        parent.params("job", {"trials": 3})
        parent.metrics({"loss": 1.0})
        between.become("")
    assert "MLflow refused a write, which stays in" in capfd.readouterr().err
    assert client.get_run(parent.id).data.params == {"job.trials": "1"}
    assert client.get_run(parent.id).data.metrics["loss"] == 1.0
    [path] = Path("mlflow-outbox").glob("*.jsonl")
    done = run("sync")
    assert done.status == 2
    assert f"MLflow did not take 1 of 1 writes of run {parent.id}, which stay in {path}" in done.err


def test_a_run_that_was_made_twice_is_there_once(store: MlflowClient) -> None:
    """As when a server that hung does late what it was asked."""
    with open_run("tune", "a") as parent:
        for _ in range(2):
            tags = {"mlflow.parentRunId": parent.id, "trial.number": "1"}
            store.create_run(parent.experiment_id, tags=tags, run_name="trial 1")
        parent.outbox._keep(parent.child_of(record(1)))
        parent.metrics({"loss": 1.0})
    assert [child.data.params for child in children(store, parent)] == [{"dropout": "0.01"}]


def test_sampling_goes_on_when_the_server_is_back(
    between: Between, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    name = "system/cpu_utilization_percentage"

    def sampled() -> int:
        return len(client.get_metric_history(parent.id, name))

    with open_run("tune", "a") as parent:
        sampler = run_id_to_system_metrics_monitor[parent.id]._process
        between.become("a page")
        parent.metrics({"loss": 1.0})
        sampler.join(60)
        assert not sampler.is_alive(), "MLflow's own gives up"
        between.become("")
        before = sampled()
        parent.metrics({"loss": 0.5})
        end = time.monotonic() + 60
        while sampled() < before + 2:
            assert time.monotonic() < end
            time.sleep(0.05)


def test_a_file_that_sync_finds_before_its_job_has_it_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = kept_module._lock
    found: list[Path] = []

    def after_sync(file: IO[str]) -> bool:
        if not found:
            found.append(Path(file.name))
            left = Kept.open(found[0])
            assert left is not None
            left.close()
        return lock(file)

    monkeypatch.setattr(kept_module, "_lock", after_sync)
    kept = Kept.begin(tmp_path, "abc", "http://host")
    assert kept.path.is_file()
    assert found != [kept.path]
    assert list(tmp_path.iterdir()) == [kept.path]


def test_a_file_that_another_has_open_or_that_was_cut_off_is_read_right(tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("hello")
    kept = Kept.begin(tmp_path / "outbox", "abc", "postgresql://me:secret@host/db")
    first, second = (
        Batch("abc", [("loss", float("inf"), 1, 2)], tags={"a\u2028": "b\n"}),
        File("abc", str(note), "x"),
    )
    kept.add(first)
    kept.add(second)
    note.write_text("changed since")
    assert Kept.open(kept.path) is None
    kept.sent()
    kept._file.close()  # as the system does when the process is killed
    with kept.path.open("a") as file:
        file.write('{"number": 3, "write": "Ba')
    text = kept.path.read_text()
    assert "secret" not in text
    assert json.loads(text.splitlines()[0])["tracking_uri"] == "postgresql://me@host/db"
    left = Kept.open(kept.path)
    assert left is not None
    [found] = left.pending
    assert isinstance(found, File)
    assert (found.folder, Path(found.path).read_text()) == ("x", "hello")
    left.add(first)
    left._file.close()
    again = Kept.open(kept.path)
    assert again is not None
    assert again.pending[1].points == [["loss", float("inf"), 1, 2]]  # type: ignore[union-attr]
    again.sent()
    again.sent()
    again.close()
    assert list((tmp_path / "outbox").iterdir()) == []
