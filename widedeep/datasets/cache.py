"""Keep what was parsed and checked as plain columns, so that the same bytes are parsed once.

    $WIDEDEEP_DATA_DIR/columns/KEY/    user_id.npy, item_id.npy, rating.npy, timestamp.npy, entry.json

KEY is made of the SHA-256 of the file's bytes and of all that changes how they are read, so a changed file is
another entry, and takes the place of the older one. An entry is mapped into memory, never unpickled, and is
used only if its rows have the digest that they had when they were written. Deleting the folder `columns`
costs nothing but the next parsing; WIDEDEEP_NO_CACHE=1 does without it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from widedeep.datasets.source import Source
from widedeep.interactions import Interactions

FORMAT = 1  # raise it whenever files are read, checked or repaired in another way
SMALLEST = 5_000_000  # bytes of a file: smaller ones are parsed in a moment
ABANDONED = 86_400.0  # seconds after which a half-written entry was left by a process that died
COLUMNS = ("user_id", "item_id", "rating", "timestamp")

Read = tuple[Interactions, list[str]]  # and the notes on repairs
Tell = Callable[[str], None]


def cache_dir() -> Path:
    """Where data is kept: $WIDEDEEP_DATA_DIR, else $XDG_CACHE_HOME/widedeep, else ~/.cache/widedeep."""
    own = os.environ.get("WIDEDEEP_DATA_DIR")
    if own:
        return Path(os.path.expanduser(own))
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.expanduser(cache)) / "widedeep"


def columns(source: Source, settings: Mapping[str, object], parse: Callable[[], Read], tell: Tell) -> Read:
    """What `parse` returns, from the cache if the same bytes were parsed before with the same settings.

    source    what is parsed; not kept where it is no file, or a small one
    settings  everything besides the bytes that `parse` depends on, as JSON
    tell      gets a line if the columns could not be kept, which costs time and nothing else
    Raises    what `parse` raises
    """
    before = _state(source)
    if before is None or before[1] < SMALLEST or os.environ.get("WIDEDEEP_NO_CACHE", "") not in ("", "0"):
        return parse()
    assert source.path is not None
    about = {"path": os.path.abspath(source.path), "name": source.name, "settings": dict(settings)}
    try:
        with open(source.path, "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return parse()  # which says what is wrong with the file
    key = hashlib.sha256(json.dumps([FORMAT, digest, about["name"], about["settings"]]).encode()).hexdigest()
    folder = cache_dir() / "columns"
    found = _load(folder / key)
    if found is not None:
        return found
    rows, notes = parse()
    if _state(source) == before:  # else it is not known which bytes were parsed
        try:
            _keep(folder, key, rows, notes, about)
        except OSError as error:
            tell(
                f"{source.name} was parsed, but its columns could not be kept in {folder} "
                f"({error.strerror or error}): it will be parsed again the next time."
            )
    return rows, notes


def _state(source: Source) -> tuple[int, int, int] | None:
    """What changes when a file is written to: modification time, size and number; None where there is no file."""
    try:
        found = os.stat(source.path) if source.path else None
    except OSError:
        return None
    return found and (found.st_mtime_ns, found.st_size, found.st_ino)


def _load(entry: Path) -> Read | None:
    """The entry's rows and notes; None where there is none, or not as it was written."""
    try:
        body = _body(entry)
        rows = Interactions(*(_column(entry, name) if name in body["columns"] else None for name in COLUMNS))  # type: ignore[arg-type]
        lengths = {len(getattr(rows, name)) for name in body["columns"]}
        if lengths != {body["rows"]} or rows.digest() != body["digest"]:
            return None
        return rows, [str(note) for note in body["notes"]]
    except Exception:  # whatever lies there instead of an entry, the file itself can still be parsed
        return None


def _body(entry: Path) -> dict[str, Any]:
    """Raises  OSError, ValueError: it is not there, or not as it was written"""
    written, _, text = (entry / "entry.json").read_text().partition("\n")
    if written != hashlib.sha256(text.encode()).hexdigest():
        raise ValueError(f"{entry} is damaged")
    body: dict[str, Any] = json.loads(text)
    return body


def _column(entry: Path, name: str) -> np.ndarray:
    values = _mapped(entry / f"{name}.npy")
    kinds = (np.float32,) if name == "rating" else (np.int32, np.int64)
    if values.ndim != 1 or values.dtype not in kinds:
        raise ValueError(f"{entry}/{name}.npy has the type {values.dtype}")
    if not (entry / f"{name}.text.npy").exists():
        return values
    text, ends = _mapped(entry / f"{name}.text.npy"), _mapped(entry / f"{name}.ends.npy")
    if text.dtype != np.uint8 or text.ndim != 1 or ends.ndim != 1 or ends[-1] != len(text):
        raise ValueError(f"{entry}/{name}.ends.npy does not belong to its text")
    data, edges = text.tobytes(), [0, *ends.tolist()]
    texts: np.ndarray = np.empty(len(ends), dtype=object)
    texts[:] = [data[start:end].decode("utf-8", "surrogatepass") for start, end in itertools.pairwise(edges)]
    return np.asarray(texts[values])


def _mapped(path: Path) -> np.ndarray:
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _keep(folder: Path, key: str, rows: Interactions, notes: list[str], about: dict[str, Any]) -> None:
    """Write an entry beside its place, then move it there: whoever reads finds a whole one or none.

    Raises  OSError: the folder cannot be written to, or the disk is full; nothing is left behind
    """
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{uuid.uuid4().hex}.part"
    try:
        part.mkdir()
        there = [name for name in COLUMNS if getattr(rows, name) is not None]
        for name in there:
            _write(part, name, getattr(rows, name))
        body = {**about, "rows": len(rows), "columns": there, "digest": rows.digest(), "notes": notes}
        text = json.dumps(body, indent=1)
        (part / "entry.json").write_text(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}")
        _move(part, folder / key)
    finally:
        _remove(part)
    _tidy(folder, key, about)


def _write(part: Path, name: str, values: np.ndarray) -> None:
    if values.dtype == object:
        values, ids = pd.factorize(values)
        text = [value.encode("utf-8", "surrogatepass") for value in ids]
        np.save(part / f"{name}.text.npy", np.frombuffer(b"".join(text), dtype=np.uint8))
        np.save(part / f"{name}.ends.npy", np.cumsum([len(value) for value in text]))
        values = values.astype(np.int32)
    np.save(part / f"{name}.npy", values, allow_pickle=False)


def _move(part: Path, entry: Path) -> None:
    try:
        os.rename(part, entry)
    except OSError:  # something is there: a damaged entry, or another process was faster
        old = part.with_suffix(".old.part")
        os.rename(entry, old)
        try:
            os.rename(part, entry)
        finally:
            _remove(old)


def _tidy(folder: Path, key: str, about: dict[str, Any]) -> None:
    """Remove what the same file held before it was changed, and what processes that died left behind."""
    for entry in folder.iterdir():
        try:
            if entry.suffix == ".part":
                stale = time.time() - entry.stat().st_mtime > ABANDONED
            else:
                body = _body(entry)
                stale = entry.name != key and {name: body.get(name) for name in about} == about
        except (OSError, ValueError):
            continue  # not ours to judge
        if stale:
            _remove(entry)


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)
