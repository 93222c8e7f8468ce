"""Turns at moving an alias: one process at a time, whatever MLflow's store is.

MLflow has no compare-and-set. It has tags of a registered model, which everybody may write who may move its aliases,
and which are registers: a write is there for all who read after it. That is enough for Lamport's bakery. Who wants a
turn writes a ticket of their own as a tag, `champion.turn.ID`, draws a number above all that are there, and waits
until nobody has a lower one. Nobody ever writes another's ticket, so two who come at once are no special case.

A ticket whose text does not change for EXPIRY seconds on the clock of one who waits is that of a process that died,
and is taken away: no clocks are compared. Hence those who wait write theirs again and again, those who have the turn
have to be done with it early (`Turn.check`), and those who were stopped for too long draw anew.

Source  Lamport 1974, "A new solution of Dijkstra's concurrent programming problem", CACM 17(8)
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from experiments.store import brief_requests
from widedeep.errors import RegistryError

EXPIRY = 60.0  # seconds after which a process that has shown no life is held for dead
PATIENCE = 10  # expiries that one waits at most
POLL = 0.1  # seconds between looks
TOLD_AFTER = 2.0  # seconds of waiting after which a person is told


@dataclass(frozen=True)
class Ticket:
    """number: 0 while it is being drawn;  beat: counts the writes;  who: host and process, for people"""

    id: str
    number: int
    beat: int
    who: str


class _LateError(Exception):
    """So much time has passed that others may have taken our ticket away."""


class Turn:
    """A place in the line for one alias, and then the turn."""

    def __init__(self, name: str, alias: str, say: Callable[[str], None]) -> None:
        self._client = MlflowClient()
        self._name, self._alias = name, alias
        self._say = say
        self._id = uuid.uuid4().hex
        self._beat = 0
        self._alive = 0.0  # when the last write that went through began
        self._who = f"{socket.gethostname()}, process {os.getpid()}"
        self._seen: dict[str, tuple[Ticket, float]] = {}  # others', and since when they are as they are

    def take(self) -> None:
        """Raises  RegistryError: the turn did not come;  MlflowException: the store did not answer"""
        began = time.monotonic()
        told = False
        number = 0
        while True:
            with contextlib.suppress(_LateError):
                if not number:
                    number = self._draw()
                ahead = self._ahead(number)
                if not ahead:
                    return
                waited = time.monotonic() - began
                if waited > TOLD_AFTER and not told:
                    self._say(f"alias: waiting for {ahead[0].who} to be done with {self._name}@{self._alias}")
                    told = True
                if waited > PATIENCE * EXPIRY:
                    raise RegistryError(
                        f"{self._name}@{self._alias} was being moved by others for {waited:.0f} s, last by "
                        f"{ahead[0].who}. Try again; if nobody is at it, delete the model's tags "
                        f"{self._alias}.turn.… in the MLflow UI."
                    )
                time.sleep(POLL)
                continue
            self.leave()
            self._alive, number = 0.0, 0

    def check(self) -> None:
        """To be called right before what only the one whose turn it is may do.

        Raises  RegistryError: it has taken so long that it may soon be another's turn
        """
        if time.monotonic() - self._alive > EXPIRY / 2:
            raise RegistryError(
                f"The store took so long to answer that the turn at moving {self._name}@{self._alias} was lost. "
                "Nothing was moved; try again."
            )

    def leave(self) -> None:
        self._client.delete_registered_model_tag(self._name, self._tag(self._id))

    def _draw(self) -> int:
        self._write(0)
        number = 1 + max((ticket.number for ticket in self._tickets()), default=0)
        self._write(number)
        return number

    def _ahead(self, number: int) -> list[Ticket]:
        """Those whose turn comes before ours; the dead are removed."""
        if time.monotonic() - self._alive > EXPIRY / 4:
            self._write(number)
        ahead = []
        there = self._tickets()
        if all(ticket.id != self._id for ticket in there):
            raise _LateError
        for ticket in there:
            if ticket.id == self._id or (ticket.number and (ticket.number, ticket.id) > (number, self._id)):
                continue
            known, since = self._seen.get(ticket.id, (None, 0.0))
            if known != ticket:
                self._seen[ticket.id] = ticket, time.monotonic()
            elif time.monotonic() - since > EXPIRY:
                self._say(f"alias: {ticket.who} has shown no life for {EXPIRY:.0f} s, so its turn is over")
                self._client.delete_registered_model_tag(self._name, self._tag(ticket.id))
                continue
            ahead.append(ticket)
        return sorted(ahead, key=lambda ticket: (ticket.number, ticket.id))

    def _write(self, number: int) -> None:
        """Raises  _LateError: it came so late that others may have held the ticket for dead before"""
        began = time.monotonic()
        self._beat += 1
        text = json.dumps({"number": number, "beat": self._beat, "who": self._who})
        self._client.set_registered_model_tag(self._name, self._tag(self._id), text)
        if self._alive and time.monotonic() - self._alive > EXPIRY:
            raise _LateError
        self._alive = began

    def _tickets(self) -> list[Ticket]:
        found = []
        for key, text in self._client.get_registered_model(self._name).tags.items():
            if key.startswith(self._tag("")):
                with contextlib.suppress(ValueError, KeyError, TypeError):  # not one of ours
                    told = json.loads(text)
                    found.append(
                        Ticket(
                            key.removeprefix(self._tag("")),
                            int(told["number"]),
                            int(told["beat"]),
                            str(told["who"]),
                        )
                    )
        return found

    def _tag(self, ticket: str) -> str:
        return f"{self._alias}.turn.{ticket}"


@contextlib.contextmanager
def turn(name: str, alias: str, say: Callable[[str], None]) -> Iterator[Turn]:
    """A block that one process at a time is in, for each alias of each registered model.

    say     tells a person why there is a wait
    Raises  RegistryError: the turn did not come;  MlflowException: the store did not answer
    """
    with brief_requests(seconds=max(1, int(EXPIRY / 6))):
        mine = Turn(name, alias, say)
        try:
            mine.take()
            yield mine
        except MlflowException:
            raise  # a request that got no answer may be carried out yet: the ticket stays until it expires
        except BaseException:
            mine.leave()
            raise
        mine.leave()
