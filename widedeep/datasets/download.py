"""Fetch a release: whole and checked, or not at all."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
import socket
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

from widedeep.datasets.releases import Release
from widedeep.errors import DownloadError

BASE_URL = "https://files.grouplens.org/datasets/movielens/"
CHUNK = 1 << 18

Progress = Callable[[str], None]


def fetch(
    release: Release,
    folder: Path,
    progress: Progress,
    base_url: str = BASE_URL,
    timeout: float = 20.0,
    at_most: float | None = None,
) -> Path:
    """Download the release's archive into `folder` and check it against its checksum.

    timeout  seconds without an answer or a byte before it is given up
    at_most  seconds for the whole of it; None: as long as bytes come
    Returns  the archive's path; it appears there only when it is whole
    Raises   DownloadError: no network, no such file, cut off, another checksum, disk full; says what to do
    """
    url = f"{base_url.rstrip('/')}/{release.archive}"
    target = folder / release.archive
    by_hand = (
        f"\nDownload {url} by hand and name it with --data-dir PATH (the .zip, or a folder that holds it), "
        "or use --dataset synthetic."
    )
    partial: Path | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        algorithm, expected = _checksum(release, url, timeout, by_hand)
        handle, name = tempfile.mkstemp(prefix=f".{release.name}-", suffix=".part", dir=folder)
        partial = Path(name)
        with os.fdopen(handle, "wb") as file:
            found = _stream(url, file.write, hashlib.new(algorithm), release.name, progress, timeout, at_most)
            if found != expected:
                raise DownloadError(
                    f"{url} came with {algorithm} {found}, expected {expected}: damaged on the way, or not "
                    f"it. Nothing was kept. Try again.{by_hand}"
                )
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
        partial = None
    except DownloadError:
        raise
    except urllib.error.HTTPError as error:
        raise DownloadError(f"{error.url or url} answered {error.code} {error.reason}.{by_hand}") from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise DownloadError(f"{url} could not be fetched: {reason}.{by_hand}") from error
    except OSError as error:
        free = shutil.disk_usage(folder).free if folder.exists() else 0
        raise DownloadError(
            f"{release.archive} could not be written to {folder}: {error.strerror or error} "
            f"({free / 1e6:,.0f} MB free). Nothing was kept. Make room, or name another folder with the "
            "environment variable WIDEDEEP_DATA_DIR."
        ) from error
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)
    return target


def _checksum(release: Release, url: str, timeout: float, by_hand: str) -> tuple[str, str]:
    """(algorithm, hex digest): the one known here, else the one that is published beside the archive."""
    if release.sha256:
        return "sha256", release.sha256
    if release.md5:
        return "md5", release.md5
    with _open(f"{url}.md5", timeout) as response:
        text = response.read(4096).decode("ascii", errors="replace")
    found = re.search(r"\b[0-9a-fA-F]{32}\b", text)
    if found is None:
        raise DownloadError(f"{url}.md5 holds no checksum, so nothing was fetched: {text[:80]!r}.{by_hand}")
    return "md5", found.group().lower()


def _stream(
    url: str,
    write: Callable[[bytes], object],
    digest: hashlib._Hash,
    name: str,
    progress: Progress,
    timeout: float,
    at_most: float | None,
) -> str:
    """Hand the body to `write` piece by piece; returns its hex digest."""
    started = told = time.monotonic()
    done = 0
    with _open(url, timeout) as response:
        length = response.length or 0  # None where the server does not say
        while chunk := response.read1(CHUNK):
            write(chunk)
            digest.update(chunk)
            done += len(chunk)
            now = time.monotonic()
            if at_most is not None and now - started > at_most:
                raise TimeoutError(f"{done:,} bytes after {now - started:.0f} s is too slow")
            if now - told > 0.5:
                told = now
                progress(_line(name, done, length, now - started))
    if length and done != length:
        raise ConnectionError(f"cut off after {done:,} of {length:,} bytes")
    progress(_line(name, done, length, time.monotonic() - started))
    return digest.hexdigest()


def _line(name: str, done: int, length: int, seconds: float) -> str:
    rate = done / max(seconds, 1e-3)
    if not length:
        return f"{name}: {done / 1e6:.1f} MB, {rate / 1e6:.1f} MB/s"
    left = (length - done) / max(rate, 1.0)
    return f"{name}: {done / 1e6:.1f} of {length / 1e6:.1f} MB, {rate / 1e6:.1f} MB/s, {left:.0f} s left"


def _open(url: str, timeout: float) -> http.client.HTTPResponse:
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme not in urllib.request.getproxies() or urllib.request.proxy_bypass(host):
        _resolve(host, timeout)
    request = urllib.request.Request(url, headers={"User-Agent": "widedeep"})
    response = urllib.request.urlopen(request, timeout=timeout)
    assert isinstance(response, http.client.HTTPResponse)
    return response


def _resolve(host: str, timeout: float) -> None:
    """Look the name up in at most `timeout` seconds: the system's own lookup knows no limit."""
    failure: list[OSError] = []

    def look_up() -> None:
        try:
            socket.getaddrinfo(host, None)
        except OSError as error:
            failure.append(error)

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(timeout)
    if thread.is_alive():
        raise TimeoutError(f"no answer about the name {host} in {timeout:.0f} s")
    if failure:
        raise ConnectionError(f"the name {host} is not known ({failure[0].strerror or failure[0]})")
