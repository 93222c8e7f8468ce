"""Search for good settings; they are judged on the validation part, never on the test part.

    mlflow run . -e tune -P trials=20
    python -m experiments tune --dataset ml-latest-small --trials 20
    python -m experiments tune --dataset ml-latest-small --trials 200 --jobs 4 --study nightly
    python -m experiments tune --trials 50 --storage postgresql://optuna@db/optuna --study nightly

The first trial is the configuration as given. Trials that fall behind the others are pruned by epoch. A study that is
there is gone on with; docs/tuning.md tells the rest.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage

from experiments import interrupts, report, spaces, studies, tracking, warm_start
from experiments.crew import Crew
from experiments.jobs import JobConfig
from experiments.objectives import LABELS
from experiments.progress import Console
from experiments.recipe import Prepared, Selection
from experiments.study_config import MEMORY, StudyConfig, shown
from experiments.tracking import Run
from experiments.trial_record import GIVEN
from experiments.trials import Attempt, Trials, best_of, record
from widedeep import config as configuration
from widedeep.config import Config
from widedeep.errors import ConfigError, TrackingError, TrainingError

SECONDS_TO_BEGIN = 10  # from a study's creation to its first trial
OF_THE_MACHINE = ("device", "precision", "cuda_graphs", "checkpoint", "resume")  # may differ within a study
RUN, OWNER, MADE_OF = "widedeep.run", "widedeep.owner", "widedeep.made_of"  # the study's attributes


@dataclass(frozen=True)
class Search:
    """What the search found.  attempts: all of the study's, of earlier calls and of other machines, too"""

    best: Attempt
    attempts: list[Attempt]
    study: optuna.Study
    objectives: tuple[str, ...] = ("ndcg",)

    @property
    def selection(self) -> Selection:
        assert self.best.selection is not None
        return self.best.selection

    @property
    def gain(self) -> float | None:
        """By how much the best is above the configuration as given, on the validation part."""
        given = next((attempt.value for attempt in self.attempts if attempt.origin == GIVEN), None)
        return None if given is None or self.best.value is None else self.best.value - given

    @property
    def pareto(self) -> set[int]:
        """Numbers of the attempts that none surpasses in every objective; empty with a single one."""
        if len(self.objectives) == 1:
            return set()
        return {trial.number for trial in self.study.best_trials}


def check(config: Config, settings: StudyConfig) -> None:
    """Before the data are read: is the search space one, and is the storage there?

    Raises  ConfigError, TrackingError
    """
    spaces.load(settings.search_space, config)
    studies.open_storage(settings.storage)


def search(
    config: Config, data: Prepared, job: JobConfig, settings: StudyConfig, run: Run, console: Console
) -> Search:
    """Try `settings.trials` settings; each becomes a child of the run, or of the run that the study is at.

    Raises  TrainingError: no trial got to its end; KeyboardInterrupt, which says what was found by then
    """
    suggest = spaces.load(settings.search_space, config)
    storage = studies.open_storage(settings.storage)
    name = settings.study or f"{run.job}-{run.id[:8]}"
    study = open_study(name, storage, config, settings)
    trials = Trials(config, data, settings, suggest, console)
    _check_same(study, config, data, settings)
    if RUN not in study.user_attrs:
        for origin, params in warm_start.points(config, job, settings, suggest, storage, console):
            study.enqueue_trial(params, user_attrs={"origin": origin}, skip_if_exists=True)
    else:
        if isinstance(storage, JournalStorage):  # databases have the heartbeat
            studies.give_up_lost(study)
        studies.try_interrupted_again(study)  # what a second Ctrl-C has kept the first from
        there = [trials.attempt(trial, name) for trial in studies.finished(study)]
        best = best_of(there)
        so_far = f", the best {best.value:.4f}" if best and best.value is not None else ""
        console.say(f"tune: the study {name} goes on after {len(there)} trials{so_far}")
    study.sampler = studies.sampler(settings, len(study.get_trials(deepcopy=False)), worker=0)
    parent = _parent(study, run)
    run.tags({"study": name, "study.storage": shown(settings.storage), "study.run": parent.id})
    done: list[Attempt] = []

    def finished(number: int) -> None:
        with interrupts.held_off():  # what is in the study is in MLflow, too
            attempt = trials.attempt(study.get_trials(deepcopy=False)[number], name)
            done.append(attempt)
            best = best_of([trials.attempt(other, name) for other in _complete(study)])
            parent.trial(record(attempt, name), leader=record(best, name) if best else None)
        console.say(_line(attempt, f"{len(done)} of {settings.trials}", best))

    try:
        if settings.jobs > 1:
            Crew(config, settings, study, finished, console).work()
        else:
            one_by_one(trials, study, finished)
    except KeyboardInterrupt as interrupt:
        studies.try_interrupted_again(study)
        found = best_of([trials.attempt(trial, name) for trial in _complete(study)])
        raise KeyboardInterrupt(_interrupted(name, settings, len(done), found)) from interrupt
    finally:
        if parent is not run:
            parent.close()  # what waits for MLflow; the run itself goes on
    attempts = [trials.attempt(trial, name) for trial in studies.finished(study)]
    best = best_of(attempts)
    if best is None:
        failed = next((attempt for attempt in attempts if attempt.error), None)
        why = f" The first: {failed.error}" if failed else ""
        raise TrainingError(f"None of the {len(attempts)} trials got to its end.{why}")
    return Search(best, attempts, study, settings.objective_names)


