"""The MovieLens releases: what each is called, how its files are laid out, where it comes from.

Source  GroupLens, https://grouplens.org/datasets/movielens/; Harper and Konstan 2015, doi 10.1145/2827872
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from widedeep.datasets.source import Source, source_of
from widedeep.errors import DataNotFoundError


@dataclass(frozen=True)
class Layout:
    """How a family of releases writes its files; `names` are the ratings' columns if there is no header."""

    ratings: str
    items: str
    users: str  # empty: the releases tell nothing about their users
    delimiter: str
    names: tuple[str, ...]


TAB = Layout("u.data", "u.item", "u.user", "\t", ("user_id", "item_id", "rating", "timestamp"))
COLONS = Layout(  # "1::122::5::838985046" cut at every single colon leaves an empty column between two
    "ratings.dat",
    "movies.dat",
    "users.dat",
    ":",
    ("user_id", "_1", "item_id", "_2", "rating", "_3", "timestamp"),
)
CSV = Layout("ratings.csv", "movies.csv", "", ",", ())


@dataclass(frozen=True)
class Release:
    """One release. The counts are GroupLens's own; items are those listed, rated or not."""

    name: str
    layout: Layout
    ratings: int
    users: int
    items: int
    description: str
    md5: str = ""
    sha256: str = ""
    folder: str = ""  # inside the archive, where it is not the release's name

    @property
    def archive(self) -> str:
        return f"{self.name}.zip"

    @property
    def folders(self) -> tuple[str, ...]:
        return (self.folder, self.name) if self.folder else (self.name,)


DATASETS: dict[str, Release] = {
    release.name: release
    for release in (
        Release(
            "ml-latest-small",
            CSV,
            100_836,
            610,
            9_742,
            "MovieLens latest-small, September 2018, half stars",
            sha256="696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
        ),
        Release(
            "ml-100k",
            TAB,
            100_000,
            943,
            1_682,
            "MovieLens 100K, 1998, whole stars, user attributes",
            md5="0e33842e24a9c977be4e0107933c0723",
        ),
        Release(
            "ml-1m",
            COLONS,
            1_000_209,
            6_040,
            3_883,
            "MovieLens 1M, 2003, whole stars, user attributes",
            md5="c4d9eecfca2ab87c1945afe126590906",
        ),
        Release(
            "ml-10m",
            COLONS,
            10_000_054,
            69_878,
            10_681,
            "MovieLens 10M, 2009, half stars",
            md5="ce571fd55effeba0271552578f2648bd",
            sha256="813c411ccb6122564edfe752e7f80c4dcc5aa25fa94c93622f6877a7ba252862",
            folder="ml-10M100K",
        ),
        Release(
            "ml-20m",
            CSV,
            20_000_263,
            138_493,
            27_278,
            "MovieLens 20M, 2016, half stars",
            md5="cd245b17a1ae2cc31bb14903e1204af3",
        ),
        Release("ml-25m", CSV, 25_000_095, 162_541, 62_423, "MovieLens 25M, 2019, half stars"),
        Release("ml-32m", CSV, 32_000_204, 200_948, 87_585, "MovieLens 32M, 2024, half stars"),
    )
}


@dataclass(frozen=True)
class Files:
    """A release's files where they were found. `path` is the folder or the archive."""

    path: Path
    sources: dict[str, Source]

    def get(self, name: str) -> Source:
        """Raises  DataNotFoundError: there is no such file, or it is empty"""
        if name not in self.sources:
            there = ", ".join(sorted(self.sources)) or "none of the release's files"
            raise DataNotFoundError(f"{self.path} has no {name} (found: {there}).")
        return self.sources[name]


def find(release: Release, place: Path) -> Files | None:
    """The release in the folder or archive `place`, or in its own folder or archive inside that.

    Returns  None where it is not there
    Raises   DataNotFoundError: an archive that is none
    """
    names = [name for name in (release.layout.ratings, release.layout.items, release.layout.users) if name]
    if os.path.isfile(place):
        files = _in_archive(place, names)
        return files if release.layout.ratings in files.sources else None
    for folder in (place, *(place / name for name in release.folders)):
        if os.path.exists(folder / release.layout.ratings):
            there = [name for name in names if os.path.exists(folder / name)]
            return Files(folder, {name: _lazy(folder / name) for name in there})
    archive = place / release.archive
    return _in_archive(archive, names) if os.path.isfile(archive) else None


def require(release: Release, place: Path) -> Files:
    """Like `find`.

    Raises  DataNotFoundError: says what was looked for and what is there
    """
    if not os.path.exists(
        place
    ):  # Path.exists raises where a name is too long, or a folder is not ours to look into
        raise DataNotFoundError(
            f"There is no folder or file {place} that can be read. Name where {release.name} lies with --data-dir PATH."
        )
    files = find(release, place)
    if files is not None:
        return files
    wanted = f"{release.layout.ratings}, a folder {release.folders[0]} with it, or {release.archive}"
    if os.path.isfile(place):
        raise DataNotFoundError(
            f"The archive {place} is not {release.name}: it holds no {release.layout.ratings}."
        )
    try:
        names = sorted(os.listdir(place))
    except OSError as error:
        raise DataNotFoundError(f"{place} cannot be read: {error.strerror}.") from error
    there = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") if names else "nothing"
    raise DataNotFoundError(f"{place} does not hold {release.name}: expected {wanted}; found {there}.")


def _lazy(path: Path) -> Source:
    return Source(str(path), lambda: source_of(path).open(), path)


def _in_archive(path: Path, names: list[str]) -> Files:
    """The members called like one of `names`, in whatever folder; the outermost where there are several."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if not name.startswith("__MACOSX")]
    except (zipfile.BadZipFile, OSError) as error:
        raise DataNotFoundError(
            f"{path} is not a zip archive, or is damaged ({error}). Delete it and fetch it again."
        ) from error
    sources = {}
    for name in names:
        found = [member for member in members if member.rsplit("/", 1)[-1] == name]
        if found:
            sources[name] = _member(path, min(found, key=lambda member: member.count("/")))
    return Files(path, sources)


def _member(path: Path, member: str) -> Source:
    def open_member() -> IO[bytes]:
        # The member's stream keeps the archive's file open after the ZipFile object is gone.
        try:
            return zipfile.ZipFile(path).open(member)
        except RuntimeError as error:  # it wants a password, or is packed in a way that zipfile does not know
            raise DataNotFoundError(f"{path} cannot be unpacked: {error}. Fetch it again.") from error

    return Source(f"{path}/{member}", open_member, path)
