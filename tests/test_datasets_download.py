"""Downloads against a real server on this machine: whole and checked, or nothing at all."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import releases
from archive_server import ArchiveServer, running

from widedeep import datasets
from widedeep.config import DataConfig
from widedeep.datasets import DATASETS, download
from widedeep.datasets.releases import Release
from widedeep.errors import DownloadError


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server() -> Iterator[ArchiveServer]:
    with running() as archives:
        yield archives


@pytest.fixture
def release(server: ArchiveServer, tmp_path: Path) -> Release:
    """ml-1m, small, with the checksum of what the server has."""
    content = releases.write_zip("ml-1m", tmp_path / "made").read_bytes()
    server.files["ml-1m.zip"] = content
    return dataclasses.replace(DATASETS["ml-1m"], md5=hashlib.md5(content).hexdigest())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def fails(release: Release, folder: Path, server_url: str, words: str, **options: float) -> None:
    """The download raises these words, says what to do, and leaves nothing behind."""
    with pytest.raises(DownloadError, match=words) as caught:
        download.fetch(release, folder, lambda _line: None, server_url, **options)
    assert "--data-dir PATH" in str(caught.value) or "WIDEDEEP_DATA_DIR" in str(caught.value)
    assert not folder.exists() or os.listdir(folder) == []


def test_a_good_archive_arrives_with_progress(server: ArchiveServer, release: Release, folder: Path) -> None:
    told: list[str] = []
    path = download.fetch(release, folder, told.append, server.url)
    assert path == folder / "ml-1m.zip"
    assert path.read_bytes() == server.files["ml-1m.zip"]
    assert os.listdir(folder) == ["ml-1m.zip"]
    assert "ml-1m" in told[-1]
    assert "MB/s" in told[-1]


def test_sha256_counts_before_md5(server: ArchiveServer, release: Release, folder: Path) -> None:
    sha = hashlib.sha256(server.files["ml-1m.zip"]).hexdigest()
    download.fetch(dataclasses.replace(release, md5="0" * 32, sha256=sha), folder, print, server.url)
    assert os.listdir(folder) == ["ml-1m.zip"]


@pytest.mark.parametrize("form", ["{md5}  ml-1m.zip\n", "MD5 (ml-1m.zip) = {md5}\n"])
def test_a_checksum_that_is_not_known_is_fetched(
    server: ArchiveServer, release: Release, folder: Path, form: str
) -> None:
    server.files["ml-1m.zip.md5"] = form.format(md5=release.md5).encode()
    download.fetch(dataclasses.replace(release, md5=""), folder, print, server.url)
    assert server.asked == ["ml-1m.zip.md5", "ml-1m.zip"]
    assert os.listdir(folder) == ["ml-1m.zip"]


def test_no_checksum_at_all_is_no_download(server: ArchiveServer, release: Release, folder: Path) -> None:
    unknown = dataclasses.replace(release, md5="")
    fails(unknown, folder, server.url, r"ml-1m\.zip\.md5 answered 404")
    server.files["ml-1m.zip.md5"] = b"<html>not here</html>"
    fails(unknown, folder, server.url, "holds no checksum")
    assert "ml-1m.zip" not in server.asked


def test_the_releases_without_a_checksum_are_those_whose_own_is_fetched() -> None:
    assert {name for name, release in DATASETS.items() if not (release.md5 or release.sha256)} == {
        "ml-25m",
        "ml-32m",
    }


def test_a_wrong_checksum_is_refused(server: ArchiveServer, release: Release, folder: Path) -> None:
    server.files["ml-1m.zip"] += b"x"
    fails(release, folder, server.url, f"came with md5 .*, expected {release.md5}")


def test_a_cut_body_is_refused(server: ArchiveServer, release: Release, folder: Path) -> None:
    server.behaviour = "cut"
    fails(release, folder, server.url, "cut off after|IncompleteRead")


def test_a_length_that_is_no_number_is_passed_over(
    server: ArchiveServer, release: Release, folder: Path
) -> None:
    server.behaviour = "boundless"
    assert (
        download.fetch(release, folder, lambda _line: None, server.url).read_bytes()
        == server.files["ml-1m.zip"]
    )


def test_what_is_not_there(server: ArchiveServer, release: Release, folder: Path) -> None:
    server.files.clear()
    fails(release, folder, server.url, "answered 404")


def test_nobody_listens(release: Release, folder: Path) -> None:
    with ArchiveServer() as gone:
        url = gone.url
    fails(release, folder, url, "could not be fetched.*refused")


def test_a_server_that_says_nothing(server: ArchiveServer, release: Release, folder: Path) -> None:
    server.behaviour = "silent"
    started = time.monotonic()
    fails(release, folder, server.url, "timed out", timeout=0.3)
    assert time.monotonic() - started < 15


def test_a_server_that_is_too_slow(server: ArchiveServer, release: Release, folder: Path) -> None:
    server.behaviour = "slow"
    fails(release, folder, server.url, "too slow", at_most=0.3)


def test_a_name_that_nobody_knows(release: Release, folder: Path) -> None:
    started = time.monotonic()
    fails(release, folder, "http://nowhere.invalid/", r"nowhere\.invalid", timeout=2.0)
    assert time.monotonic() - started < 5


def test_a_full_disk(server: ArchiveServer, release: Release, folder: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # no file may grow beyond 100 bytes
    try:
        fails(release, folder, server.url, "could not be written to .*MB free.. Nothing was kept. Make room")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_cache_that_cannot_be(server: ArchiveServer, release: Release, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DownloadError, match="could not be written"):
        download.fetch(release, tmp_path / "file" / "cache", print, server.url)


def test_an_interruption_leaves_nothing(server: ArchiveServer, release: Release, folder: Path) -> None:
    def interrupt(_line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download.fetch(release, folder, interrupt, server.url)
    assert os.listdir(folder) == []


def test_a_failure_keeps_the_archive_that_was_there(
    server: ArchiveServer, release: Release, folder: Path
) -> None:
    download.fetch(release, folder, print, server.url)
    whole = (folder / "ml-1m.zip").read_bytes()
    server.files["ml-1m.zip"] = b"something else"
    with pytest.raises(DownloadError):
        download.fetch(release, folder, print, server.url)
    assert (folder / "ml-1m.zip").read_bytes() == whole


def test_load_fetches_into_the_cache_once(
    server: ArchiveServer, release: Release, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WIDEDEEP_DATA_DIR", str(folder))
    monkeypatch.setitem(DATASETS, "ml-1m", release)
    config = DataConfig(dataset="ml-1m")
    first = datasets.load(config, base_url=server.url)
    second = datasets.load(config, base_url=server.url)
    assert server.asked == ["ml-1m.zip"]
    assert first.digest == second.digest
    assert first.source == str(folder / "ml-1m.zip")
