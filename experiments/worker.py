"""One worker process of a study: it tries what it is told to.

It loads the data for itself and says when a trial has ended; what it found is in the study. It ends with the first
process, however that ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import FrameType

import optuna

from experiments import recipe, spaces, studies
from experiments.process import keep_freed_memory
from experiments.progress import Silent
from experiments.study_config import StudyConfig
from experiments.trials import Trials
from widedeep.config import Config
from widedeep.errors import WideDeepError


@dataclass(frozen=True)
class Order:
    """What a worker needs.  begun: trials that there were before the call;  gpu: for CUDA_VISIBLE_DEVICES"""

    config: Config
    settings: StudyConfig
    study: str
    number: int
    begun: int
    gpu: str


def live(order: Order, connection: Connection) -> None:
    """The whole life of a worker.

    connection  to the first process. It gets None when the worker is ready, then of each trial the number, or None
                if it was taken away; or a text that says why the worker cannot go on. It gives True for a trial,
                False for the end
    """
    signal.signal(signal.SIGTERM, _interrupt)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    keep_freed_memory()
    console = Silent()
    settings = order.settings
    try:
        data = recipe.prepare(order.config.data, console)
        study = optuna.load_study(
            study_name=order.study,
            storage=studies.open_storage(settings.storage),
            sampler=studies.sampler(settings, order.begun, order.number),
            pruner=studies.pruner(settings.pruner, order.config.train.ranking_epochs),
        )
        trials = Trials(
            order.config, data, settings, spaces.load(settings.search_space, order.config), console
        )
        connection.send(None)
        while connection.recv():
            trials.run_one(study, connection.send)
    except WideDeepError as error:
        connection.send(str(error))
    except (EOFError, KeyboardInterrupt):
        pass  # the first process is gone, or wants this one to go
    except Exception:
        connection.send(f"A worker process failed.\n{traceback.format_exc()}")
    finally:
        connection.close()
        os._exit(0)  # all is told and stored, and taking torch and MLflow down takes seconds


def _interrupt(number: int, _frame: FrameType | None) -> None:
    """Once: a process that is ended while it writes to a journal leaves it locked for half a minute."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _end_with_parent() -> None:
    """What the trial has not told by then is lost, and is tried again when the study is gone on with."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
