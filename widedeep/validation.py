"""Checks of a table's columns: ids, ratings and times out of it, and words for the rows that fail."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from widedeep.errors import ConfigError, DataNotFoundError

MAX_TIMESTAMP = 4_102_444_800  # 2100-01-01: what lies beyond is milliseconds or a mistake
SHOWN = 5  # bad rows that a message names one by one
WHOLE = re.compile(r"-?\d{1,18}", re.ASCII)  # as text, with room to spare in 64 bits
SHOWN_LENGTH = 120  # characters of a value that a message shows


@dataclass(frozen=True)
class BadRows:
    """Rows with one kind of fault: `what` for the count, `say` for a single row."""

    what: str
    rows: np.ndarray
    say: Callable[[int], str]


_WORDS = {
    "user": ("user", "customer", "member", "client", "visitor", "uid"),
    "item": ("item", "movie", "product", "article", "track", "song", "book", "iid", "sku"),
    "rating": ("rating", "score", "stars"),
    "timestamp": ("time", "date", "_at"),
}


def optional_column(found: Sequence[str], name: str | None, usual: str) -> str | None:
    """The column to read: "auto" is `usual` where the file has it, None, "" and "none" are no column."""
    if name == "auto":
        return usual if usual in found else None
    return None if name in (None, "", "none") else name


def shown(value: object) -> str:
    """A value as messages show it: text in quotes, and its beginning only where it is long."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= SHOWN_LENGTH else f"{text[:SHOWN_LENGTH]}..."


def require_distinct(names: Sequence[str], source: str) -> None:
    """Raises  DataNotFoundError: a column that is to be read is there more than once"""
    again = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if again is not None:
        raise DataNotFoundError(
            f"{source} has {names.count(again)} columns named {again!r} (found: {', '.join(names)}). "
            "Rename all but one of them."
        )


def require_columns(
    found: Sequence[str],
    user: str | None,
    item: str | None,
    rating: str | None,
    timestamp: str | None,
    source: str,
) -> None:
    """Check that a file has the columns that were asked for; None is one that was not.

    Raises  DataNotFoundError: names what is missing, what is there and the flag to set;
            ConfigError: one column is to be two things
    """
    wanted = {"user": user, "item": item, "rating": rating, "timestamp": timestamp}
    asked = [(role, name) for role, name in wanted.items() if name is not None]
    for place, (role, name) in enumerate(asked):
        for other, same in asked[:place]:
            if same == name:
                raise ConfigError(
                    f"{other}_col and {role}_col are both {name!r}: a column cannot be both. {source} has: "
                    f"{', '.join(found)}."
                )
    require_distinct([name for name in found if name in dict(asked).values()], source)
    missing = {role: name for role, name in wanted.items() if name is not None and name not in found}
    if not missing:
        return
    hints = []
    for role in missing:
        guess = next((name for name in found if any(word in name.lower() for word in _WORDS[role])), None)
        hints.append(f"--{role}-col {guess or 'NAME'}")
        if role in ("rating", "timestamp"):
            hints[-1] += f" (or --{role}-col none)"
    names = " and ".join(f"{name!r}" for name in missing.values())
    raise DataNotFoundError(
        f"{source} has no column {names} (found: {', '.join(found)}).\nName yours with {' '.join(hints)}."
    )


