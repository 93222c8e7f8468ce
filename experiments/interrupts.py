"""Ctrl-C and SIGTERM wait while something is written that must be whole."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def held_off() -> Iterator[None]:
    """What comes during the block takes effect at its end: in the middle of a transaction it would lock SQLite."""
    if threading.current_thread() is not threading.main_thread():  # where signals never arrive
        yield
        return
    came: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            os.kill(os.getpid(), came[0])
