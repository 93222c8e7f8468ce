"""The model that is being served: found, pulled to the device, warmed up, and leased to each request."""

from __future__ import annotations

import hashlib
import logging
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from server.registry import Registry
from server.status import UnavailableError
from widedeep.errors import BundleError, ConfigError
from widedeep.queries import Query, Ranking, ScoreQuery, Scores
from widedeep.recommender import Recommender

logger = logging.getLogger(__name__)

BUNDLE_NAME = "model.pth"
MODEL_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>[1-9][0-9]*))")


@dataclass(frozen=True)
class Details:
    """What is known of a list of items, in parallel lists.

    reason_titles  titles of what the reasons name, item by item
    """

    titles: list[str]
    genres: list[str]
    years: list[int]
    reason_titles: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ServedModel:
    """A recommender and the version it came from. Its methods compute: call them off the event loop."""

    recommender: Recommender
    name: str
    version: str
    alias: str  # empty for a model that was asked for by version or by path

    def recommend(self, query: Query, with_details: bool) -> tuple[Ranking, Details | None]:
        """Raises  RequestError"""
        ranking = self.recommender.rank([query])[0]
        if not with_details:
            return ranking, None
        because = [reason.item_id for reasons in ranking.reasons for reason in reasons]
        return ranking, self._details(ranking.item_ids, because)

    def score(self, query: ScoreQuery, with_details: bool) -> tuple[Scores, Details | None]:
        """Raises  RequestError"""
        scores = self.recommender.score_batch([query])[0]
        return scores, self._details(query.item_ids) if with_details else None

    def warm_up(self) -> None:
        """Answer one request of each kind, so that no client waits for what happens once."""
        ranking, _ = self.recommend(Query(k=10), with_details=True)
        self.recommend(Query(k=10, include_cold_items=True, explain=1, diversity=0.5), with_details=True)
        self.score(ScoreQuery(user_id=None, item_ids=ranking.item_ids[:1]), with_details=True)

    def _details(self, item_ids: Any, because: Sequence[Any] = ()) -> Details:
        known = self.recommender
        return Details(
            known.item_titles(item_ids),
            known.item_genres(item_ids),
            known.item_years(item_ids),
            known.item_titles(because),
        )


class ModelStore:
    """Holds the served model. Requests lease it, so that another can take its place under them."""

    def __init__(self, model: str, device: str, tracking_uri: str) -> None:
        """
        model   models:/NAME@ALIAS, models:/NAME/VERSION, or the path of a bundle
        Raises  ConfigError: a models:/ URI of another form
        """
        if model.startswith("models:") and not MODEL_URI.fullmatch(model):
            raise ConfigError(
                f"--model {model} is not a model of the registry. "
                "Write models:/widedeep@champion, models:/widedeep/3 or the path of a .pth bundle."
            )
        self._model = model
        self._device = device
        self._tracking_uri = tracking_uri
        self._current: ServedModel | None = None

    def load(self) -> ServedModel:
        """Find, load and warm up the model, then serve it. Takes seconds: call it off the event loop.

        Raises  RegistryError, TrackingError, BundleError, DataNotFoundError, DeviceError
        """
        started = time.perf_counter()
        uri = MODEL_URI.fullmatch(self._model)
        model = self._from_registry(uri) if uri else self._from_file(Path(self._model))
        try:
            model.warm_up()
        except Exception as error:
            raise BundleError(
                f"{self._model} was loaded but cannot answer ({error!r}), so it is not served. Serve another version."
            ) from error
        self._current = model
        logger.info(
            "model %s version %s%s on %s, loaded and warm after %.1f s",
            model.name,
            model.version,
            f" (alias {model.alias})" if model.alias else "",
            model.recommender.describe()["device"],
            time.perf_counter() - started,
        )
        return model

    @contextmanager
    def lease(self) -> Iterator[ServedModel]:
        """The model to answer one request with, from its first look to its last.

        Raises  UnavailableError: it is not loaded yet
        """
        if self._current is None:
            raise UnavailableError("The server is loading its model. Try again in some seconds.")
        yield self._current

    def _from_file(self, path: Path) -> ServedModel:
        recommender = Recommender.load(path, device=self._device)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return ServedModel(recommender, path.name, digest[:12], alias="")

    def _from_registry(self, uri: re.Match[str]) -> ServedModel:
        registry = Registry(self._tracking_uri)
        name, alias = uri["name"], uri["alias"] or ""
        # An alias may move while the files are on their way: the version it means now is what gets loaded.
        version = uri["version"] or registry.version_of(name, alias)
        with tempfile.TemporaryDirectory(prefix="widedeep-") as folder:
            files = registry.download(name, version, Path(folder))
            found = sorted(files.rglob(BUNDLE_NAME))
            if len(found) != 1:
                names = ", ".join(
                    sorted(str(path.relative_to(files)) for path in files.rglob("*") if path.is_file())
                )
                raise BundleError(
                    f"models:/{name}/{version} must hold one {BUNDLE_NAME} and holds {len(found)} (found: "
                    f"{names or 'nothing'}). Serve a version that this project has registered."
                )
            recommender = Recommender.load(found[0], device=self._device)
        return ServedModel(recommender, name, version, alias)
