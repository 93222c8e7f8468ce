"""Search for good settings; the best are judged on the validation part, never on the test part.

    mlflow run . -e tune -P trials=20
    python -m experiments tune --dataset ml-latest-small --trials 20

The first trial is the configuration as given. Trials that fall behind the others are pruned by epoch.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from typing import Any

import optuna

from experiments import descriptions, search_space
from experiments.experiment_page import NOTE
from experiments.jobs import JobConfig
from experiments.progress import Console
from experiments.recipe import Prepared, Selection, both, select
from experiments.tracking import Run
from experiments.trial_record import TrialRecord
from widedeep.closed_form import ClosedForm
from widedeep.config import Config
from widedeep.errors import TrainingError
from widedeep.training import Progress, Step

METRIC = "ndcg_at_10"
UNPRUNED_TRIALS = 2  # before any is pruned
UNPRUNED_EPOCHS = 5  # of every trial: a late bloomer is not to be cut at once


@dataclass
class Attempt:
    """One trial. value: validation NDCG@10, None where it has none; state: COMPLETE, PRUNED or FAIL."""

    number: int
    config: Config
    started: float
    curves: list[dict[str, Any]] = field(default_factory=list)
    selection: Selection | None = None
    value: float | None = None
    state: str = "FAIL"
    error: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Search:
    """What the search found."""

    best: Attempt
    attempts: list[Attempt]

    @property
    def selection(self) -> Selection:
        assert self.best.selection is not None
        return self.best.selection

    @property
    def gain(self) -> float | None:
        """By how much the best is above the configuration as given, on the validation part."""
        first = self.attempts[0].value
        return None if first is None or self.best.value is None else self.best.value - first


def search(config: Config, data: Prepared, job: JobConfig, run: Run, console: Console) -> Search:
    """Try `job.trials` settings; each becomes a child of the run.

    Raises  TrainingError: no trial got to its end
    """
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=job.tune_seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=UNPRUNED_TRIALS, n_warmup_steps=UNPRUNED_EPOCHS),
    )
    study.enqueue_trial(search_space.nearest(config))
    attempts: list[Attempt] = []

    def objective(trial: optuna.Trial) -> float:
        suggested = search_space.suggest(trial, config)
        attempt = Attempt(trial.number, config if trial.number == 0 else suggested, time.time())
        attempts.append(attempt)
        title = f"trial {trial.number + 1} of {job.trials}"
        with console.training(title) as shown:
            try:
                attempt.selection = select(
                    attempt.config, data, both(shown, _watch(trial, attempt)), _closed_form(attempts)
                )
            except TrainingError as error:
                attempt.error = str(error)
                raise
        value = attempt.selection.validation.get(METRIC, math.nan)
        attempt.value = None if math.isnan(value) else value
        attempt.state = "COMPLETE"
        return value if attempt.value is not None else -1.0

    def finished(_study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        attempt = attempts[-1]
        attempt.seconds = time.time() - attempt.started
        if trial.state == optuna.trial.TrialState.PRUNED:
            attempt.state = "PRUNED"
        _log(run, attempt)
        console.say(_line(attempt, job.trials, _best(attempts)))

    study.optimize(objective, n_trials=job.trials, callbacks=[finished], catch=(TrainingError,))
    best = _best(attempts)
    if best is None:
        raise TrainingError(
            f"None of the {len(attempts)} trials got to its end. The first: {attempts[0].error}"
        )
    return Search(best, attempts)


def _watch(trial: optuna.Trial, attempt: Attempt) -> Progress:
    """Keeps the curves, and ends a trial that the pruner gives up."""

    def watch(step: Step) -> None:
        if not step.metrics:
            return
        attempt.curves.append({"head": step.head, "epoch": step.epoch, **step.metrics})
        if step.head == "ranking" and METRIC in step.metrics:
            attempt.value = max(attempt.value or 0.0, step.metrics[METRIC])
            trial.report(step.metrics[METRIC], step.epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

    return watch


def _closed_form(attempts: list[Attempt]) -> ClosedForm | None:
    """What the first trial chose: no setting that is searched bears on it."""
    selection = attempts[0].selection
    return None if selection is None else selection.recipe.chosen.closed_form


def _best(attempts: list[Attempt]) -> Attempt | None:
    """The first of the completed attempts that none surpasses."""
    complete = [attempt for attempt in attempts if attempt.state == "COMPLETE"]
    return max(complete, key=lambda attempt: -1.0 if attempt.value is None else attempt.value, default=None)


def _log(run: Run, attempt: Attempt) -> None:
    selection = attempt.selection
    metrics: dict[str, float | None] = {f"validation/{METRIC}": attempt.value}
    if selection is not None:
        metrics |= {f"validation/{name}": value for name, value in selection.validation.items()}
        metrics |= {f"chosen/{name}": float(value) for name, value in _chosen(selection).items()}
    trial = TrialRecord(
        number=attempt.number + 1,
        state=attempt.state,
        started=attempt.started,
        seconds=attempt.seconds,
        params=search_space.values(attempt.config),
        metrics=metrics,
        curves=attempt.curves,
        tags={"trial.error": attempt.error} if attempt.error else {},
    )
    run.trial(replace(trial, tags={**trial.tags, NOTE: descriptions.of_trial(trial)}))


def _chosen(selection: Selection) -> dict[str, Any]:
    chosen = selection.recipe.chosen
    return {
        "ranking_epochs": chosen.ranking_epochs,
        "like_epochs": chosen.like_epochs,
        "deep_share": chosen.deep_share,
    }


def _line(attempt: Attempt, trials: int, best: Attempt | None) -> str:
    what = f"tune: trial {attempt.number + 1} of {trials}"
    if attempt.state == "FAIL":
        return f"{what} failed: {attempt.error}"
    value = "no validation NDCG@10" if attempt.value is None else f"validation NDCG@10 {attempt.value:.4f}"
    if attempt.state == "PRUNED":
        return f"{what} pruned at {value}, {attempt.seconds:.0f} s"
    leader = " (best so far)" if best is attempt else ""
    given = " with the settings as given" if attempt.number == 0 else ""
    return f"{what}{given}: {value}{leader}, {attempt.seconds:.0f} s"
