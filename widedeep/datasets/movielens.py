"""Read a MovieLens release, out of its folder or straight out of its archive."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from widedeep.datasets import cache
from widedeep.datasets.releases import COLONS, CSV, TAB, Files, Layout, Release
from widedeep.datasets.source import Source
from widedeep.datasets.text import read_csv
from widedeep.datasets.titles import NO_GENRES, year_of
from widedeep.errors import DataNotFoundError
from widedeep.interactions import Interactions, narrow
from widedeep.validation import shown

Parts = tuple[Interactions, pd.DataFrame, pd.DataFrame, list[str]]

CHUNK = 1 << 20  # rows that pandas parses at once

DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError)

GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama",
    "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip

OCCUPATIONS_1M = (
    "other", "academic/educator", "artist", "clerical/admin", "college/grad student",
    "customer service", "doctor/health care", "executive/managerial", "farmer", "homemaker", "K-12 student",
    "lawyer", "programmer", "retired", "sales/marketing", "scientist", "self-employed", "technician/engineer",
    "tradesman/craftsman", "unemployed", "writer",
)  # fmt: skip


def read(
    release: Release,
    files: Files,
    on_bad_rows: str = "error",
    tell: Callable[[str], None] = lambda _line: None,
) -> Parts:
    """The interactions, the items listed, the users' attributes and the notes on what was repaired or is odd.

    tell    gets a line if the parsed interactions could not be kept, see cache.columns
    Raises  DataNotFoundError: a file is missing, damaged or laid out differently;
            InvalidRowsError, EmptyDataError: see Interactions.from_frame
    """
    layout = release.layout
    ratings = files.get(layout.ratings)
    try:
        settings = {"delimiter": layout.delimiter, "names": list(layout.names), "on_bad_rows": on_bad_rows}
        interactions, notes = cache.columns(
            ratings, settings, lambda: _ratings(ratings, release, on_bad_rows), tell
        )
        items = {TAB: _items_100k, COLONS: _items_colons, CSV: _items_csv}[layout](files.get(layout.items))
        users = pd.DataFrame({"user_id": np.empty(0, dtype=np.int64)})
        if layout.users in files.sources:
            users = {TAB: _users_100k, COLONS: _users_1m}[layout](files.get(layout.users))
    except DAMAGED as error:
        raise DataNotFoundError(f"{files.path} is damaged: {error}. Delete it and fetch it again.") from error
    if len(interactions) != release.ratings:
        notes.append(
            f"{ratings.name} has {len(interactions):,} ratings, {release.name} has {release.ratings:,}"
        )
    return interactions, items, users, notes


def _ratings(source: Source, release: Release, on_bad_rows: str) -> tuple[Interactions, list[str]]:
    """pandas' C engine is the fastest where all is well; what it stumbles over is read again and named."""
    layout = release.layout
    columns = ("user_id", "item_id", "rating", "timestamp")
    names = columns if layout.names else ("userId", "movieId", "rating", "timestamp")
    types = dict(zip(names, (np.int64, np.int64, np.float32, np.int64), strict=True))
    first_line = 1 if layout.names else 2
    try:
        frame = _fast(source, layout, types)
        place = None
        notes: list[str] = []
    except (ValueError, OverflowError):

        def check(found: list[str]) -> None:
            if not set(names) <= set(found):
                raise DataNotFoundError(
                    f"{source.name} is not {release.name}'s: expected the columns {', '.join(names)}; "
                    f"found {', '.join(found)}."
                )

        table = read_csv(
            source, names[:2], names, check, list(layout.names) or None, layout.delimiter, on_bad_rows
        )
        frame, place, notes = table.frame, table.place, table.notes
    interactions, repairs = Interactions.from_frame(
        frame,
        *names,
        source=source.name,
        on_bad_rows=on_bad_rows,
        first_line=first_line,
        place=place,
        whole_ids=True,
    )
    return interactions, notes + repairs


