"""What writing a trial to MLflow costs, in a young study and in one of a thousand trials.

    python -m experiments.benchmarks.tracking --out DIR
    python -m experiments.benchmarks.tracking --uri http://127.0.0.1:5000 --out DIR    # a server, too

Each trial has 10 parameters, 3 metrics over 10 epochs and 4 final ones. Three ways to write it take turns, in stores
of their own: ours, MLflow's fluent calls in a nested run, as its documentation shows, and one call for each value.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import mlflow
from mlflow.tracking import MlflowClient

from experiments.benchmarks import form
from experiments.benchmarks.form import Case, Report, Timing
from experiments.runs import Run
from experiments.tracking import quieten
from experiments.trial_record import TrialRecord
from widedeep import datasets
from widedeep.config import DataConfig

ABOUT = "The time that MLflow takes for one trial."
YOUNG, OLD = 10, 1000  # trials that the two studies have at the end of the measurement, about
ROUNDS = 21
QUICK = (30, form.REPEATS)
EPOCHS, PARAMS = 10, 10
WAYS = ("ours", "nested run", "one call each")


class Study:
    """A study's run in a store.  uri: of the store"""

    def __init__(self, uri: str) -> None:
        mlflow.set_tracking_uri(uri)
        self.uri = uri
        self.client = MlflowClient()
        found = self.client.get_experiment_by_name("benchmark")
        self.experiment = found.experiment_id if found else self.client.create_experiment("benchmark")
        parents = self.client.search_runs([self.experiment], "tags.job = 'tune'")
        made = parents[0] if parents else self.client.create_run(self.experiment, tags={"job": "tune"})
        self.parent = made.info.run_id
        self.run = Run(self.parent, self.experiment, made.data.tags, named=True)
        self.run.dataset(DATA)
        self.next = 1
        self._first = record(1)

    def activate(self) -> None:
        """For calls that ask MLflow which run is meant."""
        mlflow.end_run()
        mlflow.set_tracking_uri(self.uri)
        mlflow.start_run(run_id=self.parent)

    def write(self, way: str) -> None:
        number = self.next
        self.next += 1
        {"ours": self._ours, "nested run": self._nested, "one call each": self._each}[way](number)

    def _ours(self, number: int) -> None:
        """With the data set, the source's tags, the times and the best so far, which the others leave out."""
        self.run.trial(record(number), leader=self._first)

    def _nested(self, number: int) -> None:
        trial = record(number)
        with mlflow.start_run(run_name=f"trial {number}", nested=True):
            mlflow.log_params(dict(trial.params))
            for row in trial.curves:
                mlflow.log_metrics({name: row[name] for name in row if name in NAMES}, step=row["epoch"])
            mlflow.log_metrics(finals(number))

    def _each(self, number: int) -> None:
        trial, client = record(number), self.client
        tags = {"mlflow.parentRunId": self.parent}
        made = client.create_run(self.experiment, tags=tags, run_name=f"trial {number}").info.run_id
        for name, setting in trial.params.items():
            client.log_param(made, name, setting)
        for row in trial.curves:
            for name in NAMES:
                client.log_metric(made, name, row[name], step=row["epoch"])
        for name, value in finals(number).items():
            client.log_metric(made, name, value)
        client.set_terminated(made)


NAMES = ("ndcg_at_10", "recall_at_20", "train_loss")
DATA = datasets.load(DataConfig(dataset="synthetic", users=60, items=40, interactions=1500))


def finals(number: int) -> dict[str, float]:
    return {f"validation/{name}": 1 / (number + place) for place, name in enumerate((*NAMES, "auc"))}


def record(number: int) -> TrialRecord:
    curves = [
        {"head": "ranking", "epoch": epoch, **dict.fromkeys(NAMES, 1 / (number + epoch))}
        for epoch in range(1, EPOCHS + 1)
    ]
    params = {f"setting_{place}": number / (place + 1) for place in range(PARAMS)}
    return TrialRecord(
        number, "COMPLETE", time.time(), 1.0, params, finals(number), curves, {"trial.seed": "0"}
    )


