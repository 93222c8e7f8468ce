"""What item tables say in words: the year in a title, and the ways of saying that there is no genre."""

from __future__ import annotations

import numpy as np
import pandas as pd

NO_GENRES = ("(no genres listed)", "unknown")

# The last year in brackets: "Title (1995)", "Series (2006-2009)", "Series (2009– )", "Title (1994) (V)".
_YEAR = r".*\(\s*((?:18|19|20)\d\d)\s*(?:[-–—]\s*(?:\d{4})?\s*)?\)"

COLUMNS = ("item_id", "title", "genres", "year")


def year_of(titles: pd.Series) -> np.ndarray:
    """(items,) int32 year out of each title, 0 where it names none."""
    years = titles.astype(object).str.extract(_YEAR, expand=False)
    return np.asarray(pd.to_numeric(years, errors="coerce").fillna(0).to_numpy(dtype=np.int32))


def years_in(column: pd.Series) -> pd.Series:
    """A column of years as int32, 0 where it holds none from 1 to 9999."""
    years = pd.to_numeric(column, errors="coerce")
    return years.where(years.between(1, 9999), 0).fillna(0).astype(np.int32)


def words(column: pd.Series, between: str = ", ") -> pd.Series:
    """Values as text; a list, which Parquet can hold, with `between` between its own."""

    def word(value: object) -> str:
        if isinstance(value, list | np.ndarray):
            return between.join(str(part) for part in value)
        return "" if pd.api.types.is_scalar(value) and pd.isna(value) else str(value).strip()

    return column.astype(object).map(word).astype("str")


def item_frame(items: pd.DataFrame) -> pd.DataFrame:
    """The columns item_id, title, genres and year, of which all but the first may be missing in `items`."""
    frame = items[["item_id"]].copy()
    for name in ("title", "genres"):
        frame[name] = items[name] if name in items else pd.Series("", index=items.index, dtype="str")
    frame["year"] = items["year"].astype(np.int32) if "year" in items else np.int32(0)
    frame["year"] = frame["year"].astype(np.int32)
    return frame.reset_index(drop=True)
