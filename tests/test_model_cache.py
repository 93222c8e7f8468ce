"""Bundles kept on disk: the newest few, whole or left aside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from server import cache
from server.cache import ModelCache
from widedeep.files import sha256_of


def keep(kept: ModelCache, folder: Path, version: str) -> str:
    bundle = folder / "model.pth"
    bundle.write_text(f"bundle {version}")
    digest = sha256_of(bundle)
    kept.keep(version, digest, bundle)
    return digest


def test_the_newest_few_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    monkeypatch.setattr(cache.time, "time", lambda: next(clock))
    kept = ModelCache(tmp_path / "cache", "sqlite:///a", "films", "champion")
    assert kept.last_good() is None
    digests = {version: keep(kept, tmp_path, version) for version in "12345"}
    assert sorted(path.stem for path in (tmp_path / "cache").rglob("*.pth")) == ["3", "4", "5"]
    keep(kept, tmp_path, "3")  # served again, so the newest
    found = kept.last_good()
    assert found is not None
    assert (found.version, found.path.read_text()) == ("3", "bundle 3")
    assert kept.get("1", digests["1"]) is None
    assert kept.get("4", digests["4"]) is not None
    assert kept.get("4", "another") is None


def test_what_is_damaged_is_left_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = ModelCache(tmp_path / "cache", "sqlite:///a", "films", "champion")
    digest = keep(kept, tmp_path, "1")
    keep(kept, tmp_path, "2")
    keep(kept, tmp_path, "3")
    [two] = (tmp_path / "cache").rglob("2.json")
    two.write_text(json.dumps([1]))
    [three] = (tmp_path / "cache").rglob("3.pth")
    three.write_text("cut off")
    found = kept.last_good()
    assert found is not None
    assert (found.version, found.digest) == ("1", digest)
    assert "2.json cannot be read" in caplog.text
    assert "3.pth is damaged" in caplog.text


def test_stores_models_and_aliases_are_kept_apart(tmp_path: Path) -> None:
    places = [("a", "films", "champion", ""), ("b", "films", "champion", ""), ("a", "books", "champion", ""),
              ("a", "films", "next", ""), ("a", "films", "", "7"), ("a", "../films", "x", "")]  # fmt: skip
    for number, place in enumerate(places):
        keep(ModelCache(tmp_path / "cache", *place), tmp_path, str(number))
    for number, place in enumerate(places):
        found = ModelCache(tmp_path / "cache", *place).last_good()
        assert found is not None
        assert found.version == str(number)
    assert len(list((tmp_path / "cache").rglob("*.pth"))) == len(places), "none is beside the folder"
