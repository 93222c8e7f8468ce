"""Files with secrets that may be replaced while the server runs."""

from __future__ import annotations

import logging
import stat
from pathlib import Path
from typing import TypeAlias

logger = logging.getLogger(__name__)

Stamp: TypeAlias = tuple[int, ...] | None  # None: there is no such file


def stamp(path: Path) -> Stamp:
    """Changes with the file, also where a link is set to another one, as Kubernetes does with secrets."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev


def warn_of_readers(path: Path, what: str) -> None:
    """Where users beyond its owner and group can read it, or any but its owner change it."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
        logger.warning("other users can read or change %s, %s: chmod 600 %s", path, what, path)
