"""What can be written to MLflow late: each write is plain values, so that it can wait in a file.

Sending one twice does what sending it once does, for an answer may be lost where the request was not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.tracking import MlflowClient

Point = tuple[str, float, int, int]  # name, value, milliseconds since 1970, step
BEST = "best/ndcg_at_10"  # the parent's metric that follows the search
BEST_TRIAL, BEST_VALUE, BEST_STEP, BEST_SETTINGS = "best.trial", "best.value", "best.step", "best.settings"


@dataclass(frozen=True)
class Batch:
    """Metrics, parameters and tags of a run. MLflow keeps equal points, parameters and tags once."""

    run_id: str
    points: Sequence[Point] = ()
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    def send(self, client: MlflowClient, *, again: bool) -> None:  # noqa: ARG002
        """The client itself makes as many calls of it as MLflow's limits want."""
        client.log_batch(
            self.run_id,
            [Metric(*point) for point in self.points],
            [Param(name, value) for name, value in self.params.items()],
            [RunTag(name, value) for name, value in self.tags.items()],
        )


@dataclass(frozen=True)
class Inputs:
    """The data sets of a run.  data: the fields of MLflow's entities"""

    run_id: str
    data: Sequence[Mapping[str, str]]

    def send(self, client: MlflowClient, *, again: bool) -> None:  # noqa: ARG002
        tags = [InputTag("mlflow.data.context", "training")]
        client.log_inputs(self.run_id, [DatasetInput(Dataset(**values), tags) for values in self.data])


@dataclass(frozen=True)
class File:
    """A file among a run's artifacts.  path: where it lies here;  folder: where it goes there"""

    run_id: str
    path: str
    folder: str

    def send(self, client: MlflowClient, *, again: bool) -> None:  # noqa: ARG002
        client.log_artifact(self.run_id, self.path, self.folder)


@dataclass(frozen=True)
class End:
    """How a run ended, and when (milliseconds since 1970)."""

    run_id: str
    status: str
    ended: int

    def send(self, client: MlflowClient, *, again: bool) -> None:  # noqa: ARG002
        client.set_terminated(self.run_id, self.status, self.ended)


@dataclass(frozen=True)
class Child:
    """A trial as a finished run below `run_id`. Times in milliseconds since 1970."""

    run_id: str
    experiment_id: str
    number: int
    name: str
    status: str
    started: int
    ended: int
    tags: Mapping[str, str]
    params: Mapping[str, str]
    points: Sequence[Point]
    data: Sequence[Mapping[str, str]] = ()

    def send(self, client: MlflowClient, *, again: bool) -> None:
        """again: it may be there, in whole or in part; a run that was made twice meanwhile is taken away"""
        there = self._there(client) if again else []
        run_id = there[0] if there else self._made(client)
        if self.data:
            Inputs(run_id, self.data).send(client, again=again)
        Batch(run_id, self.points, self.params).send(client, again=again)
        End(run_id, self.status, self.ended).send(client, again=again)
        for other in self._there(client) if again else []:
            if other != run_id:
                client.delete_run(other)

    def _made(self, client: MlflowClient) -> str:
        own = {"mlflow.parentRunId": self.run_id, "trial.number": str(self.number)}
        made = client.create_run(self.experiment_id, self.started, {**self.tags, **own}, self.name)
        return str(made.info.run_id)

    def _there(self, client: MlflowClient) -> list[str]:
        where = f"tags.`mlflow.parentRunId` = '{self.run_id}' AND tags.`trial.number` = '{self.number}'"
        return sorted(run.info.run_id for run in client.search_runs([self.experiment_id], where))


@dataclass(frozen=True)
class Leader:
    """The best trial so far, on the run of its study.  at: when it ended, in milliseconds since 1970"""

    run_id: str
    number: int
    value: float
    at: int
    settings: str

    def send(self, client: MlflowClient, *, again: bool) -> None:
        """Written only over one that is worse: several workers write, and some of it may come late.

        The step is the trial's number, or past the last one that is there: the UI shows the value of the last step.
        """
        tags = client.get_run(self.run_id).data.tags
        if float(tags.get(BEST_VALUE, -math.inf)) >= self.value:
            return
        step = max(self.number, int(tags.get(BEST_STEP, 0)) + 1)
        found = {
            BEST_TRIAL: str(self.number),
            BEST_VALUE: repr(self.value),
            BEST_STEP: str(step),
            BEST_SETTINGS: self.settings,
        }
        Batch(self.run_id, [(BEST, self.value, self.at, step)], tags=found).send(client, again=again)


Write = Batch | Inputs | File | End | Child | Leader
KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in (Batch, Inputs, File, End, Child, Leader)}