def _fast(source: Source, layout: Layout, types: Mapping[str, type[Any]]) -> pd.DataFrame:
    """The columns `types`, each block of rows narrowed as it comes: 100M rows would not fit with 64 bits a value.

    Raises  ValueError, OverflowError: something is not as it should be
    """
    parts: dict[str, list[np.ndarray]] = {name: [] for name in types}
    with (
        source.open() as stream,
        pd.read_csv(
            stream,
            sep=layout.delimiter,
            header=None if layout.names else 0,
            names=list(layout.names) or None,
            usecols=list(types),
            dtype=types,
            na_filter=False,
            chunksize=CHUNK,
        ) as reader,
    ):
        for chunk in reader:
            for name, columns in parts.items():
                columns.append(narrow(chunk[name].to_numpy()))
    return pd.DataFrame({name: np.concatenate(parts.pop(name)) for name in types}, copy=False)


def _lines(source: Source, separator: str, fields: int) -> Iterator[list[str]]:
    """The fields of each line; where there are more than `fields`, the second, a title, takes the rest."""
    with source.open() as stream:
        data = stream.read()
    try:
        text = data.decode("utf-8-sig")  # ml-10m is; the older two are latin-1
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    for number, line in enumerate(text.split("\n"), start=1):
        parts = line.rstrip("\r").split(separator)
        if len(parts) >= fields and parts[0].isdecimal() and len(parts[0]) < 19:  # fits into 64 bits
            over = len(parts) - fields
            yield [parts[0], separator.join(parts[1 : 2 + over]), *parts[2 + over :]]
        elif line.strip():
            raise DataNotFoundError(
                f"{source.name}, line {number}: expected {fields} fields divided by {separator!r}, the first a whole "
                f"number; found {shown(line)}."
            )


def _items_100k(source: Source) -> pd.DataFrame:
    rows = list(_lines(source, "|", 5 + len(GENRES_100K)))
    genres = [
        "|".join(
            name for name, flag in zip(GENRES_100K, row[5:], strict=True) if flag == "1" and name != "unknown"
        )
        for row in rows
    ]
    return _items([row[0] for row in rows], [row[1] for row in rows], genres)


def _items_colons(source: Source) -> pd.DataFrame:
    rows = list(_lines(source, "::", 3))
    return _items([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])


def _items_csv(source: Source) -> pd.DataFrame:
    columns = ["movieId", "title", "genres"]

    def check(found: list[str]) -> None:
        if not set(columns) <= set(found):
            raise DataNotFoundError(
                f"{source.name}: expected the columns {', '.join(columns)}; found {', '.join(found)}."
            )

    frame = read_csv(source, columns, columns, check, delimiter=",").frame
    if frame["movieId"].dtype != np.int64:
        raise DataNotFoundError(f"{source.name}: the column movieId holds something else than whole numbers.")
    return _items(frame["movieId"], frame["title"].astype("str"), frame["genres"].astype("str"))


def _items(
    item_id: list[str] | pd.Series, title: list[str] | pd.Series, genres: list[str] | pd.Series
) -> pd.DataFrame:
    items = pd.DataFrame({"item_id": np.asarray(item_id, dtype=np.int64)})
    items["title"] = pd.Series(title, dtype="str")
    items["genres"] = pd.Series(genres, dtype="str")
    items["genres"] = items["genres"].where(~items["genres"].isin(NO_GENRES), "")
    items["year"] = year_of(items["title"])
    return items.drop_duplicates("item_id", keep="last", ignore_index=True)


def _users_100k(source: Source) -> pd.DataFrame:
    return _users(list(_lines(source, "|", 5)), ["user_id", "age", "gender", "occupation", "zip_code"])


def _users_1m(source: Source) -> pd.DataFrame:
    users = _users(list(_lines(source, "::", 5)), ["user_id", "gender", "age", "occupation", "zip_code"])
    names = dict(enumerate(OCCUPATIONS_1M))
    users["occupation"] = users["occupation"].map(
        lambda code: names.get(int(code), code) if code.isdecimal() else code
    )
    users["occupation"] = users["occupation"].astype("str")
    return users


def _users(rows: list[list[str]], columns: list[str]) -> pd.DataFrame:
    users = pd.DataFrame(rows, columns=columns, dtype="str")
    users["user_id"] = users["user_id"].astype(np.int64)
    users["age"] = pd.to_numeric(users["age"], errors="coerce").astype(np.float64)
    return users
