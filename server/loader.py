"""From what was asked for to a model that may be served: found, fetched, checked, warm.

Everything here blocks. It runs in the loader's thread, beside the threads that serve.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

from server.cache import CacheCounts, ModelCache, default_folder
from server.registry import Found, Registry, absolute
from server.served import ServedModel
from server.settings import ServerSettings
from server.traffic import Target
from server.turns import turn
from widedeep import probe
from widedeep.bundle import DIGEST_TAG
from widedeep.errors import BundleError, TrackingError, WideDeepError
from widedeep.files import sha256_of
from widedeep.queries import RankingMethod
from widedeep.recommender import Recommender

logger = logging.getLogger(__name__)

BUNDLE_NAME = "model.pth"
NICENESS = 5  # of the loader's thread, so that requests go first; with more a busy machine would hardly load


class Loader:
    """Loads one target."""

    def __init__(
        self,
        settings: ServerSettings,
        target: Target,
        cache_counts: CacheCounts | None = None,
        lock: str = "",
    ) -> None:
        """
        cache_counts  to count in
        lock          file by which those who load take turns; empty: nobody else does
        """
        self._lock = lock
        self.settings = settings
        self.target = target
        self._registry: Registry | None = None
        self._cache: ModelCache | None = None
        if target.is_registered and settings.cache_models:
            folder = Path(settings.cache_dir).expanduser() if settings.cache_dir else default_folder()
            store = absolute(settings.tracking_uri)
            self._cache = ModelCache(folder, store, target.name, target.alias, target.version, cache_counts)

    def find(self, version: str = "") -> Found:
        """The version that is asked for, or `version` in its place, as it stands in the registry now.

        Raises  RegistryError, TrackingError
        """
        if self._registry is None:
            self._registry = Registry(self.settings.tracking_uri)
        if version:
            return self._registry.find(self.target.name, version=version)
        return self._registry.find(self.target.name, self.target.alias, self.target.version)

    def load(self, found: Found, twin: ServedModel | None = None) -> ServedModel:
        """
        twin    this very version, as it is loaded for another alias: it is not loaded twice
        Raises  TrackingError: its files cannot be had now
                BundleError, DeviceError or anything else: it is not to be served
        """
        with turn(self._lock):
            return self._load(found, twin)

    def _load(self, found: Found, twin: ServedModel | None) -> ServedModel:
        path = self._cache.get(found.version, found.digest) if self._cache and found.digest else None
        if twin is not None:
            if self._cache and path:
                self._cache.keep(found.version, found.digest, path)
            return twin
        if path is not None:
            return self._from_bundle(path, found.version, found.alias, found.digest)
        assert self._registry is not None, "what was found was found in a registry"
        try:
            folder = tempfile.TemporaryDirectory(prefix="widedeep-", ignore_cleanup_errors=True)
        except OSError as error:
            raise TrackingError(f"There is no room for a download: {error}.") from error
        with folder as name:
            path = _bundle_in(self._registry.download(found, Path(name)), found.uri)
            digest = sha256_of(path)
            if not found.digest:
                logger.info("%s was registered without %s: not compared", found.uri, DIGEST_TAG)
            elif digest != found.digest:
                raise BundleError(
                    f"The {BUNDLE_NAME} of {found.uri} has the SHA-256 {digest} and was registered with "
                    f"{found.digest}: it was changed, or cut off on its way. Register it again."
                )
            return self._from_bundle(path, found.version, found.alias, digest)

    def load_cached(self) -> ServedModel | None:
        """The last good version in the cache, if there is one."""
        kept = self._cache.last_good() if self._cache and self.settings.serve_cached_model else None
        if kept is None:
            return None
        model = self._from_bundle(kept.path, kept.version, self.target.alias, kept.digest)
        model.from_cache = True
        return model

    def load_file(self) -> ServedModel:
        """The model at a path.  Raises  BundleError, DeviceError"""
        path = Path(self.settings.model)
        started = time.perf_counter()
        recommender = Recommender.load(path, device=self.settings.device)
        digest = sha256_of(path)
        return self._checked(ServedModel(recommender, path.name, digest[:12], "", digest), started)

    def _from_bundle(self, path: Path, version: str, alias: str, digest: str) -> ServedModel:
        started = time.perf_counter()
        recommender = Recommender.load(path, device=self.settings.device)
        model = self._checked(ServedModel(recommender, self.target.name, version, alias, digest), started)
        if self._cache:
            self._cache.keep(version, digest, path)
        return model

    def _checked(self, model: ServedModel, started: float) -> ServedModel:
        """Raises  BundleError: it cannot answer, or answers otherwise than when it was saved"""
        try:
            difference = probe.check(model.recommender)
            model.ranking = model.recommender.prepare(
                exact_up_to=self.settings.exact_up_to, precision=self.settings.precision
            )
            model.warm_up(_doubled(self.settings.rankings_at_once), _doubled(self.settings.scores_at_once))
        except WideDeepError:
            raise
        except Exception as error:
            raise BundleError(
                f"{model} was loaded but cannot answer ({error!r}), so it is not served. Serve another version."
            ) from error
        compared = "none" if difference is None else f"equal within {difference:.1g}"
        logger.info(
            "model %s on %s: loaded and warm after %.1f s; its stored answers: %s; %s",
            model,
            model.recommender.device,
            time.perf_counter() - started,
            compared,
            _said(model.ranking),
        )
        return model


def _bundle_in(files: Path, uri: str) -> Path:
    """Raises  BundleError: not exactly one;  TrackingError: no file at all"""
    names = sorted(str(path.relative_to(files)) for path in files.rglob("*") if path.is_file())
    if not names:  # what MLflow makes of a folder that is not there, such as one that is not mounted
        raise TrackingError(f"There are no files of {uri} where the registry says. Check its artifact store.")
    found = [name for name in names if Path(name).name == BUNDLE_NAME]
    if len(found) != 1:
        raise BundleError(
            f"{uri} must hold one {BUNDLE_NAME} and holds {len(found)} (found: {', '.join(names)}). "
            "Serve a version that this project has registered."
        )
    return files / found[0]


def _said(method: RankingMethod) -> str:
    kept = (
        ""
        if method.precision == "float32"
        else f", which keeps {method.precision_agreement:.2%} of the top 100"
    )
    how = f"through an index, recall {method.recall:.2%}" if method.approximate else "exactly"
    return f"ranks {how} in {method.precision}{kept}"


def _doubled(largest: int) -> list[int]:
    """1, 2, 4 … and the largest."""
    return [2**power for power in range(largest.bit_length()) if 2**power < largest] + [largest]


def yield_to_others() -> None:
    """Let the threads that serve go before this one, where the system knows priorities of threads."""
    if sys.platform == "linux":  # elsewhere the whole process would be meant
        try:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        except OSError as error:
            logger.info("models are loaded at the priority of requests: %s", error)
