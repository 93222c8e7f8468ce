"""Send what an earlier job could not: the tracking store was away when it ended.

    python -m experiments sync
    MLFLOW_TRACKING_URI=http://… python -m experiments sync --outbox DIR

Each write goes to the store that the job wrote to; MLFLOW_TRACKING_URI says where that is now, if it has moved.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from mlflow.tracking import MlflowClient

from experiments.kept import Kept
from experiments.outbox import ANSWER_SECONDS, drain
from experiments.progress import Console
from experiments.store import STORE_ERRORS, brief_requests
from widedeep.errors import TrackingError
from widedeep.store_trouble import trouble


def job(folder: Path, console: Console) -> None:
    """The entry point `sync`.

    Raises  TrackingError: the store is still away, or refuses something; what was not sent stays where it is
    """
    files = sorted(folder.glob("*.jsonl"))
    if not files:
        print(f"Nothing waits in {folder}.")
    troubles = []
    for path in files:
        try:
            kept = Kept.open(path)
            if kept is None:
                console.say(f"sync: {path} is written by a job that still runs, which sends it itself")
                continue
            with contextlib.closing(kept):
                print(_send(kept))
        except TrackingError as error:
            troubles.append(str(error))
    if troubles:
        raise TrackingError("\n".join(troubles))


def _send(kept: Kept) -> str:
    if not kept.pending:
        return f"Nothing was left in {kept.path}."
    uri = os.environ.get("MLFLOW_TRACKING_URI") or kept.tracking_uri
    count = len(kept.pending)
    try:
        with brief_requests(ANSWER_SECONDS):
            client = MlflowClient(uri)
            client.get_run(kept.run_id)  # a store that does not know the run is another one
        drain(kept, client, past_failures=True)
    except STORE_ERRORS as error:
        raise TrackingError(
            f"{len(kept.pending)} writes of run {kept.run_id} still wait in {kept.path}: {uri}: "
            f"{trouble(error).reason}\n"
            f"They are for {kept.tracking_uri}; set MLFLOW_TRACKING_URI if it has moved or wants a password."
        ) from error
    if kept.refused:
        raise TrackingError(
            f"MLflow did not take {len(kept.refused)} of {count} writes of run {kept.run_id}, which stay in "
            f"{kept.path}: {kept.refused[0]}"
        )
    return f"Sent {count} writes of run {kept.run_id} to {uri}."
