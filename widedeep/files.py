"""Files that are whole or not there, and files of tensors that cannot run code."""

from __future__ import annotations

import hashlib
import os
import pickle
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch

from widedeep.errors import BundleError


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write beside `path`, then take its place: whoever reads finds the old file or the whole new one.

    Raises  BundleError: the folder is missing or not writable, or the disk is full; the old file is untouched
    """
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise BundleError(f"Could not write {path}: {error.strerror or error}.") from error
        if isinstance(error, RuntimeError) and "PytorchStreamWriter" in str(error):
            raise BundleError(f"Could not write {path}: the disk is full or went away.") from error
        raise


def sha256_of(path: Path) -> str:
    """Raises  BundleError: it cannot be read"""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"Could not read {path}: {error.strerror}.") from error


def load_tensors(path: Path, what: str) -> dict[str, Any]:
    """A dict of plain Python and tensors, on the CPU. Nothing is unpickled that could run code.

    what    how to call the file in messages
    Raises  BundleError: missing, damaged, or a file that holds more than tensors and plain Python
    """
    if not os.path.exists(path):  # Path.exists raises where a folder is not ours to look into
        raise BundleError(f"{path} does not exist. Give the path of {what}.")
    if os.path.isdir(path):
        raise BundleError(f"{path} is a folder. Give the path of {what}, a file.")
    if not zipfile.is_zipfile(path):
        raise BundleError(
            f"{path} is not {what}: it is not a file that torch.save wrote, or it was cut off. Nothing was loaded."
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BundleError(
            f"{path} holds Python objects besides tensors and plain values, which could run code, so nothing "
            f"was loaded. {what.capitalize()} of widedeep never does: save it again with widedeep."
        ) from error
    except Exception as error:
        raise BundleError(f"{path} is damaged and was not loaded ({type(error).__name__}).") from error
    if not isinstance(content, dict):
        raise BundleError(f"{path} is not {what}: it holds a {type(content).__name__}. Nothing was loaded.")
    return content
