"""dataset=files: the user's own CSV or Parquet files, with the names of their columns.

    python -m experiments train --dataset files --ratings plays.csv --user-col user --item-col track

Text is UTF-8, separated by commas, tabs, semicolons or bars; the first line names the columns.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from widedeep.config import DataConfig
from widedeep.datasets import cache
from widedeep.datasets.source import source_of
from widedeep.datasets.text import Table, read_csv, to_frame
from widedeep.datasets.titles import NO_GENRES, words, year_of, years_in
from widedeep.errors import ConfigError, DataNotFoundError, InvalidRowsError
from widedeep.interactions import Interactions
from widedeep.validation import (
    SHOWN,
    BadRows,
    ids,
    optional_column,
    repair_note,
    require_columns,
    require_distinct,
)

PANDAS_INDEX = re.compile(r"__index_level_\d+__")  # what pandas calls the index that it writes to Parquet

Parts = tuple[Interactions, pd.DataFrame, pd.DataFrame, list[str]]


def read(config: DataConfig, tell: Callable[[str], None] = lambda _line: None) -> Parts:
    """The interactions, the items, the users and the notes on what was repaired.

    tell    gets a line if the parsed interactions could not be kept, see cache.columns
    Raises  ConfigError: no ratings file named; DataNotFoundError, InvalidRowsError, EmptyDataError: see
            Interactions.from_frame
    """
    if not config.ratings:
        raise ConfigError("dataset=files needs the interactions' file: name it with --ratings PATH.")
    names = ("ratings", "user_col", "item_col", "rating_col", "timestamp_col", "on_bad_rows")
    source = source_of(Path(os.path.expanduser(config.ratings)))
    settings = {name: getattr(config, name) for name in names}
    interactions, notes = cache.columns(source, settings, lambda: _interactions(config), tell)
    items, users = (
        pd.DataFrame({"item_id": interactions.item_id[:0]}),
        pd.DataFrame({"user_id": interactions.user_id[:0]}),
    )
    if config.item_table:
        items = _items(_keyed(config, config.item_table, config.item_col, "item_id", notes))
        interactions, items = _same_type(interactions, items, "item_id", config, notes)
    if config.user_table:
        users = _attributes(_keyed(config, config.user_table, config.user_col, "user_id", notes))
        interactions, users = _same_type(interactions, users, "user_id", config, notes)
    return interactions, items, users, notes


def _interactions(config: DataConfig) -> tuple[Interactions, list[str]]:
    columns = [config.user_col, config.item_col]
    columns += ["rating" if config.rating_col == "auto" else config.rating_col]
    columns += ["timestamp" if config.timestamp_col == "auto" else config.timestamp_col]

    def check(found: Sequence[str]) -> None:
        rating = optional_column(found, config.rating_col, "rating")
        timestamp = optional_column(found, config.timestamp_col, "timestamp")
        require_columns(found, config.user_col, config.item_col, rating, timestamp, config.ratings)

    table = read_table(config.ratings, columns[:2], columns, check, config.on_bad_rows)
    interactions, repairs = Interactions.from_frame(
        table.frame,
        config.user_col,
        config.item_col,
        config.rating_col,
        config.timestamp_col,
        source=config.ratings,
        on_bad_rows=config.on_bad_rows,
        place=table.place,
    )
    return interactions, table.notes + repairs


def read_table(
    name: str,
    id_columns: Sequence[str],
    columns: Sequence[str] | None,
    check: Callable[[list[str]], None],
    on_bad_rows: str = "error",
) -> Table:
    """A CSV or Parquet file, told apart by what it starts with. See text.read_csv."""
    path = Path(os.path.expanduser(name))
    source = source_of(path)
    with path.open("rb") as stream:
        start = stream.read(4)
    if start != b"PAR1" and path.suffix.lower() not in (".parquet", ".pq"):
        return read_csv(source, id_columns, columns, check, on_bad_rows=on_bad_rows)
    try:
        file = parquet.ParquetFile(path)
        names = list(file.schema_arrow.names)
        check(names)
        wanted = [name for name in names if columns is None or name in columns]
        wanted = [name for name in wanted if not PANDAS_INDEX.fullmatch(name)]
        require_distinct(wanted, str(path))
        frame = to_frame(file.read(columns=wanted), id_columns)
    except (pa.ArrowException, OSError) as error:
        raise DataNotFoundError(f"{path} is not a Parquet file, or is damaged: {error}") from error
    return Table(frame, lambda row: f"row {row + 1}", [])


def _keyed(config: DataConfig, path: str, column: str, key: str, notes: list[str]) -> pd.DataFrame:
    """The table with its checked ids as the first column `key`; of several with one id the last stays."""

    def check(found: Sequence[str]) -> None:
        user, item = (column, None) if key == "user_id" else (None, column)
        require_columns(found, user, item, None, None, path)

    table = read_table(path, [column], None, check, config.on_bad_rows)
    notes += table.notes
    bad: list[BadRows] = []
    values = ids(table.frame[column], column, bad)
    if bad and config.on_bad_rows == "error":
        rows = [
            f"  {table.place(int(row))}: {problem.say(int(row))}"
            for problem in bad
            for row in problem.rows[:SHOWN]
        ]
        raise InvalidRowsError(
            "\n".join(
                [
                    f"{path}: {sum(len(p.rows) for p in bad):,} rows without an id:",
                    *rows,
                    "Mend them, or drop them with --on-bad-rows repair.",
                ]
            )
        )
    notes += [repair_note(problem, path, table.place) for problem in bad]
    rest = table.frame.drop(columns=[name for name in (column, key) if name in table.frame.columns])
    rest.insert(0, key, pd.Series(values, dtype=values.dtype))
    unusable = np.isin(np.arange(len(rest)), [row for problem in bad for row in problem.rows])
    again = rest[key].duplicated(keep="last").to_numpy() & ~unusable
    if again.any():
        places = ", ".join(table.place(int(row)) for row in np.flatnonzero(again)[:SHOWN])
        notes.append(f"{path}: dropped {int(again.sum()):,} rows whose {column} comes again later ({places})")
    return rest[~again & ~unusable].reset_index(drop=True)


def _items(table: pd.DataFrame) -> pd.DataFrame:
    """item_id, and title, genres and year where the table has them, in whatever case they are written."""
    lower = {str(name).lower(): name for name in reversed(table.columns)}
    items = table[["item_id"]].copy()
    if "title" in lower:
        items["title"] = words(table[lower["title"]])
    if "genres" in lower or "genre" in lower:
        genres = words(table[lower.get("genres", lower.get("genre"))], between="|")
        items["genres"] = genres.where(~genres.isin(NO_GENRES), "")
    if "year" in lower:
        items["year"] = years_in(table[lower["year"]])
    elif "title" in items:
        items["year"] = year_of(items["title"])
    return items


def _attributes(table: pd.DataFrame) -> pd.DataFrame:
    """user_id and the other columns: numbers stay numbers (NaN where missing), the rest becomes text."""
    users = table[["user_id"]].copy()
    for name in table.columns.drop("user_id"):
        column = table[name]
        number = pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype)
        users[str(name)] = column.astype(np.float64) if number else words(column)
    return users


def _same_type(
    interactions: Interactions, table: pd.DataFrame, key: str, config: DataConfig, notes: list[str]
) -> tuple[Interactions, pd.DataFrame]:
    """Both sides' ids of one type: where either holds text, all are text."""
    path = config.item_table if key == "item_id" else config.user_table
    if table.empty:
        notes.append(f"{path} has its columns but no rows")
        return interactions, table.astype({key: getattr(interactions, key).dtype})
    theirs = table[key].to_numpy()
    ours = getattr(interactions, key)
    if theirs.dtype.kind == "i" and ours.dtype == object:
        table = table.assign(
            **{key: pd.Series([str(value) for value in theirs], dtype=object, index=table.index)}
        )
    elif theirs.dtype.kind != "i" and ours.dtype != object:
        text = np.array([str(value) for value in ours], dtype=object)
        columns = {"user_id": interactions.user_id, "item_id": interactions.item_id, key: text}
        interactions = Interactions(**columns, rating=interactions.rating, timestamp=interactions.timestamp)
        notes.append(f"{path} has {key}s that are not whole numbers, so all {key}s are text")
    known = pd.Series(getattr(interactions, key)).isin(table[key])
    if not known.any():
        notes.append(f"{path} has none of the {key}s of {config.ratings}: are these the right columns?")
    return interactions, table
