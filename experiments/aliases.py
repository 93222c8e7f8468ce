"""Aliases in the model registry, each with the history of the versions that had it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from experiments import registry
from experiments.jobs import promote_command
from experiments.registry import Version, reported
from widedeep.errors import RegistryError

HISTORY_KEPT = 20  # moves of an alias that are remembered, so that it can be moved back
HTTP_MISSING = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}


def aliased(name: str, alias: str) -> Version | None:
    """The version that has the alias; None where no version has it, or there is no such model."""
    try:
        return registry.version_of(MlflowClient().get_model_version_by_alias(name, alias))
    except MlflowException as error:
        if error.error_code in HTTP_MISSING:
            return None
        raise RegistryError(f"Could not look up {name}@{alias}: {error.message}") from error


def move_alias(which: Version, alias: str, why: str) -> None:
    """Give the alias to a version, and remember that it had it."""
    client = MlflowClient()
    with reported(f"move the alias {alias} to {which}"):
        moves = history(which.name, alias)
        moves.append({"version": which.number, "at": _now(), "why": why[:200]})
        client.set_registered_model_alias(which.name, alias, str(which.number))
        _remember(which.name, alias, moves)


def history(name: str, alias: str) -> list[dict[str, Any]]:
    """The versions that had the alias, oldest first: {"version", "at", "why"}."""
    try:
        stored = MlflowClient().get_registered_model(name).tags.get(_history_tag(alias), "[]")
        moves = json.loads(stored)
    except MlflowException as error:
        raise RegistryError(f"There is no registered model {name!r}: {error.message}") from error
    except json.JSONDecodeError:
        return []
    return [move for move in moves if isinstance(move, dict) and isinstance(move.get("version"), int)]


def move_back(name: str, alias: str) -> tuple[Version, Version]:
    """Give the alias back to the version that had it before; that version, and the one that loses it.

    Raises  RegistryError: nobody has it, nobody had it before, or that version no longer answers
    """
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
    before = registry.version(name, moves[-1]["version"])
    registry.check_answers(before)
    with reported(f"move the alias {alias} back to {before}"):
        MlflowClient().set_registered_model_alias(name, alias, str(before.number))
        _remember(name, alias, moves)
    registry.annotate(now, tags={f"{alias}.rolled_back": _now()})
    return before, now


def _remember(name: str, alias: str, moves: list[dict[str, Any]]) -> None:
    MlflowClient().set_registered_model_tag(name, _history_tag(alias), json.dumps(moves[-HISTORY_KEPT:]))


def _history_tag(alias: str) -> str:
    return f"{alias}.history"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
