"""A file to read from, wherever it lies."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from widedeep.errors import DataNotFoundError


@dataclass(frozen=True)
class Source:
    """A file, wherever it lies: on disk or inside an archive.

    name  what messages call it
    open  gives its bytes from the start, each time it is called
    path  the file on disk that it is, or that it is packed in; None: there is none
    """

    name: str
    open: Callable[[], IO[bytes]]
    path: Path | None = None


def source_of(path: Path) -> Source:
    """The file at `path`, unpacked where its name ends in .gz, .bz2 or .zst.

    Raises  DataNotFoundError: it is not there, is a folder, is empty or may not be read
    """
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise DataNotFoundError(f"{path} is a folder, a file was expected.")
        if found.st_size == 0:
            raise DataNotFoundError(f"{path} is empty (0 bytes).")
        path.open("rb").close()
    except (FileNotFoundError, NotADirectoryError):
        raise DataNotFoundError(f"There is no file {path}.") from None
    except OSError as error:
        raise DataNotFoundError(f"{path} cannot be read: {error.strerror}.") from error
    if path.suffix in (".gz", ".bz2", ".zst"):
        return Source(str(path), lambda: _unpacked(path), path)
    return Source(str(path), lambda: path.open("rb"), path)


def _unpacked(path: Path) -> IO[bytes]:
    import pyarrow as pa  # only here: what trains on data from elsewhere runs where it is not installed

    stream: IO[bytes] = pa.input_stream(str(path), compression="detect")
    return stream
