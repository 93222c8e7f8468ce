"""Bundles that were downloaded, kept so that a restart needs no registry.

CACHE/<store>/<model>@<alias>/7.pth    the bundle of version 7
CACHE/<store>/<model>@<alias>/7.json   its SHA-256, and when it was last found good
"""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from widedeep.errors import BundleError
from widedeep.files import sha256_of, write_atomically

logger = logging.getLogger(__name__)

KEPT = 3  # versions of an alias


def default_folder() -> Path:
    """$XDG_CACHE_HOME/widedeep/models, else ~/.cache/widedeep/models."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "widedeep" / "models"


@dataclass(frozen=True)
class Kept:
    """A version in the cache.  saved  seconds since 1970"""

    version: str
    path: Path
    digest: str
    saved: float


@dataclass
class CacheCounts:
    """How looking for a version has ended since the start. What is damaged is a miss, too."""

    hits: int = 0
    misses: int = 0
    damaged: int = 0


class ModelCache:
    """The versions that one reference to a model meant, the newest few.

    It never stands in the way of serving: what cannot be written or read is logged and left.
    """

    def __init__(
        self,
        folder: Path,
        store_uri: str,
        name: str,
        alias: str,
        version: str = "",
        counts: CacheCounts | None = None,
    ) -> None:
        """
        alias, version  one of them: what is served is named by it. No alias can be named v3.
        counts          to count in
        """
        self._counts = CacheCounts() if counts is None else counts
        store = hashlib.sha256(store_uri.encode()).hexdigest()[:16]  # the URI may hold a password
        self._name = quote(name, safe="")
        self._folder = folder / store / f"{self._name}@{quote(alias or f'v{version}', safe='')}"

    def get(self, version: str, digest: str) -> Path | None:
        """The bundle of a version, if it is here or with another alias of the model, and has this SHA-256."""
        others = self._folder.parent.glob(f"{glob.escape(self._name)}@*")
        for folder in (self._folder, *sorted(set(others) - {self._folder})):
            kept = self._read(version, folder)
            if kept and kept.digest == digest and self._is_whole(kept):
                self._counts.hits += 1
                return kept.path
        self._counts.misses += 1
        return None

    def last_good(self) -> Kept | None:
        """What was found good last, of what is still whole."""
        return next((kept for kept in self._all() if self._is_whole(kept)), None)

    def keep(self, version: str, digest: str, bundle: Path) -> None:
        """Remember that this version is good, and forget all but the newest few."""
        path = self._folder / f"{version}.pth"
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if path != bundle:
                with bundle.open("rb") as source:
                    write_atomically(path, lambda file: shutil.copyfileobj(source, file, 2**20))
            about = json.dumps({"sha256": digest, "saved": time.time()}).encode()
            write_atomically(path.with_suffix(".json"), lambda file: file.write(about))
            for old in self._all()[KEPT:]:
                old.path.with_suffix(".json").unlink(missing_ok=True)
                old.path.unlink(missing_ok=True)
        except (BundleError, OSError) as error:
            logger.warning("version %s was not cached, so a restart needs the registry: %s", version, error)

    def _all(self) -> list[Kept]:
        """The newest first."""
        found = [self._read(path.stem) for path in self._folder.glob("*.json")]
        return sorted((kept for kept in found if kept), key=lambda kept: kept.saved, reverse=True)

    def _read(self, version: str, folder: Path | None = None) -> Kept | None:
        path = (folder or self._folder) / f"{version}.pth"
        try:
            about = json.loads(path.with_suffix(".json").read_text())
            return Kept(version, path, str(about["sha256"]), float(about["saved"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError) as error:
            logger.warning("%s cannot be read and is left aside: %s", path.with_suffix(".json"), error)
            return None

    def _is_whole(self, kept: Kept) -> bool:
        try:
            whole = sha256_of(kept.path) == kept.digest
        except BundleError as error:
            logger.warning("the cached version %s is left aside: %s", kept.version, error)
            return False
        if not whole:
            self._counts.damaged += 1
            logger.warning("%s is damaged and is left aside: its SHA-256 is another", kept.path)
        return whole
