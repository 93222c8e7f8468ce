"""Try a team's MLflow server out: whether two people get on with one another, and a third is kept out.

    export MLFLOW_TRACKING_URI=http://127.0.0.1:5000 MLFLOW_TRACKING_USERNAME=admin MLFLOW_TRACKING_PASSWORD=…
    python examples/team/check.py

Makes three users, lets two of them run the main job on made-up data at the same time for one registered model, and
looks at what came of it: the versions, the alias and its history. Then it serves the alias over gRPC as a user who may
only read, and lets it follow a promotion. Takes some minutes, and removes in the end what it made.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from people import Administrator, RefusedError

from experiments import aliases
from server.client import Client, ClientError

ROOT = Path(__file__).resolve().parents[2]
NAME = f"check-{secrets.token_hex(4)}"  # of the registered model and of the experiment
SIZES = {
    "users": 250,
    "items": 200,
    "interactions": 9000,
    "ranking-epochs": 6,
    "epochs": 3,
    "ranking-hidden": 32,
    "bootstrap": 50,
    "gate-samples": 500,
    "trials": 1,
}
SECONDS = 900.0


class FailedError(Exception):
    """Something is not as it should be."""


class Person:
    """A user of the server, with a folder of their own."""

    def __init__(
        self, administrator: Administrator, name: str, folder: Path, read_only: bool = False
    ) -> None:
        self.name = f"{name}-{NAME}"
        self.password = administrator.add(self.name, read_only)
        self.folder = folder / name
        self.folder.mkdir()

    def start(self, *words: str, password: str = "") -> subprocess.Popen[str]:
        known = {
            "MLFLOW_TRACKING_USERNAME": self.name,
            "MLFLOW_TRACKING_PASSWORD": password or self.password,
        }
        with (self.folder / "log.txt").open("w") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *words],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), **known},
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )

    @property
    def log(self) -> str:
        return (self.folder / "log.txt").read_text()

    def start_job(self, seed: int, password: str = "") -> subprocess.Popen[str]:
        sizes = [word for name, value in SIZES.items() for word in (f"--{name}", str(value))]
        return self.start(
            *("experiments", "main", "--dataset", "synthetic", "--device", "cpu", *sizes),
            *("--seed", str(seed), "--register", NAME, "--experiment", NAME),
            password=password,
        )


def ok(what: str, holds: bool, otherwise: str) -> None:
    if not holds:
        raise FailedError(f"NOT {what}\n{otherwise}")
    print(f"ok  {what}", flush=True)


def two_at_once(first: Person, second: Person) -> None:
    jobs = [(person, person.start_job(seed)) for seed, person in enumerate((first, second))]
    for person, job in jobs:
        ok(f"the job of {person.name} ended well", job.wait(SECONDS) == 0, person.log)
    for person, _ in jobs:
        for line in person.log.splitlines():
            if "gate:" in line or "alias:" in line:
                print(f"      {person.name}: {line.strip()}")
    client = MlflowClient()
    found = {int(made.version): made for made in client.search_model_versions(f"name = '{NAME}'")}
    ok("each has registered a version", sorted(found) == [1, 2], str(found))
    moves = aliases.history(NAME, "champion")
    chain = [(move["from"], move["version"]) for move in moves]
    champion = aliases.aliased(NAME, "champion")
    passed = {number for number, made in found.items() if made.tags["gate"] == "passed"}
    ok(
        f"the alias went from one to the next: {chain}",
        [before for before, _ in chain] == [None, *(version for _, version in chain[:-1])]
        and champion is not None
        and champion.number == chain[-1][1]
        and {version for _, version in chain} == passed,
        f"{champion}, passed: {passed}",
    )
    left = set(client.get_registered_model(NAME).tags)
    ok("nobody is left in the line for it", left == {"champion.history"}, str(left))


def third_is_kept_out(reader: Person) -> None:
    for what, password, said in (
        ("who may only read", "", "has no permission for that (403)"),
        ("with a wrong password", "wrong", "(401)"),
    ):
        status = reader.start_job(0, password).wait(SECONDS)
        log = reader.log
        ok(
            f"a user {what} is told so",
            status == 2 and said in log and "Traceback" not in log and reader.password not in log,
            log,
        )


def served(reader: Person, promoter: Person) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    process = reader.start(
        *("server", "--model", f"models:/{NAME}@champion", "--port", port, "--device", "cpu"),
        *("--cache-dir", str(reader.folder / "cache")),
    )
    try:
        with Client(f"127.0.0.1:{port}") as client:
            first = answered_by(client, process, reader)
            ok(f"the gRPC server of a user who may only read answers by version {first}", True, "")
            other = "2" if first == "1" else "1"
            job = promoter.start(
                *("experiments", "promote", "--version", other, "--force", "--register", NAME)
            )
            ok(f"{promoter.name} may promote version {other}", job.wait(SECONDS) == 0, promoter.log)
            end = time.monotonic() + SECONDS
            while answered_by(client, process, reader) != other and time.monotonic() < end:
                time.sleep(0.5)
            ok(f"and the server has followed to version {other}", time.monotonic() < end, reader.log)
    finally:
        process.terminate()
        process.wait(60)


def answered_by(client: Client, process: subprocess.Popen[str], reader: Person) -> str:
    end = time.monotonic() + SECONDS
    while True:
        try:
            return client.recommend("1", k=5).model.version
        except ClientError as error:
            if process.poll() is not None or time.monotonic() > end:
                raise FailedError(f"NOT answered: {error}\n{reader.log}") from error
            time.sleep(0.5)


@contextlib.contextmanager
def people(administrator: Administrator, folder: Path) -> Iterator[list[Person]]:
    made = []
    try:
        for name, read_only in (("ann", False), ("ben", False), ("eve", True)):
            made.append(Person(administrator, name, folder, read_only))
        yield made
    finally:
        for person in made:
            administrator.remove(person.name)
        client = MlflowClient()
        with contextlib.suppress(MlflowException):  # it was not made
            client.delete_registered_model(NAME)
        experiment = client.get_experiment_by_name(NAME)
        if experiment is not None:
            client.delete_experiment(experiment.experiment_id)


def main() -> int:
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            people(Administrator(), Path(folder)) as (first, second, reader),
        ):
            two_at_once(first, second)
            third_is_kept_out(reader)
            served(reader, second)
    except KeyError as missing:
        print(f"error: set {missing} to that of the administrator", file=sys.stderr)
        return 2
    except (FailedError, RefusedError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
