"""One trial: tried in whichever process, kept in the study, and read from there by all.

What a trial found is written to the study as user attributes (curves, validation, chosen, seconds, error), so a
process that comes later, or is elsewhere, has the same recipe from it as the one that trained.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import optuna
import torch
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from experiments import interrupts, search_texts, spaces, studies
from experiments.experiment_page import NOTE
from experiments.objectives import METRICS, measurer
from experiments.progress import Console
from experiments.recipe import Prepared, Recipe, Selection, both, select
from experiments.spaces import Suggest
from experiments.studies import Worker
from experiments.study_config import StudyConfig
from experiments.trial_record import GIVEN, TrialRecord
from widedeep.closed_form import ClosedForm
from widedeep.config import Config
from widedeep.errors import ConfigError, TrainingError
from widedeep.training import Chosen, Progress, Step

METRIC = METRICS["ndcg"]
ENDS_A_TRIAL = (TrainingError, ConfigError, torch.OutOfMemoryError)  # and the search goes on
LOST = f"Its process ended before it did, {studies.RETRIES + 1} times."


@dataclass
class Attempt:
    """One trial. value: validation NDCG@10, None where it has none; state: COMPLETE, PRUNED or FAIL.

    origin  given, champion, study NAME; empty for what the sampler suggested
    values  of all objectives, in their order
    """

    number: int
    config: Config
    params: dict[str, Any]
    origin: str = ""
    started: float = 0.0
    curves: list[dict[str, Any]] = field(default_factory=list)
    selection: Selection | None = None
    value: float | None = None
    values: tuple[float, ...] = ()
    state: str = "FAIL"
    error: str = ""
    seconds: float = 0.0
    worker: str = ""

    @property
    def pruned_at(self) -> int | None:
        """The epoch."""
        return int(self.curves[-1]["epoch"]) if self.state == "PRUNED" and self.curves else None


@dataclass(frozen=True)
class Trials:
    """What all trials of a search have in common."""

    config: Config
    data: Prepared
    settings: StudyConfig
    suggest: Suggest
    console: Console

    def objective(self, trial: optuna.Trial) -> tuple[float, ...]:
        """Train one setting.  Raises TrialPruned; TrainingError and others of ENDS_A_TRIAL"""
        curves: list[dict[str, Any]] = []
        names = self.settings.objective_names
        try:
            config = self.suggest(trial, self.config)
            if trial.user_attrs.get("origin") == GIVEN:
                config = self.config
            with self.console.training(f"trial {trial.number + 1}") as shown:
                watch = _watch(trial, curves, prunes=len(names) == 1)
                known = self._closed_form(trial.study, config)
                selection = select(config, self.data, both(shown, watch), known, measurer(names, self.data))
        except ENDS_A_TRIAL as error:
            trial.set_user_attr("error", str(error))
            raise
        finally:
            trial.set_user_attr("curves", curves)
        trial.set_user_attr("validation", selection.validation)
        trial.set_user_attr("chosen", selection.recipe.chosen.to_dict())
        trial.set_user_attr("seconds", selection.seconds)
        values = (selection.validation.get(METRICS[name], math.nan) for name in names)
        return tuple(-1.0 if math.isnan(value) else value for value in values)

    def run_one(self, study: optuna.Study, tell: Callable[[int | None], None]) -> None:
        """Try one setting. Ctrl-C and SIGTERM wait but for the training: what is asked and told must be whole.

        tell  told the number of its trial; None where another process has taken the trial for lost, as after a machine
              has slept, and tries it again
        """
        asked: list[int] = []
        with contextlib.ExitStack() as whole:
            whole.enter_context(interrupts.held_off())

            def objective(trial: optuna.Trial) -> tuple[float, ...]:
                asked.append(trial.number)
                trial.set_user_attr("worker", str(Worker.this()))
                try:
                    whole.close()
                    return self.objective(trial)
                except KeyboardInterrupt:
                    trial.set_user_attr("interrupted", True)
                    raise
                finally:
                    whole.enter_context(interrupts.held_off())

            try:
                study.optimize(objective, n_trials=1, catch=ENDS_A_TRIAL)
            except (
                UpdateFinishedTrialError,
                ValueError,
            ):  # from the storage; from Optuna when it is told the rest
                if not asked or asked[0] not in studies.retried(study.get_trials(deepcopy=False)):
                    raise
                tell(None)
            else:
                tell(asked[0])

    def attempt(self, trial: FrozenTrial, study: str) -> Attempt:
        """A finished trial as it is in the study, whoever tried it.

        Raises  ConfigError: it was suggested by another search space
        """
        kept = trial.user_attrs
        origin = str(kept.get("origin", ""))
        complete = trial.state == TrialState.COMPLETE
        config = self.config
        if origin != GIVEN and trial.state != TrialState.FAIL:
            config = _of(trial, self.suggest, self.config, study)
        curves = list(kept.get("curves", ()))
        selection = None
        if complete:
            chosen = Chosen.from_dict(kept["chosen"])
            selection = Selection(Recipe(config, chosen), curves, kept["validation"], kept["seconds"])
            value = kept["validation"].get(METRIC)
        else:
            value = max((row[METRIC] for row in curves if METRIC in row), default=None)
        began, ended = trial.datetime_start, trial.datetime_complete
        return Attempt(
            number=trial.number,
            config=config,
            params=_given(trial.params, config) if origin == GIVEN else dict(trial.params),
            origin=origin,
            started=began.timestamp() if began else 0.0,
            curves=curves,
            selection=selection,
            value=None if value is None or math.isnan(value) else value,
            values=tuple(trial.values or ()) if complete else (),
            state=trial.state.name,
            error=str(kept.get("error", "" if trial.state != TrialState.FAIL else LOST)),
            seconds=(ended - began).total_seconds() if began and ended else 0.0,
            worker=str(kept.get("worker", "")).rpartition(":")[0],
        )

    def _closed_form(self, study: optuna.Study, config: Config) -> ClosedForm | None:
        """What an earlier trial chose whose settings differ in nothing that bears on it."""
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            given = trial.user_attrs.get("origin") == GIVEN
            earlier = self.config if given else _of(trial, self.suggest, self.config, study.study_name)
            if _solved(earlier) == _solved(config):
                return Chosen.from_dict(trial.user_attrs["chosen"]).closed_form
        return None


def best_of(attempts: list[Attempt]) -> Attempt | None:
    """The first of the completed attempts that none surpasses by NDCG@10."""
    complete = [attempt for attempt in attempts if attempt.state == "COMPLETE"]
    return max(complete, key=lambda attempt: -1.0 if attempt.value is None else attempt.value, default=None)


def record(attempt: Attempt, study: str) -> TrialRecord:
    """What is written of it."""
    selection = attempt.selection
    metrics: dict[str, float | None] = {f"validation/{METRIC}": attempt.value}
    if selection is not None:
        chosen = selection.recipe.chosen
        metrics |= {f"validation/{name}": value for name, value in selection.validation.items()}
        metrics |= {
            "chosen/ranking_epochs": chosen.ranking_epochs,
            "chosen/like_epochs": chosen.like_epochs,
            "chosen/deep_share": chosen.deep_share,
        }
    tags = {
        "trial.seed": attempt.config.train.seed,
        "trial.origin": attempt.origin,
        "trial.worker": attempt.worker,
        "trial.pruned_at": attempt.pruned_at,
        "trial.error": attempt.error[:5000],
        "optuna.study": study,
        "optuna.trial": attempt.number,
    }
    found = TrialRecord(
        number=attempt.number + 1,
        state=attempt.state,
        started=attempt.started,
        seconds=attempt.seconds,
        params=attempt.params,
        metrics=metrics,
        curves=attempt.curves,
        tags={name: str(value) for name, value in tags.items() if value not in ("", None)},
    )
    return dataclasses.replace(found, tags={**found.tags, NOTE: search_texts.of_trial(found)})


def _watch(trial: optuna.Trial, curves: list[dict[str, Any]], *, prunes: bool) -> Progress:
    """Keeps the curves, and ends a trial that the pruner gives up: Optuna prunes by one objective alone."""

    def watch(step: Step) -> None:
        if not step.metrics:
            return
        curves.append({"head": step.head, "epoch": step.epoch, **step.metrics})
        if prunes and step.head == "ranking" and METRIC in step.metrics:
            trial.report(step.metrics[METRIC], step.epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

    return watch


def _given(params: dict[str, Any], config: Config) -> dict[str, Any]:
    """The settings as they are and not the nearest point of the space."""
    fields = {**vars(config.train), **vars(config.model)}
    return {name: fields.get(name, value) for name, value in params.items()}


def _of(trial: FrozenTrial, suggest: Suggest, base: Config, study: str) -> Config:
    return spaces.rebuilt(suggest, trial.params, base, study)


def _solved(config: Config) -> tuple[Any, ...]:
    """All that the closed-form parts depend on: they see nothing of the autoencoder and its training."""
    model = dataclasses.replace(config.model, ranking_hidden=1, ranking_dim=1, ranking_dropout=0.0)
    return model, config.train.seed