def run(old: int, rounds: int, uri: str, folder: Path, tell: Callable[[str], None]) -> Report:
    """old: trials of the old study;  uri: of a server that is measured, too, or empty"""
    report = Report("What writing a trial to MLflow costs", (__doc__ or "").strip().split("\n\n")[-1])
    grown = Study(f"sqlite:///{folder}/old.db")
    seconds = fill(grown, old - rounds // 2, tell)
    for start in range(0, len(seconds), max(1, old // 10)):
        part = sorted(seconds[start : start + max(1, old // 10)])
        last = start + len(part)
        report.add(
            "ours", f"trials {start + 1} to {last}, one after another", 1000 * part[len(part) // 2], "ms"
        )
    young = Study(f"sqlite:///{folder}/young.db")
    fill(young, max(0, YOUNG - rounds // 2), tell)
    places = {f"trial {YOUNG}": "young", f"trial {old}": "old"}
    cases = []
    for place, name in places.items():
        for number, way in enumerate(WAYS):
            shutil.copy(folder / f"{name}.db", folder / f"{name}-{number}.db")
            study = Study(f"sqlite:///{folder}/{name}-{number}.db")
            study.next = {"young": young, "old": grown}[name].next
            cases.append(case(f"{way}, {place}", study, way))
    if uri:
        cases += [case(f"{way}, over a server", Study(uri), way) for way in WAYS]
    found = form.interleave(cases, rounds, tell)
    mlflow.end_run()
    fill_in(report, found, f"trial {YOUNG}", f"trial {old}", served=bool(uri))
    return report


def case(name: str, study: Study, way: str) -> Case:
    return Case(name, lambda: study.write(way), study.activate)


def fill(study: Study, trials: int, tell: Callable[[str], None]) -> list[float]:
    """Seconds that each takes."""
    seconds = []
    for _ in range(trials):
        started = time.perf_counter()
        study.write("ours")
        seconds.append(time.perf_counter() - started)
        if study.next % 50 == 0:
            tell(f"trial {study.next}: {1000 * seconds[-1]:.0f} ms")
    return seconds


def fill_in(report: Report, found: dict[str, Timing], young: str, old: str, *, served: bool) -> None:
    for name, timing in found.items():
        way, place = name.split(", ")
        report.add(way, place, 1000 * timing.wall_median, "ms")
        report.add(way, f"{place}, CPU", 1000 * timing.cpu_median, "CPU ms")
    for way in WAYS:
        first, last = found[f"{way}, {young}"].wall_median, found[f"{way}, {old}"].wall_median
        of = "" if way == "ours" else f" of {way}"
        report.ratios[f"{old.replace(' ', '_')}/{young.replace(' ', '_')}{of}"] = form.ratio_of_costs(
            last, first
        )
    for place in (young, old, *(["over a server"] if served else [])):
        for way in WAYS[1:]:
            ours, theirs = found[f"ours, {place}"].wall_median, found[f"{way}, {place}"].wall_median
            report.ratios[f"ours/{way}, {place}"] = form.ratio_of_costs(ours, theirs)
    report.notes.append("Of two places of one way the ratio is near 1 where the cost does not grow.")


def main(arguments: list[str] | None = None) -> int:
    flags = form.parser("tracking", ABOUT)
    flags.add_argument("--uri", default="", help="of a tracking server that is measured, too")
    given = flags.parse_args(arguments)
    tell = (lambda line: print(line, file=sys.stderr)) if sys.stderr.isatty() else (lambda _line: None)
    quieten()
    before = mlflow.get_tracking_uri()
    size = QUICK if given.quick else (OLD, ROUNDS)
    with tempfile.TemporaryDirectory() as folder:
        try:
            return form.deliver(lambda: run(*size, given.uri, Path(folder), tell), given.out)
        finally:
            mlflow.set_tracking_uri(before)


if __name__ == "__main__":
    sys.exit(main())
