"""Optuna studies: where they are kept, how they are opened, and what becomes of trials whose process is gone.

A database has Optuna's heartbeat: a trial that has given no sign of life for GRACE seconds is tried again by whoever
begins a trial next. A journal file has none. There a trial says which process of which machine is at it, and whoever
opens the study looks whether that process is still there.
"""

from __future__ import annotations

import datetime
import os
import socket
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import optuna
import psutil
from optuna.exceptions import OptunaError, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from experiments.study_config import JOURNAL, MEMORY, StudyConfig, shown
from widedeep.errors import TrackingError

HEARTBEAT, GRACE = 10, 60  # seconds between signs of life; without one until a trial counts as lost
RETRIES = 2  # of a trial whose process ended: settings that need too much memory end every process
UNPRUNED_TRIALS = 2  # before any is pruned
UNPRUNED_EPOCHS = 10  # of every trial: a late bloomer is not to be cut at once
PATIENCE = 10  # epochs without a better value, before a trial below the median is pruned
CLOCK_SLACK = (
    2.0  # seconds by which a process's start may seem to move: the system's own clock has whole ones
)
NEWBORN = 60  # seconds in which a trial may not have said yet whose it is
DIRECTIONS: dict[str, Literal["minimize", "maximize"]] = {
    "ndcg": "maximize",
    "coverage": "maximize",
    "cost": "minimize",
}
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def open_storage(where: str) -> BaseStorage:
    """The storage of --storage.  Raises  TrackingError: it cannot be reached or written to"""
    if where == MEMORY:
        return InMemoryStorage()
    try:
        if "://" not in where:
            return JournalStorage(JournalFileBackend(os.path.expanduser(where or JOURNAL)))
        return _database(where)
    except (SQLAlchemyError, OptunaError, ImportError, OSError, ValueError) as error:
        told = error.__cause__ if isinstance(error, OptunaError) and error.__cause__ else error
        reason = str(told).strip().splitlines()[0][:300]
        raise TrackingError(
            f"Could not open the storage of studies {shown(where)}: {reason}\n"
            "Give another with --storage: a file, postgresql://USER@HOST/DATABASE (the password in PGPASSWORD or "
            "~/.pgpass), or memory, which keeps nothing."
        ) from error


def _database(where: str) -> RDBStorage:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        for last in (False, False, True):
            try:
                return RDBStorage(
                    where,
                    heartbeat_interval=HEARTBEAT,
                    grace_period=GRACE,
                    heartbeat_stale_trial_callback=_try_stale_again,
                )
            except (
                SQLAlchemyError,
                StorageInternalError,
            ):  # two that make the tables of an empty database at once
                if last:
                    raise
                time.sleep(1)
    raise AssertionError


def seed(settings: StudyConfig, begun: int, worker: int) -> int:
    """Another in every process and after every resume.  begun: trials that there are, to come or past"""
    return int(np.random.SeedSequence([settings.tune_seed, begun, worker]).generate_state(1)[0])


def sampler(settings: StudyConfig, begun: int, worker: int) -> optuna.samplers.BaseSampler:
    """TPE.  begun, worker: see `seed`"""
    return optuna.samplers.TPESampler(seed=seed(settings, begun, worker))


def pruner(name: str, epochs: int) -> optuna.pruners.BasePruner:
    """What ends a trial that falls behind.  epochs: that a trial has at most

    A low learning rate is behind for long and ahead at the end, so the median alone prunes the best settings
    (experiments/benchmarks/searching.py); here a trial that still gets better goes on.
    """
    if name == "median":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            median = optuna.pruners.MedianPruner(
                n_startup_trials=UNPRUNED_TRIALS, n_warmup_steps=UNPRUNED_EPOCHS
            )
            return optuna.pruners.PatientPruner(median, patience=PATIENCE)
    if name == "hyperband":
        least = min(UNPRUNED_EPOCHS, max(1, epochs))
        return optuna.pruners.HyperbandPruner(min_resource=least, max_resource=max(least, epochs))
    return optuna.pruners.NopPruner()


