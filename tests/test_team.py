"""Several people, one registry: what processes that work at once leave behind, on SQLite and on PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import movers
import pytest
from databases import Postgres, postgres
from experiment_runs import in_store
from mlflow.tracking import MlflowClient
from movers import Crowd

from experiments import aliases

pytest_plugins = ["experiment_fixtures"]
PROCESSES = 4
EXPIRY = 8.0  # seconds: no process here stands still for half of it


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@pytest.fixture(params=["SQLite", "PostgreSQL"], scope="module")
def store_at(
    request: pytest.FixtureRequest, store_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of a store, which is that of this process, too."""
    if request.param == "SQLite":
        uri = f"sqlite:///{store_template}"
    else:
        uri = request.getfixturevalue("database").create("mlflow")
    with in_store(tmp_path_factory.mktemp("team")):
        mlflow.set_tracking_uri(uri)
        client = MlflowClient()
        client.create_registered_model("m")
        for _ in range(PROCESSES * 2):
            client.create_model_version("m", str(Path("source").absolute()))
        yield uri
        mlflow.set_tracking_uri(None)


def test_an_alias_that_all_want_is_handed_from_one_to_the_next(store_at: str) -> None:
    found = Crowd(movers.promote, PROCESSES, store_at, 2).results()
    took = dict(step for steps in found for step in steps)
    moves = aliases.history("m", "champion")
    assert len(moves) == len(took) == PROCESSES * 2
    before = None
    for move in moves:
        assert move["from"] == before == took[move["version"]]
        before = move["version"]
    client = MlflowClient()
    assert int(client.get_model_version_by_alias("m", "champion").version) == before
    assert list(client.get_registered_model("m").tags) == ["champion.history"]


def test_versions_that_are_registered_at_once_have_numbers_of_their_own(store_at: str) -> None:
    found = [made for mine in Crowd(movers.register, PROCESSES, store_at, 3).results() for made in mine]
    assert sorted(number for number, _ in found) == list(range(1, 3 * PROCESSES + 1))
    client = MlflowClient()
    for number, run in found:
        made = client.get_model_version("r", str(number))
        assert (made.run_id, made.tags) == (run, {"run": run})


def test_the_turn_of_a_process_that_was_killed_passes_to_those_who_wait(store_at: str) -> None:
    before = len(aliases.history("m", "champion"))
    crowd = Crowd(movers.hold, 3, store_at, EXPIRY, watched=True)
    crowd.barrier.wait(movers.SECONDS)
    began = time.monotonic()
    crowd.processes[0].kill()
    crowd.results(first=1)
    assert time.monotonic() - began > EXPIRY / 2
    moves = aliases.history("m", "champion")
    assert sorted(move["version"] for move in moves[before:]) == [1, 2]
    assert moves[-1]["from"] == moves[-2]["version"]
    assert list(MlflowClient().get_registered_model("m").tags) == ["champion.history"]
