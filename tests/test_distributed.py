"""Several processes, started by torchrun, train what one does; and what is seen of one that dies."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import several_processes
import torch
from event_files import are_equal
from experiment_runs import in_store, run, subprocess_environment
from ports import free_port
from several_processes import COLUMNS, HEIGHT, MANY, ROWS, Pair
from torch import Tensor, nn

from widedeep import distributed
from widedeep.checkpoint import Checkpoint
from widedeep.distributed import World
from widedeep.dropout import Dropout, take_part
from widedeep.launch import Member

SCRIPT = str(Path(several_processes.__file__))
TIMEOUT = 240.0  # a bound on what hangs, far above what it takes
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def start(command: list[str], folder: Path, **extra: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        cwd=folder,
        env=subprocess_environment(OMP_WAIT_POLICY="passive", PYTHONFAULTHANDLER="1", **extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit status, standard output and standard error; with its children it is ended in any case."""
    try:
        out, err = process.communicate(timeout=TIMEOUT)
        return process.returncode, out, err
    finally:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
            process.communicate()


def loaded(folder: Path, name: str) -> list[dict[str, Any]]:
    """What each rank has saved."""
    return [torch.load(folder / f"{name}.{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes have left their results."""
    folder = tmp_path_factory.mktemp("together")
    status, _, err = finish(start([*TORCHRUN, SCRIPT, "together", str(folder)], folder))
    assert status == 0, err
    return folder


@pytest.mark.parametrize("kind", several_processes.KINDS)
def test_two_processes_have_the_loss_curve_of_one(together: Path, kind: str) -> None:
    one = several_processes.train(kind=kind)
    first, second = loaded(together, kind)
    assert len(one.curves) == len(first["curves"]) == 9
    assert second["curves"] == first["curves"]
    for expected, found in zip(one.curves, first["curves"], strict=True):
        assert found.pop("head") == expected.pop("head")
        assert found == pytest.approx(expected, rel=1e-4)
    assert one.curves[0]["train_loss"] != pytest.approx(one.curves[1]["train_loss"], rel=1e-3)
    assert first["validation"] == pytest.approx(one.validation, rel=1e-3)
    for name, value in one.net.state_dict().items():
        torch.testing.assert_close(first["state"][name], value, rtol=1e-3, atol=1e-4)
    assert second["chosen"] == first["chosen"]
    assert second["validation"] == first["validation"]
    for name, value in first["state"].items():
        assert torch.equal(second["state"][name], value), name


@pytest.mark.parametrize("name", ["few", "sparse", "many"])
def test_gradients_are_those_of_the_whole_batch(together: Path, name: str) -> None:
    rows = MANY if name == "many" else ROWS
    expected = Pair(name == "sparse").gradients(World(), World().part(rows))
    first, second = (found[name] for found in loaded(together, "gradients"))
    assert expected.keys() == first.keys() == second.keys()
    for key, value in expected.items():
        assert first[key].is_sparse == second[key].is_sparse == value.is_sparse
        torch.testing.assert_close(dense(first[key]), dense(value), rtol=1e-5, atol=1e-7)
        assert torch.equal(dense(first[key]), dense(second[key]))


def dense(value: Tensor) -> Tensor:
    return value.to_dense() if value.is_sparse else value


def test_nothing_is_left_running_when_the_processes_part(together: Path) -> None:
    """A thread that frees its tensors while the interpreter ends would abort a training that is done."""
    assert loaded(together, "threads") == [[], []]


def test_of_tables_only_the_rows_that_were_looked_up_are_sent(together: Path) -> None:
    dense_layer, whole = COLUMNS + 1, HEIGHT * (COLUMNS + 1)
    for found in loaded(together, "gradients"):
        of_rows = (ROWS // 2 + 1) * (COLUMNS + 2)  # each with its index
        assert found["few sent"] <= dense_layer + of_rows + 1
        assert found["sparse sent"] <= dense_layer + of_rows + (ROWS // 2 + 1) + 2
        assert found["many sent"] == dense_layer + whole + 1, "rows would be more than the tables"


def test_a_killed_process_ends_the_job_and_a_restart_comes_to_the_same_weights(
    together: Path, tmp_path: Path
) -> None:
    status, _, err = finish(start([*TORCHRUN, SCRIPT, "die_once", str(tmp_path)], tmp_path))
    assert status != 0
    assert "TrainingError: Rank 1 (process id " in err
    assert "of the 2 processes has ended before the training did" in err
    assert not (tmp_path / "restarted.0.pt").exists()
    (tmp_path / "state.fit.ckpt").unlink()

    restarting = [*TORCHRUN, "--max-restarts", "1", SCRIPT, "die_once", str(tmp_path)]
    status, _, err = finish(start(restarting, tmp_path))
    assert status == 0, err
    assert "TrainingError: Rank 1 (process id " in err
    whole = loaded(together, "likes_and_others")[0]
    for found in loaded(tmp_path, "restarted"):
        assert found["curves"] == whole["curves"]
        for name, value in whole["state"].items():
            assert torch.equal(found["state"][name], value), name


def test_a_process_that_stands_still_is_not_waited_for_without_end(tmp_path: Path) -> None:
    port = str(free_port())
    environment = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, SCRIPT, "stand_still", str(tmp_path)]
    first, second = (start(command, tmp_path, RANK=rank, LOCAL_RANK=rank, **environment) for rank in "01")
    try:
        status, _, err = finish(first)
    finally:
        second.kill()
        second.communicate()
    assert status != 0
    assert "TrainingError: One of the 2 processes no longer answers" in err


def test_of_a_process_that_died_on_another_machine_the_machine_is_named(tmp_path: Path) -> None:
    """Two torchruns are two machines to their processes."""
    port = str(free_port())
    together = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "two"]
    command = [sys.executable, "-m", "torch.distributed.run", *together]
    command += ["--rdzv-endpoint", f"127.0.0.1:{port}", SCRIPT, "die_once", str(tmp_path)]
    machines = [start(command, tmp_path) for _ in range(2)]
    ends = [finish(machine) for machine in machines]
    assert all(status != 0 for status, _, _ in ends)
    err = "".join(err for _, _, err in ends)
    assert "TrainingError: One of the 2 processes no longer answers" in err
    name = socket.gethostname()
    assert f"None on this machine ({name}) has ended: it is one on {name}." in err


def test_a_member_is_what_was_sent() -> None:
    member = Member("a" * 64, 3, 2**22)
    assert Member.from_list(member.to_list()) == member
    assert Member.from_list(Member.own().to_list()) == Member.own()
    assert member.is_beside(Member("a" * 64, 3, 1))
    assert not member.is_beside(Member("a" * 64, 2, 1))
    assert not member.is_beside(Member("b", 3, 1))


def test_alone_is_one_process_until_the_end_of_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    joined = World(1, 2)
    monkeypatch.setattr(World, "_joined", joined)
    with distributed.alone():
        assert World.current().size == 1
    assert World.current() is joined


def test_train_from_the_command_line_survives_a_killed_process(tmp_path: Path) -> None:
    settings = (
        "--dataset synthetic --users 200 --items 100 --interactions 5000 --split none --device cpu "
        "--ranking-hidden 32 --ranking-epochs 40 --ranking-patience 40 --epochs 2 --wide-l2 100 --recency 0 "
        "--factor-share 0 --checkpoint state.ckpt --tensorboard boards"
    )
    with in_store(tmp_path) as client:
        job = start(
            [*TORCHRUN, "--max-restarts", "1", "-m", "experiments", "train", *settings.split()],
            tmp_path,
            MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path / 'mlflow.db'}",
        )
        kill_rank_1_after((tmp_path / "state.select.ckpt"), job)
        status, out, err = finish(job)
        assert status == 0, err
        runs = client.search_runs([client.get_experiment_by_name("widedeep").experiment_id])
        for found in runs:
            assert are_equal(
                client, found.info.run_id, tmp_path / "boards" / f"train-{found.info.run_id[:8]}"
            )
    assert len(list((tmp_path / "boards").iterdir())) == len(runs), "the first process alone writes"
    after, before = runs
    assert (before.info.status, after.info.status) == ("FAILED", "FINISHED")
    assert "Rank 1 (process id " in before.data.tags["mlflow.note.content"]
    assert after.data.tags["processes"] == "2"
    assert (before.data.tags["restarts"], after.data.tags["restarts"]) == ("0", "1")
    assert "error: Rank 1 (process id " in err
    assert out.count("split=none, so there is no test part") == 1


def kill_rank_1_after(path: Path, job: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not path.exists():
        assert job.poll() is None, job.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    ranks = {child.environ().get("RANK"): child for child in psutil.Process(job.pid).children(recursive=True)}
    ranks["1"].kill()


@pytest.mark.parametrize("command", ["main", "tune", "evaluate"])
def test_commands_of_one_process_say_so(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "localhost")):
        monkeypatch.setenv(name, value)
    done = run(command, "--dataset", "synthetic")
    assert done.status == 2
    assert f"torchrun has started 2 processes of '{command}', which works in one" in done.err
    monkeypatch.setenv("RANK", "1")
    assert run(command, "--dataset", "synthetic").err == ""


def test_parts_are_the_whole_and_even() -> None:
    for size in (1, 2, 3, 7):
        for total in (0, 1, 2, 16, 101):
            parts = [World(rank, size).part(total) for rank in range(size)]
            taken = [row for part in parts for row in range(total)[part.rows]]
            assert taken == list(range(total))
            lengths = [part.stop - part.start for part in parts]
            assert max(lengths) - min(lengths) <= 1


def test_dropout_of_parts_is_that_of_the_whole() -> None:
    values = torch.rand(101, 7)
    layer = nn.Sequential(Dropout(0.5))
    found = []
    for rank in range(3):
        part = World(rank, 3).part(101)
        take_part(layer, part)
        torch.manual_seed(0)
        found.append(layer(values[part.rows]))
    take_part(layer, World().part(101))
    torch.manual_seed(0)
    assert torch.equal(torch.cat(found), layer(values))


def test_alone_nothing_is_exchanged() -> None:
    assert World.current().size == 1
    value = torch.ones(3)
    assert World.current().sum(value) is value
    assert World.current().first(lambda: Checkpoint) is Checkpoint  # of one process it may be anything
