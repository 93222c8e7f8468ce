"""What the processes of test_team do to one registry at once, forked from a process that has imported everything."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Barrier
from typing import Any

SECONDS = 120.0  # that anything may take on a busy machine
METHOD = multiprocessing.get_context("forkserver")
METHOD.set_forkserver_preload(["experiments.promote", "psycopg"])


class Crowd:
    """Processes that begin at once."""

    def __init__(
        self, work: Callable[..., object], count: int, *arguments: Any, watched: bool = False
    ) -> None:
        """
        work     is called with (Barrier, number from 0 on, *arguments); the results are what it returns
        watched  they wait at the barrier for the caller, too
        """
        self.barrier = METHOD.Barrier(count + watched)
        self.pipes: list[Connection] = []
        self.processes: list[ForkServerProcess] = []
        for number in range(count):
            mine, theirs = METHOD.Pipe(duplex=False)
            process = METHOD.Process(
                target=_send, args=(theirs, work, self.barrier, number, *arguments), daemon=True
            )
            process.start()
            theirs.close()
            self.pipes.append(mine)
            self.processes.append(process)

    def results(self, first: int = 0) -> list[Any]:
        """In the order of the numbers, from `first` on.  Raises  what one of them raised"""
        found = []
        for pipe, process in zip(self.pipes[first:], self.processes[first:], strict=True):
            assert pipe.poll(SECONDS), "a process does not come to an end"
            found.append(pipe.recv())
            process.join(SECONDS)
        for result in found:
            if isinstance(result, BaseException):
                raise result
        return found


def _send(pipe: Connection, work: Callable[..., object], *arguments: Any) -> None:
    try:
        result = work(*arguments)
    except Exception as error:
        result = RuntimeError(f"{type(error).__name__}: {error}")
    pipe.send(result)


def register_and_promote(
    barrier: Barrier, number: int, uri: str, each: int
) -> list[tuple[int, str, int | None]]:
    """Register `each` versions, and promote them, one after the other, past a gate that lets all pass.

    Returns  (version, its run, the champion that it was judged against last)
    """
    import mlflow
    from mlflow.tracking import MlflowClient

    from experiments import promote, registry
    from experiments.gate import Verdict
    from experiments.progress import Console
    from experiments.registry import Version

    mlflow.set_tracking_uri(uri)
    client = MlflowClient()
    logged = []
    for _ in range(each):
        run = client.create_run("0").info.run_id
        model = client.create_logged_model("0", name=f"model-{number}", source_run_id=run)
        logged.append((model.model_uri, run))
    barrier.wait(SECONDS)
    versions = [
        registry.register(model, "m", run, tags={"run": run}, about="of several") for model, run in logged
    ]
    against: list[int | None] = []

    def judged(champion: Version | None) -> Verdict:
        against.append(champion.number if champion else None)
        return Verdict(True, "better", "Anything passes")

    barrier.wait(SECONDS)
    found = []
    for version in versions:
        assert promote.earn(version, "champion", judged, Console()).passed
        found.append((version.number, version.run_id, against[-1]))
    return found


def hold(barrier: Barrier, number: int, uri: str, model: str, expiry: float) -> None:
    """The first takes the turn and has it until it is killed; the others want to move the alias meanwhile."""
    import mlflow

    from experiments import alias_turn, aliases, registry
    from widedeep.errors import RegistryError

    mlflow.set_tracking_uri(uri)
    alias_turn.EXPIRY = expiry
    if number == 0:
        with alias_turn.turn(model, "champion", print):
            barrier.wait(SECONDS)
            time.sleep(SECONDS)
    barrier.wait(SECONDS)
    while True:
        try:
            aliases.move_alias(registry.version(model, number), "champion", "after a death")
            return
        except RegistryError as error:
            if "Nothing was moved" not in str(error):
                raise
            # This process, too, stood still for long: the machine is busy.