def ids(column: pd.Series, name: str, bad: list[BadRows], *, whole_only: bool = False) -> np.ndarray:
    """Ids as integers or str; the rows without one, or with `whole_only` without a whole number, are added to `bad`."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    missing = column.isna().to_numpy()
    kind = pd.api.types.infer_dtype(column, skipna=True) if column.dtype == object else ""
    if pd.api.types.is_bool_dtype(column.dtype):
        values = column.astype(object).map(str).to_numpy(dtype=object)
    elif pd.api.types.is_integer_dtype(column.dtype) or kind == "integer":
        filled = column.fillna(0) if missing.any() else column
        values = filled.to_numpy()
        if values.dtype not in (np.int32, np.int64):
            fits = int(filled.max()) < 2**63 and int(filled.min()) >= -(2**63)
            values = values.astype(np.int64) if fits else np.array([str(v) for v in values], dtype=object)
    elif pd.api.types.is_float_dtype(column.dtype):
        numbers = column.fillna(0.0).to_numpy(dtype=np.float64)
        whole = (np.floor(numbers) == numbers) & (np.abs(numbers) < 2**53)
        if not whole.all():
            _blame(bad, ~whole, f"{name} that is not a whole number", lambda row: f"{name} is {numbers[row]}")
        values = np.where(whole, numbers, 0).astype(np.int64)
    else:
        values = column.to_numpy(dtype=object)
        if kind not in ("", "string") or pd.api.types.is_datetime64_any_dtype(column.dtype):
            values = np.array([str(value) for value in values], dtype=object)
        missing = missing | (values == "")
    _blame(bad, missing, f"no {name}", lambda _row: f"{name} is missing")
    return (
        _whole_numbers(values, missing, name, bad)
        if whole_only and values.dtype == object
        else np.asarray(values)
    )


def _whole_numbers(text: np.ndarray, missing: np.ndarray, name: str, bad: list[BadRows]) -> np.ndarray:
    """Text as int64; the rows where it is none are added to `bad`."""
    number = np.array([bool(WHOLE.fullmatch(str(value))) for value in text])
    _blame(
        bad,
        ~number & ~missing,
        f"{name} that is not a whole number",
        lambda row: f"{name} is {shown(text[row])}",
    )
    return np.array(
        [int(value) if fits else 0 for value, fits in zip(text, number, strict=True)], dtype=np.int64
    )


def ratings(column: pd.Series, bad: list[BadRows]) -> np.ndarray:
    """Ratings as float32; the rows without a finite one are added to `bad`."""
    with np.errstate(over="ignore"):  # too large for a float32: infinite, and so to blame
        if pd.api.types.is_numeric_dtype(column.dtype):
            values = column.to_numpy(dtype=np.float32, na_value=np.nan)
        else:
            values = pd.to_numeric(column.astype(object), errors="coerce").to_numpy(dtype=np.float32)

    def say(row: int) -> str:
        raw = column.iloc[row]
        kind = "finite number" if np.isinf(values[row]) else "number"
        return "rating is missing" if _missing(raw) else f"rating {shown(raw)} is not a {kind}"

    _blame(bad, ~np.isfinite(values), "a rating that is not a number", say)
    return np.asarray(values)


def timestamps(column: pd.Series, bad: list[BadRows]) -> np.ndarray:
    """Seconds since 1970 out of numbers, dates or their text; rows without are added to `bad`."""
    if pd.api.types.is_integer_dtype(column.dtype) and not column.hasnans:
        values = column.to_numpy()
        if values.dtype == np.uint64:
            values = np.minimum(values, 2**62)
        if values.dtype != np.int32:
            values = values.astype(np.int64, copy=False)
        counted = known = np.ones(len(values), dtype=bool)
    elif pd.api.types.is_datetime64_any_dtype(column.dtype):
        values, known = _seconds(column)
        counted = np.zeros(len(values), dtype=bool)
    else:
        numeric = column if pd.api.types.is_numeric_dtype(column.dtype) else column.astype(object)
        numbers = pd.to_numeric(numeric, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        counted = known = np.isfinite(numbers)
        values = np.floor(np.where(known, numbers, 0).clip(-(2.0**62), 2.0**62)).astype(np.int64)
        if not known.all() and numeric.dtype == object:
            dates, dated = _seconds(pd.to_datetime(column, errors="coerce", utc=True, format="ISO8601"))
            values, known = np.where(known, values, dates), known | dated

    def say(row: int) -> str:
        raw = column.iloc[row]
        if _missing(raw):
            return "timestamp is missing"
        if not known[row]:
            return f"timestamp {shown(raw)} is neither seconds nor an ISO 8601 date"
        if values[row] < 0:
            return f"timestamp {shown(raw)} is before 1970"
        hint = ": milliseconds? Divide by 1000" if values[row] < 10**14 else ": divide it to seconds"
        return f"timestamp {shown(raw)} is after 2100{hint if counted[row] and values[row] > 10**11 else ''}"

    absurd = ~known | (values < 0) | (values >= MAX_TIMESTAMP)
    _blame(bad, absurd, "a timestamp that cannot be one (seconds since 1970 or ISO 8601)", say)
    return np.asarray(values)


def _seconds(dates: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    known = dates.notna().to_numpy()
    if getattr(dates.dtype, "tz", None) is not None:
        dates = dates.dt.tz_convert("UTC").dt.tz_localize(None)
    seconds = dates.to_numpy(dtype="datetime64[s]").astype(np.int64)
    return np.where(known, seconds, 0), known


def _missing(value: object) -> bool:
    return bool(pd.api.types.is_scalar(value) and pd.isna(value)) or (isinstance(value, str) and not value)


def _blame(bad: list[BadRows], mask: np.ndarray, what: str, say: Callable[[int], str]) -> None:
    if mask.any():
        bad.append(BadRows(what, np.flatnonzero(mask), say))


def complaint(
    bad: list[BadRows], keep: np.ndarray, source: str, call: Callable[[int], str], on_bad_rows: str
) -> str:
    lines = [f"{source}: {int((~keep).sum()):,} of {len(keep):,} rows cannot be used."]
    for problem in bad:
        lines.append(f"  {len(problem.rows):,} with {problem.what}:")
        lines += [f"    {call(int(row))}: {problem.say(int(row))}" for row in problem.rows[:SHOWN]]
        if len(problem.rows) > SHOWN:
            lines.append(f"    and {len(problem.rows) - SHOWN:,} more")
    if on_bad_rows == "repair":
        lines.append("Dropping them leaves nothing: mend the file, or name other columns.")
    else:
        lines.append("Mend them, or drop them with --on-bad-rows repair (the latest of duplicates is kept).")
    return "\n".join(lines)


def repair_note(problem: BadRows, source: str, call: Callable[[int], str]) -> str:
    some = ", ".join(call(int(row)) for row in problem.rows[:SHOWN])
    more = ", ..." if len(problem.rows) > SHOWN else ""
    plural = "s" if len(problem.rows) > 1 else ""
    return f"{source}: dropped {len(problem.rows):,} row{plural} with {problem.what} ({some}{more})"
