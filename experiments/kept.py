"""The files of an outbox: what MLflow is still to be told of a run.

    mlflow-outbox/RUN-NAME.jsonl   a line for the run, then one for each write and one for each that was sent
    mlflow-outbox/RUN-NAME/        the files among the writes

Each line is on the disk before the job goes on. A line that was cut off, because the machine stopped in the middle
of it, is passed over. Lines are JSON; nothing is unpickled.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import uuid
from collections import deque
from pathlib import Path
from typing import IO, Any

from experiments.writes import KINDS, File, Write
from widedeep.errors import TrackingError
from widedeep.store_trouble import HIDDEN, masked

FORM = 1


class Kept:
    """Writes of one run in one file, the oldest first. Others leave the file alone as long as this is open."""

    def __init__(self, path: Path, file: IO[str]) -> None:
        """As `begin` and `open` make it."""
        self.path = path
        self.run_id = ""
        self.tracking_uri = ""  # without a password
        self.pending: deque[Write] = deque()
        self.refused: list[str] = []  # reasons
        self._numbers: deque[int] = deque()
        self._last = 0
        self._file = file

    @classmethod
    def begin(cls, folder: Path, run_id: str, tracking_uri: str) -> Kept:
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            path = folder / f"{run_id}-{uuid.uuid4().hex[:8]}.jsonl"
            file = path.open("a", encoding="utf-8")
            if _lock(file) and path.exists():
                break
            file.close()  # a `sync` came upon it before it was ours, and throws it away, as there is nothing in it
        kept = cls(path, file)
        kept.run_id, kept.tracking_uri = run_id, masked(tracking_uri).replace(f":{HIDDEN}@", "@")
        kept._append({"form": FORM, "run_id": run_id, "tracking_uri": kept.tracking_uri})
        _to_disk(folder)
        return kept

    @classmethod
    def open(cls, path: Path) -> Kept | None:
        """What an earlier job has left, possibly nothing; None while another process has it open.

        Raises  TrackingError: the file is of another form
        """
        file = path.open("a+", encoding="utf-8")
        if not _lock(file):
            file.close()
            return None
        kept = cls(path, file)
        file.seek(0)
        kept._read(file.read())
        return kept

    def add(self, write: Write) -> None:
        self._last += 1
        values = dataclasses.asdict(write)
        if isinstance(write, File):
            copy = self._folder / str(self._last) / Path(write.path).name
            copy.parent.mkdir(parents=True)
            with copy.open("wb") as target, open(write.path, "rb") as source:
                shutil.copyfileobj(source, target)
                target.flush()
                os.fsync(target.fileno())
            write = dataclasses.replace(write, path=str(copy))
            values["path"] = str(copy.relative_to(self.path.parent))
        self._append({"number": self._last, "write": type(write).__name__, "values": values})
        self.pending.append(write)
        self._numbers.append(self._last)

    def sent(self) -> None:
        """The first is in the store."""
        write = self.pending.popleft()
        self._append({"sent": self._numbers.popleft()})
        if isinstance(write, File):
            shutil.rmtree(Path(write.path).parent)

    def refuse(self, reason: str) -> None:
        """The first will not be taken: it stays in the file, and is tried again when the file is opened again."""
        self.pending.popleft()
        self._numbers.popleft()
        self.refused.append(reason)

    def close(self) -> None:
        """The file goes if nothing is left in it."""
        if not self.pending and not self.refused:
            shutil.rmtree(self._folder, ignore_errors=True)
            self.path.unlink()
        self._file.close()

    @property
    def _folder(self) -> Path:
        return self.path.with_suffix("")

    def _append(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _read(self, text: str) -> None:
        if text and not text.endswith("\n"):
            self._file.write("\n")
        lines = [found for found in map(_line, text.splitlines()) if found]
        if not lines:  # the machine stopped before the first was written, or its job has just sent all
            return
        head = lines.pop(0)
        if head.get("form") != FORM:
            raise TrackingError(
                f"{self.path} is no file of an outbox that this version reads. "
                "Send it with the version that wrote it, or move it away."
            )
        self.run_id, self.tracking_uri = head["run_id"], head["tracking_uri"]
        sent = {line["sent"] for line in lines if "sent" in line}
        for line in lines:
            if "write" not in line:
                continue
            self._last = line["number"]
            if self._last not in sent:
                values = line["values"]
                if line["write"] == "File":
                    values["path"] = str(self.path.parent / values["path"])
                self.pending.append(KINDS[line["write"]](**values))
                self._numbers.append(self._last)


def _line(text: str) -> dict[str, Any]:
    """Empty where it was cut off."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _lock(file: IO[str]) -> bool:
    """Whether no other process holds it, which the system lets go of with the file or the process."""
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _to_disk(folder: Path) -> None:
    """The folder's list of files, too."""
    if sys.platform != "win32":
        handle = os.open(folder, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
