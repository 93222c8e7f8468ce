"""The state of the source that a job runs: its commit, and what differs from it, as a diff.

What is not committed is part of what made a run, so it is kept with the run: changed files that git knows, and new
Python files of the packages that jobs import. Other files that git does not know are left alone: they may be data.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("widedeep", "experiments")
KEPT_BYTES = 1_000_000  # of a diff
SECONDS = 20  # for git to answer
FORM = (  # the same diff for the same files, whatever a user has set, and no program of theirs is run
    "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames", "--full-index", "--unified=3",
    "--diff-algorithm=myers", "--src-prefix=a/", "--dst-prefix=b/",
)  # fmt: skip


@dataclass(frozen=True)
class SourceState:
    """What git says of the source.

    commit     empty where there is no repository, or one that does not hold this source
    diff       text of what is not committed, in git's form; empty where nothing differs. Binary files are named only
    sha256     of the whole diff, also where it is cut; empty without one
    cut        bytes of the diff that `diff` lacks
    new_files  those of the diff that git does not know
    """

    commit: str = ""
    diff: str = ""
    sha256: str = ""
    cut: int = 0
    new_files: tuple[str, ...] = ()

    @property
    def dirty(self) -> bool:
        return bool(self.sha256)

    def __str__(self) -> str:
        """The commit, with '-dirty' after it where files differ."""
        return f"{self.commit}-dirty" if self.dirty else self.commit

    def to_dict(self) -> dict[str, Any]:
        """All but the diff itself."""
        return {
            "commit": self.commit,
            "dirty": self.dirty,
            "diff_sha256": self.sha256,
            "diff_cut_bytes": self.cut,
            "new_files": list(self.new_files),
        }


@functools.cache
def current() -> SourceState:
    """Of the source that this process runs, as it was when the first job asked: later changes are not in memory."""
    return state(ROOT)


def state(root: Path, kept_bytes: int = KEPT_BYTES) -> SourceState:
    """Of the source in the folder `root`; empty where git is missing, does not answer or does not know it."""
    packages = [name for name in PACKAGES if (root / name).is_dir()]
    if not packages or not _git(root, "ls-files", "--", *packages):
        return SourceState()
    commit = (_git(root, "rev-parse", "HEAD") or b"").decode().strip()
    if not commit:
        return SourceState()
    listed = _git(root, "ls-files", "-z", "--others", "--exclude-standard", "--", *packages) or b""
    new = tuple(sorted(name for name in os.fsdecode(listed).split("\0") if name.endswith(".py")))
    whole = _diff(root, new)
    if whole is None:
        # never the same twice: what is unknown is equal to nothing
        whole = f"# git did not say what differed from the commit at {time.time_ns()}\n".encode()
    if not whole:
        return SourceState(commit)
    end = whole.rfind(b"\n", 0, kept_bytes) + 1 if len(whole) > kept_bytes else len(whole)
    cut = len(whole) - end
    text = whole[:end].decode(errors="replace")
    if cut:
        text += f"# cut here: {cut:,} of {len(whole):,} bytes are left out\n"
    return SourceState(commit, text, hashlib.sha256(whole).hexdigest(), cut, new)


def _diff(root: Path, new: tuple[str, ...]) -> bytes | None:
    """Against the commit.  new: files to take in that git does not know, of which a copy of its index is told"""
    if not new:
        return _git(root, "diff", "HEAD", *FORM, "--", ".")
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        own = root / os.fsdecode(_git(root, "rev-parse", "--git-path", "index") or b"").rstrip("\n")
        if own.is_file():
            shutil.copyfile(own, index)
        apart = {"GIT_INDEX_FILE": str(index)}
        _git(root, "add", "--intent-to-add", "--", *new, environment=apart)
        return _git(root, "diff", "HEAD", *FORM, "--", ".", environment=apart)


def _git(root: Path, *words: str, environment: Mapping[str, str] | None = None) -> bytes | None:
    """What git prints; None where it fails."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words],
            capture_output=True,
            timeout=SECONDS,
            check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", **(environment or {})},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
