"""How a job uses the machine: its threads and its memory. Nothing here imports torch, which reads this at its start."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from pathlib import Path
from typing import IO

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # of glibc's malloc.h
KEPT_BYTES = 2**30

_turn: list[IO[str]] = []  # kept open, for the lock ends with it


def share_cores() -> None:
    """Have torch's waiting threads sleep if another job of this user, or another process of this one, is at work here.

    Otherwise they spin for a while.

    Spinning threads are faster and starve each other: on two cores a training of 28 s took 56 s with threads that
    sleep at once; two of them side by side took 183 s each when both spun, 35 s when both slept, and 64 and 49 s
    when the first spun and the second slept. OMP_WAIT_POLICY in the environment has the last word.
    """
    if int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1 or not _alone():
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def _alone() -> bool:
    """Whether no other process holds the lock, which is then ours until the process ends."""
    try:
        import fcntl
    except ImportError:  # no Unix
        return False
    try:
        lock = (Path(tempfile.gettempdir()) / f"widedeep-{os.getuid()}.lock").open("a")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    _turn.append(lock)
    return True


def keep_freed_memory() -> None:
    """Have large blocks taken from what was freed before, up to KEPT_BYTES, and not from the system each time.

    A training step takes and frees the same tens of megabytes, and the system clears what it gives, page by page:
    a training on ml-latest-small takes 53 s with this and 63 s without. glibc alone has the setting.
    """
    if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt"):
        library = ctypes.CDLL(None)
        library.mallopt(MMAP_THRESHOLD, KEPT_BYTES)
        library.mallopt(TRIM_THRESHOLD, KEPT_BYTES)
