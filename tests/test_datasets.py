"""load(): which data set it is, where it is looked for, and what it says about it."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from pathlib import Path

import pytest
import releases
from archive_server import running

from widedeep import datasets
from widedeep.config import DataConfig
from widedeep.datasets import DATASETS
from widedeep.errors import ConfigError, DataNotFoundError, DownloadError

NOBODY = "http://127.0.0.1:1/"  # no service listens on port 1


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WIDEDEEP_DATA_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "cache"


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(
        ConfigError, match=r"no data set 'movielens'. There is: auto, ml-latest-small, .*synthetic"
    ):
        datasets.load(DataConfig(dataset="movielens"))


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert datasets.cache_dir() == tmp_path / "cache"
    monkeypatch.delenv("WIDEDEEP_DATA_DIR")
    assert datasets.cache_dir() == tmp_path / "xdg" / "widedeep"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert datasets.cache_dir() == tmp_path / ".cache" / "widedeep"


@pytest.mark.parametrize("write", [releases.write_folder, releases.write_zip])
def test_auto_takes_what_the_cache_has(cache: Path, write: object) -> None:
    assert callable(write)
    write("ml-latest-small", cache)
    data = datasets.load(DataConfig(), base_url=NOBODY)
    assert data.name == "ml-latest-small"
    assert data.truth is None
    assert str(cache) in data.source


def test_auto_takes_what_data_dir_has_and_never_makes_up_data_beside_it(tmp_path: Path) -> None:
    place = releases.write_folder("ml-latest-small", tmp_path / "mine")
    assert datasets.load(DataConfig(data_dir=str(place)), base_url=NOBODY).name == "ml-latest-small"
    with pytest.raises(DataNotFoundError, match=r"expected ratings\.csv, a folder ml-latest-small"):
        datasets.load(DataConfig(data_dir=str(releases.write_folder("ml-1m", tmp_path))), base_url=NOBODY)


def test_auto_fetches_where_it_can(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = releases.write_zip("ml-latest-small", tmp_path / "made").read_bytes()
    known = dataclasses.replace(DATASETS["ml-latest-small"], sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(DATASETS, "ml-latest-small", known)
    with running() as server:
        server.files["ml-latest-small.zip"] = content
        assert datasets.load(DataConfig(), base_url=server.url).name == "ml-latest-small"
    assert (cache / "ml-latest-small.zip").is_file()


def test_auto_makes_up_data_soon_and_says_so_where_it_cannot(cache: Path) -> None:
    started = time.monotonic()
    data = datasets.load(DataConfig(users=50, items=40, interactions=500), base_url=NOBODY)
    assert time.monotonic() - started < 3
    assert data.name == "synthetic"
    assert data.truth is not None
    (note,) = data.notes
    assert note.startswith("This is made-up data: ml-latest-small is not in")
    assert "refused" in note
    assert "--data-dir PATH" in note
    assert "\n" not in note
    assert not list(cache.glob("*"))


def test_a_release_by_name_is_never_replaced_by_made_up_data() -> None:
    with pytest.raises(DownloadError, match="by hand"):
        datasets.load(DataConfig(dataset="ml-1m"), base_url=NOBODY)


def test_synthetic_by_name_needs_no_note() -> None:
    data = datasets.load(DataConfig(dataset="synthetic", users=50, items=40, interactions=500, data_seed=7))
    assert data.name == "synthetic"
    assert data.notes == ()
    assert data.source == "made up: 50 users, 40 items, seed 7"
    assert data.digest == data.interactions.digest()
