"""Load a data set: a MovieLens release, the user's own files, or made-up data with a known truth.

from widedeep import datasets
from widedeep.config import DataConfig
data = datasets.load(DataConfig(dataset="ml-1m", data_dir="~/data"))
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from widedeep.config import DataConfig
from widedeep.datasets import download, synthetic
from widedeep.datasets.cache import cache_dir
from widedeep.datasets.releases import DATASETS, Files, Release, find, require
from widedeep.datasets.synthetic import Truth
from widedeep.datasets.titles import item_frame
from widedeep.errors import ConfigError, DownloadError, EmptyDataError
from widedeep.interactions import Interactions

__all__ = ["DATASETS", "Dataset", "Truth", "cache_dir", "load"]

AUTO = "ml-latest-small"
AUTO_TIMEOUT = 4.0  # seconds without an answer before the made-up data is taken
AUTO_AT_MOST = 30.0  # seconds for the whole download, of 1 MB


@dataclass(frozen=True)
class Dataset:
    """What was loaded.

    name          what it is, never "auto"
    interactions  every row, in the order of the file
    items         columns item_id (of the type in interactions), title (str, "" unknown), genres (str, "A|B"),
                  year (int32, 0 unknown); items need not occur in interactions, nor the other way round
    users         column user_id, and attributes: text is categorical, numbers are numeric, NaN where missing
    source        where it came from, for people
    digest        of the interactions, SHA-256
    notes         repairs made and everything else that a person must be told
    truth         synthetic: what the data was made from, hence the best that can be reached
    """

    name: str
    interactions: Interactions
    items: pd.DataFrame
    users: pd.DataFrame
    source: str
    digest: str
    notes: tuple[str, ...] = ()
    truth: Truth | None = None


def load(
    config: DataConfig,
    progress: Callable[[str], None] = lambda _line: None,
    base_url: str = download.BASE_URL,
) -> Dataset:
    """Load config.dataset; auto is MovieLens latest-small if at hand or fetched at once, else synthetic.

    progress  gets a line now and then while something is fetched, and if parsed columns could not be kept
    base_url  where the archives of the releases are fetched from
    Raises    ConfigError: no such data set; DataNotFoundError, InvalidRowsError, DownloadError: it cannot be
              read or fetched; EmptyDataError: fewer than two users or two items
    """
    if config.dataset == "auto":
        return _auto(config, progress, base_url)
    if config.dataset == "synthetic":
        return _synthetic(config, ())
    if config.dataset == "files":
        from widedeep.datasets import files  # not before: it needs pyarrow

        interactions, items, users, notes = files.read(config, progress)
        return _checked("files", interactions, items, users, config.ratings, notes)
    if config.dataset not in DATASETS:
        known = ", ".join(("auto", *DATASETS, "files", "synthetic"))
        raise ConfigError(f"There is no data set {config.dataset!r}. There is: {known}.")
    release = DATASETS[config.dataset]
    there = _at_hand(release, config) or _fetched(release, progress, base_url)
    return _release(release, config, there, progress)


def _auto(config: DataConfig, progress: Callable[[str], None], base_url: str) -> Dataset:
    release = DATASETS[AUTO]
    there = _at_hand(release, config)
    if there is None:
        try:
            there = _fetched(release, progress, base_url, AUTO_TIMEOUT, AUTO_AT_MOST)
        except DownloadError as error:
            reason = str(error).split("\n", maxsplit=1)[0]
            note = (
                f"This is made-up data: {AUTO} is not in {cache_dir()} and could not be fetched ({reason}) "
                f"For real data name it with --dataset {AUTO} --data-dir PATH."
            )
            return _synthetic(config, (note,))
    return _release(release, config, there, progress)


def _at_hand(release: Release, config: DataConfig) -> Files | None:
    """The release in config.data_dir, where it must be if that is given, else in the cache."""
    if config.data_dir:
        return require(release, Path(os.path.expanduser(config.data_dir)))
    return find(release, cache_dir()) if cache_dir().is_dir() else None


def _fetched(
    release: Release,
    progress: Callable[[str], None],
    base_url: str,
    timeout: float = 20.0,
    at_most: float | None = None,
) -> Files:
    return require(release, download.fetch(release, cache_dir(), progress, base_url, timeout, at_most))


def _release(release: Release, config: DataConfig, there: Files, progress: Callable[[str], None]) -> Dataset:
    from widedeep.datasets import movielens  # not before: it needs pyarrow

    interactions, items, users, notes = movielens.read(release, there, config.on_bad_rows, progress)
    return _checked(release.name, interactions, items, users, str(there.path), notes)


def _synthetic(config: DataConfig, notes: tuple[str, ...]) -> Dataset:
    interactions, items, users, truth = synthetic.generate(
        config.users, config.items, config.interactions, config.data_seed
    )
    source = f"made up: {config.users:,} users, {config.items:,} items, seed {config.data_seed}"
    return _checked("synthetic", interactions, items, users, source, notes, truth)


def _checked(
    name: str,
    interactions: Interactions,
    items: pd.DataFrame,
    users: pd.DataFrame,
    source: str,
    notes: list[str] | tuple[str, ...],
    truth: Truth | None = None,
) -> Dataset:
    for what, ids in (("users", interactions.user_id), ("items", interactions.item_id)):
        if not len(ids) or (ids == ids[0]).all():
            raise EmptyDataError(
                f"Loading {source} left {min(len(ids), 1)} {what}, two at least are needed. Is it the right column?"
            )
    return Dataset(
        name, interactions, item_frame(items), users, source, interactions.digest(), tuple(notes), truth
    )