def open_study(name: str, storage: BaseStorage, config: Config, settings: StudyConfig) -> optuna.Study:
    """The study of that name, which is made if need be.

    It has the attribute RUN as soon as who made it has said what to try first; others wait for that.
    """
    try:
        study = optuna.create_study(study_name=name, storage=storage, directions=studies.directions(settings))
    except optuna.exceptions.DuplicatedStudyError:
        study = optuna.load_study(study_name=name, storage=storage)
        until = time.monotonic() + SECONDS_TO_BEGIN
        while RUN not in study.user_attrs and time.monotonic() < until:
            time.sleep(0.1)
    study.pruner = studies.pruner(settings.pruner, config.train.ranking_epochs)
    return study


def one_by_one(trials: Trials, study: optuna.Study, finished: Callable[[int], None]) -> None:
    """Try them in this process.  finished: told the number of each"""
    settings, started, done = trials.settings, time.monotonic(), 0

    def told(number: int | None) -> None:
        nonlocal done
        if number is not None:
            done += 1
            finished(number)

    while done < settings.trials:
        if done and settings.timeout and time.monotonic() - started >= settings.timeout:
            break
        trials.run_one(study, told)


def _complete(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))


def _parent(study: optuna.Study, run: Run) -> Run:
    """The run whose children the trials become.

    That of the call that is at the study, on whichever machine, if there is one: then this call joins it, and its own
    run says what this machine did. Else this call's own, which is the study's run from now on.
    """
    there = study.user_attrs
    if RUN in there and not studies.Worker.parse(there[OWNER]).is_gone:
        with contextlib.suppress(TrackingError):  # it has ended, was deleted, or is in a store of its own
            return tracking.attach(there[RUN])
    study.set_user_attr(OWNER, str(studies.Worker.this()))
    study.set_user_attr(RUN, run.id)
    return run


def _check_same(study: optuna.Study, config: Config, data: Prepared, settings: StudyConfig) -> None:
    """Values of one study must be comparable: the same data, split, objectives and settings.

    Raises  ConfigError
    """
    mine: dict[str, Any] = {"data": data.key, "objectives": ",".join(settings.objective_names)}
    for part in (config.model, config.train):
        mine |= {
            name: value for name, value in configuration.to_dict(part).items() if name not in OF_THE_MACHINE
        }
    theirs = study.user_attrs.get(MADE_OF)
    if theirs is None:
        if study.get_trials(deepcopy=False):
            raise ConfigError(
                f"The study {study.study_name} was not made by this program. Begin another: --study NAME."
            )
        study.set_user_attr(MADE_OF, mine)
        return
    other = [name for name in mine if mine[name] != theirs.get(name)]
    if other:
        name = other[0]
        raise ConfigError(
            f"The study {study.study_name} was made with {name} {theirs.get(name)}, and this call has {mine[name]}"
            + (f" ({len(other) - 1} more differ)" if len(other) > 1 else "")
            + ". Trials are compared, so give the same settings, or begin another study: --study NAME."
        )


def _interrupted(name: str, settings: StudyConfig, done: int, best: Attempt | None) -> str:
    """What the run's description says."""
    text = f"Interrupted. {done} of {settings.trials} trials came to their end; nothing was registered."
    if best is not None and best.value is not None:
        text += (
            f" The best so far is trial {best.number + 1}: validation {LABELS['ndcg']} {best.value:.4f} with "
            f"{report.settings_text(best.params)}."
        )
    if settings.storage == MEMORY:
        return f"{text} The study was kept in memory and is gone."
    return (
        f"{text}\n\nGo on with the same command and `--study {name}` (with `mlflow run`: `-P study={name}`); the "
        "trials that were under way are tried again first."
    )


def _line(attempt: Attempt, count: str, best: Attempt | None) -> str:
    what = f"tune: trial {attempt.number + 1} ({count})"
    if attempt.state == "FAIL":
        return f"{what} failed: {attempt.error}"
    label = LABELS["ndcg"]
    value = f"no validation {label}" if attempt.value is None else f"validation {label} {attempt.value:.4f}"
    if attempt.state == "PRUNED":
        return f"{what} pruned at {value}, {attempt.seconds:.0f} s"
    leader = " (best so far)" if best is not None and best.number == attempt.number else ""
    origin = {"": "", GIVEN: " with the settings as given"}.get(
        attempt.origin, f" with those of {attempt.origin}"
    )
    return f"{what}{origin}: {value}{leader}, {attempt.seconds:.0f} s"
