"""One worker loads a model at a time: the cores are then left to those who serve, and memory holds one model more."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def turn(path: str) -> Iterator[None]:
    """Hold a file's lock while the block runs. The system takes it back from a process that ends.

    path  empty: there is nobody to wait for
    """
    if not path or sys.platform == "win32":
        yield
        return
    import fcntl

    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
