"""Several people, one registry: what processes that work at once leave behind, on SQLite and on PostgreSQL."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import movers
import pytest
from databases import postgres
from experiment_runs import empty_store, in_store
from mlflow.tracking import MlflowClient
from movers import Crowd

from experiments import aliases, registry

pytest_plugins = ["experiment_fixtures"]
PROCESSES = 4
EXPIRY = 8.0  # seconds


@pytest.fixture(params=["SQLite", "PostgreSQL"], scope="module")
def store_at(
    request: pytest.FixtureRequest, store_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of a store, which is that of this process, too."""
    folder = tmp_path_factory.mktemp("team")
    with contextlib.ExitStack() as stack:
        if request.param == "SQLite":
            uri = f"sqlite:///{empty_store(store_template, folder)}/mlflow.db"
        else:
            uri = stack.enter_context(postgres()).create("mlflow")
        stack.enter_context(in_store(folder))
        mlflow.set_tracking_uri(uri)
        MlflowClient().search_experiments(
            max_results=1
        )  # makes the tables, which several must not do at once
        yield uri
        mlflow.set_tracking_uri(None)


def test_what_all_register_and_promote_at_once_is_one_chain(store_at: str) -> None:
    found = [
        made for mine in Crowd(movers.register_and_promote, PROCESSES, store_at, 2).results() for made in mine
    ]
    assert sorted(number for number, _, _ in found) == list(range(1, 2 * PROCESSES + 1))
    client = MlflowClient()
    for number, run, _ in found:
        made = client.get_model_version("m", str(number))
        assert (made.run_id, made.tags["run"], made.tags["gate"]) == (run, run, "passed")
    took = {number: champion for number, _, champion in found}
    before = None
    for move in aliases.history("m", "champion"):
        assert move["from"] == before == took.pop(move["version"])
        before = move["version"]
    assert not took
    assert int(client.get_model_version_by_alias("m", "champion").version) == before
    assert set(client.get_registered_model("m").tags) == {*registry.TAGS, "champion.history"}, (
        "no ticket is left"
    )


@pytest.mark.parametrize("store_at", ["PostgreSQL"], indirect=True)
def test_the_turn_of_a_process_that_was_killed_passes_to_those_who_wait(store_at: str) -> None:
    client = MlflowClient()
    client.create_registered_model("k")
    for _ in range(2):
        client.create_model_version("k", str(Path("source").absolute()))
    crowd = Crowd(movers.hold, 3, store_at, "k", EXPIRY, watched=True)
    crowd.barrier.wait(movers.SECONDS)
    began = time.monotonic()
    crowd.processes[0].kill()
    crowd.results(first=1)
    assert time.monotonic() - began > EXPIRY / 2
    first, second = aliases.history("k", "champion")
    assert {first["version"], second["version"]} == {1, 2}
    assert (first["from"], second["from"]) == (None, first["version"])
    assert list(client.get_registered_model("k").tags) == ["champion.history"]
