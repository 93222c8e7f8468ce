"""Aliases in the model registry, each with the history of the versions that had it."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from experiments import alias_turn, registry
from experiments.alias_turn import Turn
from experiments.flags import says
from experiments.jobs import promote_command
from experiments.registry import Version, reported
from widedeep.errors import ChampionMovedError, RegistryError

HISTORY_KEPT = 20  # moves of an alias that are remembered, so that it can be moved back
Say = Callable[[str], None]


def aliased(name: str, alias: str) -> Version | None:
    """The version that has the alias; None where no version has it, or there is no such model."""
    try:
        return registry.version_of(MlflowClient().get_model_version_by_alias(name, alias))
    except MlflowException as error:
        if registry.is_missing(error, name):
            return None
        with reported(f"look up {name}@{alias}"):
            raise


def move_alias(which: Version, alias: str, why: str, say: Say = says) -> None:
    """Give the alias to a version, and remember that it had it."""
    with _turn(which.name, alias, f"move the alias {alias} to {which}", say) as turn:
        _give(turn, which, aliased(which.name, alias), alias, why)


def move_alias_from(champion: Version | None, which: Version, alias: str, why: str, say: Say = says) -> None:
    """As `move_alias`, if the alias is where it was when the version was judged.

    champion  who had it then; None: nobody
    Raises    ChampionMovedError: another has it now
    """
    with _turn(which.name, alias, f"move the alias {alias} to {which}", say) as turn:
        now = aliased(which.name, alias)
        if _number(now) != _number(champion):
            raise ChampionMovedError(
                f"{which.name}@{alias} moved to {now or 'nothing'} while {which} was judged against "
                f"{champion or 'no champion'}"
            )
        _give(turn, which, now, alias, why)


def history(name: str, alias: str) -> list[dict[str, Any]]:
    """The versions that had the alias, oldest first: {"version", "from", "at", "by", "why"}."""
    try:
        stored = MlflowClient().get_registered_model(name).tags.get(_history_tag(alias), "[]")
        moves = json.loads(stored)
    except MlflowException as error:
        with reported(f"look up the registered model {name!r}"):
            if not registry.is_missing(error, name):
                raise
        raise RegistryError(f"There is no registered model {name!r}: {error.message}") from error
    except json.JSONDecodeError:
        return []
    return [move for move in moves if isinstance(move, dict) and isinstance(move.get("version"), int)]


def move_back(name: str, alias: str, say: Say = says) -> tuple[Version, Version]:
    """Give the alias back to the version that had it before; that version, and the one that loses it.

    Raises  RegistryError: nobody has it, nobody had it before, that version no longer answers, or another moved the
            alias meanwhile
    """
    now, before, _ = _way_back(name, alias)
    registry.check_answers(before)  # which takes its time, and others are not to wait for it
    with _turn(name, alias, f"move the alias {alias} back to {before}", say) as turn:
        found, target, moves = _way_back(name, alias)
        if (found.number, target.number) != (now.number, before.number):
            raise RegistryError(
                f"{name}@{alias} was moved from version {now.number} to version {found.number} meanwhile. "
                "If it is still to go back, ask again."
            )
        turn.check()
        MlflowClient().set_registered_model_alias(name, alias, str(before.number))
        _remember(name, alias, moves)
    registry.annotate(now, tags={f"{alias}.rolled_back": _now()})
    return before, now


def _way_back(name: str, alias: str) -> tuple[Version, Version, list[dict[str, Any]]]:
    """Who has the alias, who had it before, and the history as it is to be then."""
    now = aliased(name, alias)
    if now is None:
        raise RegistryError(f"No version of {name} has the alias {alias}, so there is nothing to move back.")
    moves = history(name, alias)
    there = set(registry.numbers(name))
    while moves and (moves[-1]["version"] == now.number or moves[-1]["version"] not in there):
        moves.pop()
    if not moves:
        raise RegistryError(
            f"{name}@{alias} is version {now.number} and no other version had the alias before. "
            f"Name one: {promote_command(name, 'N', alias)} --force"
        )
    return now, registry.version(name, moves[-1]["version"]), moves


@contextlib.contextmanager
def _turn(name: str, alias: str, what: str, say: Say) -> Iterator[Turn]:
    with reported(what), alias_turn.turn(name, alias, say) as turn:
        yield turn


def _give(turn: Turn, which: Version, now: Version | None, alias: str, why: str) -> None:
    """now: who has it.  The alias comes first: a move that the history lacks is found and noted by the next one"""
    moves = history(which.name, alias)
    last = moves[-1]["version"] if moves else None
    if now is not None and now.number != last:
        moves.append({"version": now.number, "from": last, "at": _now(), "by": "", "why": "found there"})
    moves.append(
        {"version": which.number, "from": _number(now), "at": _now(), "by": _user(), "why": why[:200]}
    )
    turn.check()
    MlflowClient().set_registered_model_alias(which.name, alias, str(which.number))
    _remember(which.name, alias, moves)


def _number(version: Version | None) -> int | None:
    return version.number if version else None


def _user() -> str:
    """As the tracking server knows them, or else this machine."""
    with contextlib.suppress(OSError, KeyError):  # a container may have no name for its user
        return os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
    return ""


def _remember(name: str, alias: str, moves: list[dict[str, Any]]) -> None:
    MlflowClient().set_registered_model_tag(name, _history_tag(alias), json.dumps(moves[-HISTORY_KEPT:]))


def _history_tag(alias: str) -> str:
    return f"{alias}.history"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
