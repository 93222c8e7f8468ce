"""Worker processes of one study.

The first process hands out the trials one by one, so that their number is kept, and alone writes to MLflow. Where a
worker is killed, its trial is tried again and another worker takes its place.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import optuna
import torch

from experiments import studies
from experiments.progress import Console
from experiments.studies import Worker
from experiments.study_config import StudyConfig
from experiments.worker import Order, live
from widedeep.config import Config
from widedeep.device import resolve_device
from widedeep.errors import TrainingError

SECONDS_TO_END = 10


@dataclass
class _Hand:
    """A worker process as the first process sees it."""

    order: Order
    process: BaseProcess
    connection: Connection
    name: Worker
    busy: bool = False
    done: bool = False  # it was told to end

    def tell(self, go: bool) -> None:
        self.busy, self.done = go, not go
        with contextlib.suppress(OSError):  # it is gone: the loop will see that
            self.connection.send(go)


class Crew:
    """The workers of one call, and the trials that are still to be handed out."""

    def __init__(
        self,
        config: Config,
        settings: StudyConfig,
        study: optuna.Study,
        finished: Callable[[int], None],
        console: Console,
    ) -> None:
        """finished  told the number of each trial that came to its end"""
        self.config = config
        self.settings = settings
        self.study = study
        self.finished = finished
        self.console = console
        self.left = settings.trials
        self.started = time.monotonic()
        self._begun = len(study.get_trials(deepcopy=False))
        self._hired = 0
        self._hands: list[_Hand] = []
        self._told: set[int] = set()

    def work(self) -> None:
        """Have the trials tried.  Raises  TrainingError: a worker cannot work"""
        gpus = _gpus(self.config)
        count = min(self.settings.jobs, self.settings.trials)
        self.console.say(f"tune: {count} worker processes" + (f" on {len(gpus)} GPUs" if gpus else ""))
        try:
            for number in range(count):
                self._hire(gpus[number % len(gpus)] if gpus else "")
            while self._hands:
                wait([end for hand in self._hands for end in (hand.connection, hand.process.sentinel)])
                for hand in list(self._hands):
                    self._listen(hand)
        except KeyboardInterrupt:
            self._dismiss()
            for hand in self._hands:
                self._catch_up(hand)
            raise
        finally:
            self._dismiss()
            for hand in self._hands:
                studies.give_up_lost(self.study, hand.name, limit=None)

    def _hire(self, gpu: str) -> None:
        self._hired += 1
        order = Order(self.config, self.settings, self.study.study_name, self._hired, self._begun, gpu)
        self._hands.append(_start(order))

    def _listen(self, hand: _Hand) -> None:
        for trial in _heard(hand):
            if trial is not None:
                self._tell(trial)
            elif hand.busy:
                self.left += 1  # another process has taken its trial for lost
            go = self.left > 0 and not self._is_late
            self.left -= go
            hand.tell(go)
        if hand.process.exitcode is not None:
            self._hands.remove(hand)
            hand.connection.close()
            if not hand.done:
                self._replace(hand)

    def _replace(self, hand: _Hand) -> None:
        """Its process has ended in the middle of a trial."""
        status = hand.process.exitcode
        if not hand.busy:
            raise TrainingError(f"A worker process ended with status {status} before its first trial.")
        given_up = studies.give_up_lost(self.study, hand.name)
        settled = self._catch_up(hand)
        self.left += not settled
        fate = "given up" if given_up else "kept" if settled else "tried again"
        self.console.say(f"tune: worker {hand.name.pid} was ended (status {status}); its trial is {fate}")
        if self.left:
            self._hire(hand.order.gpu)

    def _catch_up(self, hand: _Hand) -> int:
        """Tell of trials that it ended and could tell nothing of; how many they are."""
        ended = [
            trial.number
            for trial in studies.finished(self.study)
            if hand.name.is_same(Worker.of(trial)) and not trial.user_attrs.get("interrupted")
        ]
        missed = [number for number in ended if number not in self._told]
        for number in missed:
            self._tell(number)
        return len(missed)

    def _tell(self, trial: int) -> None:
        self._told.add(trial)
        self.finished(trial)

    @property
    def _is_late(self) -> bool:
        """After the timeout; one trial is always begun."""
        timeout, begun = self.settings.timeout, self.left < self.settings.trials
        return bool(timeout) and begun and time.monotonic() - self.started >= timeout

    def _dismiss(self) -> None:
        """Now: what they are at is tried again when the study is gone on with."""
        for hand in self._hands:
            hand.process.terminate()
        for hand in self._hands:
            hand.process.join(SECONDS_TO_END)
            if hand.process.exitcode is None:
                hand.process.kill()
                hand.process.join()
            hand.connection.close()


def _heard(hand: _Hand) -> Iterator[int | None]:
    """What a worker has said: the number of a trial that ended, or None when it is ready for one and has none to tell.

    Raises  TrainingError: it cannot go on, and says why
    """
    with contextlib.suppress(EOFError, ConnectionResetError):
        while hand.connection.poll():
            said = hand.connection.recv()
            if isinstance(said, str):
                raise TrainingError(said)
            yield said


def _start(order: Order) -> _Hand:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=live, args=(order, theirs), daemon=True)
    workers = min(order.settings.jobs, order.settings.trials)
    cores = max(1, (os.cpu_count() or 1) // workers)
    environment = {
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(cores)),
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive"),
        **({"CUDA_VISIBLE_DEVICES": order.gpu} if order.gpu else {}),
    }
    with born_with(environment):
        process.start()
    theirs.close()
    assert process.pid is not None
    return _Hand(order, process, ours, Worker.of_process(process.pid))


@contextlib.contextmanager
def born_with(environment: dict[str, str]) -> Iterator[None]:
    """Processes that are started here have it, and leave the terminal's Ctrl-C to this one."""
    before = {name: os.environ.get(name) for name in environment}
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(environment)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _gpus(config: Config) -> list[str]:
    """What the workers share, each having one; none where there is but one, or they work elsewhere."""
    device = resolve_device(config.train.device)
    if device.type != "cuda" or device.index is not None:  # cuda:1 is one for all of them
        return []
    return gpu_names(torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES", ""))


def gpu_names(count: int, visible: str) -> list[str]:
    """For CUDA_VISIBLE_DEVICES of the workers.  count: of GPUs;  visible: what it is in this process"""
    named = [name.strip() for name in visible.split(",") if name.strip()]
    return [] if count < 2 else named[:count] or [str(number) for number in range(count)]
