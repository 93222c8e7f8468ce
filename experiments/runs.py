"""What a job writes to its MLflow run."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.entities import DatasetInput
from mlflow.tracking import MlflowClient

from experiments.outbox import Outbox
from experiments.store import reached
from experiments.tensorboard import Board
from experiments.tracked_data import InteractionsDataset
from experiments.trial_record import TrialRecord
from experiments.writes import BEST, Batch, Child, End, File, Inputs, Leader, Point
from widedeep.datasets import Dataset
from widedeep.store_trouble import masked

SOURCE_TAGS = (
    "mlflow.user",
    "mlflow.source.name",
    "mlflow.source.type",
    "mlflow.source.git.commit",
    "git.commit",
)
VALUE_LENGTH = 500
LED_BY = "validation/ndcg_at_10"  # what the leader of a search is best by


class Run:
    """An MLflow run that is being written.

    What is written may come late: while the store is away, the outbox keeps it.
    """

    def __init__(
        self,
        run_id: str,
        experiment_id: str,
        tags: Mapping[str, str],
        *,
        named: bool,
        data: Sequence[DatasetInput] = (),
    ) -> None:
        """tags: whose it is and where its source is from;  named: by a person;  data: what it has logged of it"""
        self.id = run_id
        self.experiment_id = experiment_id
        self.named = named
        self.job = tags["job"]
        self.source = {key: tags[key] for key in SOURCE_TAGS if key in tags}
        self.client = MlflowClient()
        self.seconds: dict[str, float] = {}  # by stage, see `stages.timed`
        self.outbox = Outbox(run_id, self.client)
        self.board: Board | None = None
        self._data = [dict(found.dataset) for found in data]
        self.pictures: set[str] = set()  # paths of the figures that were drawn
        self._tables: list[dict[str, str]] = []
        self._leader: int | None = None

    def show_in(self, folder: str) -> None:
        """Write the same scalars for TensorBoard, in a folder of the run's own below this one; empty: don't."""
        if folder:
            self.board = Board(Path(folder) / f"{self.job}-{self.id[:8]}")

    def rename(self, subject: str) -> None:
        """Call it after what the job turned out to be about, unless a person has named it."""
        if not self.named:
            self.tags({"mlflow.runName": f"{self.job} {subject}"})

    def params(self, section: str, values: Mapping[str, Any]) -> None:
        """Parameters, but for empty ones, as SECTION.NAME: `mlflow run` logs its own as NAME, and none may clash."""
        found = {
            name: _short(value) for name, value in _flat(section, values) if value is not None and value != ""
        }
        self.outbox.send("log parameters", Batch(self.id, params=found))

    def metrics(self, values: Mapping[str, float | None], step: int = 0) -> None:
        """Those that are numbers; NaN is left out."""
        found = _points(values, step)
        if not found:
            return
        if self.board:
            self.board.scalars(found)
        self.outbox.send("log metrics", Batch(self.id, points=found))

    def tags(self, values: Mapping[str, Any]) -> None:
        found = {name: masked(str(value)) for name, value in values.items()}
        self.outbox.send("log tags", Batch(self.id, tags=found))

    def describe(self, text: str) -> None:
        """The run's description in the UI, as Markdown."""
        self.tags({"mlflow.note.content": text})

    def text(self, text: str, path: str) -> None:
        self._made(path, lambda file: file.write_text(masked(text), encoding="utf-8"))

    def json(self, values: Any, path: str) -> None:
        self.text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", path)

    def table(self, frame: pd.DataFrame, path: str) -> None:
        """A table that the UI shows as one; `path` ends in .json.

        As MLflow's log_table, which reads what is there and appends: here a table that is written again is replaced.
        """
        self._made(path, lambda file: frame.to_json(file, orient="split", index=False))
        entry = {"path": path, "type": "table"}
        if entry not in self._tables:
            self._tables.append(entry)
        self.tags({"mlflow.loggedArtifacts": json.dumps(self._tables)})

    def parquet(self, frame: pd.DataFrame, path: str) -> None:
        self._made(path, lambda file: frame.to_parquet(file, index=False))

    def file(self, file: Path, folder: str = "", *, late: bool = True) -> None:
        """late: it may wait in the outbox, in a copy;  otherwise it is there when this returns

        Raises  TrackingError
        """
        where = "" if folder == "." else folder
        if late:
            self.outbox.send(f"log {file.name}", File(self.id, str(file), where))
            return
        with reached(f"log {file.name}"):
            self.client.log_artifact(self.id, str(file), where)

    def dataset(self, dataset: Dataset) -> None:
        """The data set with its digest, for the run's Datasets in the UI."""
        self._data = [dict(InteractionsDataset(dataset)._to_mlflow_entity())]
        self.outbox.send("log the data set", Inputs(self.id, self._data))

    def trial(self, trial: TrialRecord, leader: TrialRecord | None = None) -> None:
        """A finished trial as a child of this run, with its data set and its source, in a few calls.

        leader  the best so far, which this run shows while the search goes on; given each time, written when it changes
        """
        child = self.child_of(trial)
        if self.board:
            self.board.trial(child.name, trial.params, child.points)
        self.outbox.send(f"log trial {trial.number}", child)
        if leader is not None:
            self._lead(leader)

    def child_of(self, trial: TrialRecord) -> Child:
        """The trial as it is written."""
        ended = trial.started + trial.seconds
        points = _points({**trial.metrics, "seconds": trial.seconds}, 0, ended)
        for row in trial.curves:
            head, epoch = row["head"], int(row["epoch"])
            values = {f"curves/{head}_{name}": row[name] for name in row if name not in ("head", "epoch")}
            points += _points(values, epoch, ended)
        return Child(
            run_id=self.id,
            experiment_id=self.experiment_id,
            number=trial.number,
            name=f"trial {trial.number} (pruned)" if trial.state == "PRUNED" else f"trial {trial.number}",
            status="FAILED" if trial.state == "FAIL" else "FINISHED",
            started=_milliseconds(trial.started),
            ended=_milliseconds(ended),
            tags={**self.source, "trial.state": trial.state, **trial.tags},
            params={name: _short(value) for name, value in trial.params.items()},
            points=points,
            data=self._data,
        )

    def end(self, status: str) -> None:
        """FINISHED, FAILED or KILLED."""
        self.outbox.send("end the run", End(self.id, status, _milliseconds(time.time())))

    def close(self) -> None:
        """Send what waits, if it can be, and say what to do about the rest."""
        self.outbox.close()
        if self.board:
            self.board.close()

    def _lead(self, leader: TrialRecord) -> None:
        value = leader.metrics.get(LED_BY)
        if leader.number == self._leader or value is None or value != value:
            return
        self._leader = leader.number
        at = _milliseconds(leader.started + leader.seconds)
        settings = ", ".join(f"{name}={_short(setting)}" for name, setting in leader.params.items())
        if self.board:
            self.board.scalars([(BEST, float(value), at, leader.number)])
        self.outbox.send("log the best trial", Leader(self.id, leader.number, float(value), at, settings))

    def _made(self, path: str, make: Callable[[Path], Any]) -> None:
        """A file that `make` writes, as the artifact of that path."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / Path(path).name
            make(file)
            self.file(file, str(Path(path).parent))


def _points(values: Mapping[str, float | None], step: int, at: float | None = None) -> list[Point]:
    """at: seconds since 1970; now, if not given"""
    when = _milliseconds(time.time() if at is None else at)
    return [
        (name, float(value), when, step)
        for name, value in values.items()
        if value is not None and value == value
    ]


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)


def _flat(section: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """SECTION.NAME and the value of each; what holds values itself is a section, too."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{section}.{name}", value)
        else:
            yield f"{section}.{name}", value


def _short(value: Any) -> str:
    text = masked(",".join(map(str, value)) if isinstance(value, list | tuple) else str(value))
    return text if len(text) <= VALUE_LENGTH else text[: VALUE_LENGTH - 1] + "…"
