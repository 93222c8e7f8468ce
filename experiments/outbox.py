"""Writes that the tracking store does not take now: the job goes on, and they are sent when it does.

Until then they are in `mlflow-outbox/` in the working directory; `experiments.kept` has the form of its files. What
is still there when the job ends is sent by one command:

    python -m experiments sync
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import mlflow
from mlflow.tracking import MlflowClient

from experiments.kept import Kept
from experiments.progress import Console
from experiments.store import STORE_ERRORS, brief_requests, is_refusal, reached
from experiments.writes import Child, Write
from widedeep.store_trouble import trouble

FOLDER = "mlflow-outbox"
ANSWER_SECONDS = 10  # that an answer may take
FIRST_WAIT, LONGEST_WAIT = 5.0, 60.0  # seconds before a store that was away is asked again, doubled each time


class Outbox:
    """Sends the writes of one run in their order, at once or as soon as the store is back.

    Only what MLflow itself refuses is an error; a trial, which has cost its training, is kept even then.
    """

    def __init__(self, run_id: str, client: MlflowClient, folder: Path | None = None) -> None:
        """folder  for what must wait; it is made when there is something"""
        self.was_away = self._is_away = False
        self.on_return: Callable[[], object] = lambda: None  # called when the store is back
        self._run_id = run_id
        self._client = client
        self._folder = folder or Path(FOLDER).absolute()
        self._console = Console()
        self._kept: Kept | None = None
        self._wait, self._not_before = FIRST_WAIT, 0.0
        self._turn = threading.RLock()

    @property
    def waiting(self) -> int:
        """Writes that the store does not have yet."""
        return len(self._kept.pending) if self._kept else 0

    def send(self, what: str, write: Write) -> None:
        """Raises  TrackingError: MLflow refuses it"""
        with self._turn:
            if self.waiting and not self.retry():
                self._keep(write)
                return
            try:
                with brief_requests(ANSWER_SECONDS, retries=0):
                    write.send(self._client, again=False)
            except STORE_ERRORS as error:
                if is_refusal(error) and not isinstance(write, Child):
                    with reached(what):
                        raise
                self._keep(write)
                self._away(error)
            except KeyboardInterrupt:  # while an answer was waited for
                self._keep(write)
                raise

    def retry(self, *, now: bool = False) -> bool:
        """Whether the store has everything, after what is kept was tried again, if it is time or `now`."""
        with self._turn:
            if self._kept is None or not self.waiting:
                return True
            if not now and time.monotonic() < self._not_before:
                return False
            count = self.waiting + len(self._kept.refused)
            try:
                drain(self._kept, self._client)
            except STORE_ERRORS as error:
                self._away(error)
                return False
            self._is_away, self._wait = False, FIRST_WAIT
            sent = count - len(self._kept.refused)
            self._console.say(f"mlflow: the tracking store is back; {sent} writes sent that it had missed")
            self.on_return()
            return True

    def close(self) -> None:
        """Try once more, and say what to do about the rest."""
        with self._turn:
            self.retry(now=True)
            if self._kept is None:
                return
            if self.waiting:
                self._console.loud(
                    f"The tracking store is away, and {self.waiting} writes to MLflow wait in {self._kept.path}.\n"
                    f"When it is back, send them from {Path.cwd()}: {sync_command(self._folder)}"
                )
            for reason in self._kept.refused:
                self._console.loud(f"MLflow refused a write, which stays in {self._kept.path}: {reason}")
            self._kept.close()
            self._kept = None

    def _keep(self, write: Write) -> None:
        if self._kept is None:
            self._kept = Kept.begin(self._folder, self._run_id, mlflow.get_tracking_uri())
        self._kept.add(write)

    def _away(self, error: BaseException) -> None:
        if not self._is_away and self._kept is not None:
            self._console.say(
                f"mlflow: the tracking store is away ({trouble(error).reason}); the job goes on, and what it "
                f"writes is kept in {self._kept.path} and sent later"
            )
        self._is_away = self.was_away = True
        self._not_before = time.monotonic() + self._wait
        self._wait = min(2 * self._wait, LONGEST_WAIT)


def drain(kept: Kept, client: MlflowClient, *, past_failures: bool = False) -> None:
    """Send what is kept, the oldest first; what MLflow refuses is set aside.

    past_failures  so is what fails while the store answers other questions: it must not hold up the rest for ever
    Raises         one of STORE_ERRORS: the store is away; what is left stays kept
    """
    while kept.pending:
        try:
            with brief_requests(ANSWER_SECONDS, retries=0):
                kept.pending[0].send(client, again=True)
        except STORE_ERRORS as error:
            if not is_refusal(error) and not (past_failures and _answers(client, kept.run_id)):
                raise
            kept.refuse(trouble(error).reason)
        else:
            kept.sent()


def _answers(client: MlflowClient, run_id: str) -> bool:
    try:
        with brief_requests(ANSWER_SECONDS, retries=0):
            client.get_run(run_id)
    except STORE_ERRORS:
        return False
    return True


def sync_command(folder: Path) -> str:
    """What a person types to send what is kept there."""
    command = "python -m experiments sync"
    return command if folder == Path(FOLDER).absolute() else f"{command} --outbox {folder}"