def directions(settings: StudyConfig) -> list[Literal["minimize", "maximize"]]:
    return [DIRECTIONS[name] for name in settings.objective_names]


@dataclass(frozen=True)
class Worker:
    """A process of a machine, as a trial names the one that is at it."""

    host: str
    pid: int
    started: float  # seconds since 1970: numbers of processes are used again

    @classmethod
    def of_process(cls, pid: int) -> Worker:
        """A process of this machine."""
        return cls(socket.gethostname(), pid, round(psutil.Process(pid).create_time(), 2))

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}:{self.started}"

    @classmethod
    def this(cls) -> Worker:
        return cls.of_process(os.getpid())

    @classmethod
    def parse(cls, text: str) -> Worker:
        """What str() has made."""
        host, pid, started = text.rsplit(":", 2)
        return cls(host, int(pid), float(started))

    @classmethod
    def of(cls, trial: FrozenTrial) -> Worker | None:
        """The one that is or was at the trial."""
        return cls.parse(trial.user_attrs["worker"]) if "worker" in trial.user_attrs else None

    @property
    def is_gone(self) -> bool:
        """Known to be: of another machine nothing is known."""
        if self.host != socket.gethostname():
            return False
        try:
            if not self.is_same(Worker.of_process(self.pid)):
                return True
            return bool(psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True

    def is_same(self, other: Worker | None) -> bool:
        return (
            other is not None
            and (self.host, self.pid) == (other.host, other.pid)
            and abs(self.started - other.started) < CLOCK_SLACK
        )


def retried(trials: Iterable[FrozenTrial]) -> set[int]:
    """Numbers of the trials that were lost and are tried again under another number."""
    return {number for trial in trials for number in trial.system_attrs.get("retry_history", ())}


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """All trials that came to an end, but for those that are tried again."""
    trials = study.get_trials(deepcopy=False)
    lost = retried(trials)
    return [trial for trial in trials if trial.state in FINISHED and trial.number not in lost]


def try_again(study: optuna.Study, trial: FrozenTrial, limit: int | None = RETRIES) -> bool:
    """Enqueue a trial that was lost, with its parameters, unless it was lost more often than `limit`."""
    history = [*trial.system_attrs.get("retry_history", ()), trial.number]
    if limit is not None and len(history) > limit:
        return False
    study.add_trial(
        optuna.create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={key: trial.user_attrs[key] for key in ("origin",) if key in trial.user_attrs},
            system_attrs={**trial.system_attrs, "failed_trial": history[0], "retry_history": history},
        )
    )
    return True


def _try_stale_again(study: optuna.Study, trial: FrozenTrial) -> None:
    try_again(study, trial)


def give_up_lost(study: optuna.Study, of: Worker | None = None, limit: int | None = RETRIES) -> list[int]:
    """Fail the running trials whose process is gone and enqueue them again; the numbers of those given up.

    of  the process that is known to have ended; else all of this machine that have, for a journal
    """
    given_up = []
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        worker = Worker.of(trial)
        lost = (_is_old(trial) if worker is None else worker.is_gone) if of is None else of.is_same(worker)
        if lost and _failed(study, trial) and not try_again(study, trial, limit):
            given_up.append(trial.number)
    return given_up


def try_interrupted_again(study: optuna.Study) -> None:
    """Enqueue what Ctrl-C has ended in this process."""
    trials = study.get_trials()
    done = retried(trials)
    for trial in trials:
        if (
            trial.user_attrs.get("interrupted")
            and trial.state == TrialState.FAIL
            and trial.number not in done
        ):
            try_again(study, trial, limit=None)


def _failed(study: optuna.Study, trial: FrozenTrial) -> bool:
    """Whether it was still running, and we the first to fail it."""
    try:
        study.tell(trial.number, state=TrialState.FAIL)
    except (UpdateFinishedTrialError, ValueError):
        return False
    return True


def _is_old(trial: FrozenTrial) -> bool:
    begun: Any = trial.datetime_start
    return begun is None or (datetime.datetime.now() - begun).total_seconds() > NEWBORN
