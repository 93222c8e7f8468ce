"""Turns at moving an alias, as one of those in the line has them. Several processes are in test_team."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from experiments import alias_turn
from experiments.alias_turn import turn
from widedeep.errors import RegistryError

pytest_plugins = ["experiment_fixtures"]
SECONDS = 60.0


def tickets(client: MlflowClient) -> list[str]:
    return sorted(client.get_registered_model("m").tags)


def until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def client(store: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    monkeypatch.setattr(alias_turn, "TOLD_AFTER", 0.0)
    store.create_registered_model("m")
    return store


def test_a_turn_leaves_nothing_behind(client: MlflowClient) -> None:
    with turn("m", "champion", print) as mine:
        assert len(tickets(client)) == 1
        mine.check()
    assert tickets(client) == []
    with pytest.raises(ValueError, match="ours"), turn("m", "champion", print):
        raise ValueError("an error of ours")
    assert tickets(client) == []


def test_aliases_do_not_wait_for_one_another(client: MlflowClient) -> None:
    with turn("m", "champion", print), turn("m", "next", print):
        assert len(tickets(client)) == 2


def test_what_may_be_carried_out_yet_keeps_others_waiting(client: MlflowClient) -> None:
    with pytest.raises(MlflowException), turn("m", "champion", print):
        raise MlflowException("no answer")
    assert len(tickets(client)) == 1


def test_who_was_stopped_for_long_moves_nothing(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with turn("m", "champion", print) as mine:
        monkeypatch.setattr(alias_turn, "EXPIRY", 0.0)
        with pytest.raises(RegistryError, match="Nothing was moved"):
            mine.check()
    assert tickets(client) == []


def test_who_is_taken_for_dead_draws_anew(client: MlflowClient) -> None:
    said: list[str] = []
    through = threading.Event()

    def wait() -> None:
        with turn("m", "champion", said.append):
            through.set()

    other = threading.Thread(target=wait)
    with turn("m", "champion", print):
        mine = tickets(client)
        other.start()
        until(lambda: said)
        [theirs] = set(tickets(client)) - set(mine)
        client.delete_registered_model_tag("m", theirs)
        until(lambda: set(tickets(client)) - {*mine, theirs} or theirs in tickets(client))
        assert not through.is_set()
    assert through.wait(SECONDS)
    other.join(SECONDS)
    assert tickets(client) == []
    assert "to be done with m@champion" in said[0]


def test_a_tag_that_is_no_ticket_is_nobody_in_the_line(client: MlflowClient) -> None:
    client.set_registered_model_tag("m", "champion.turn.note", "written by a person")
    with turn("m", "champion", print):
        pass


def test_a_line_that_does_not_move_is_given_up(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alias_turn, "PATIENCE", 0)
    with (
        turn("m", "champion", print),
        pytest.raises(RegistryError, match="was being moved by others"),
        turn("m", "champion", print),
    ):
        pass
    assert tickets(client) == []
