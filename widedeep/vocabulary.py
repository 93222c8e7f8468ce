"""The caller's ids and our indices."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from widedeep import ordering


class Vocabulary:
    """The caller's ids and our indices: index 0 is the unknown, id number i of `ids` has index i + 1."""

    def __init__(self, ids: np.ndarray) -> None:
        """ids  (n,) int64, or object array of str; unique"""
        self.ids = ids
        self.numeric = ids.dtype.kind in "iu"
        self._index = pd.Index(ids)

    def __len__(self) -> int:
        """Indices there are, the unknown included."""
        return len(self.ids) + 1

    def index_of(self, ids: Sequence[Hashable] | np.ndarray) -> np.ndarray:
        """(n,) int32 index of each id, 0 where it is unknown.

        An id may come in its own type or as its text: on the wire every id is text.
        """
        if not isinstance(ids, np.ndarray) and len(ids) and isinstance(ids[0], str):
            return self._of_texts(ids)
        values = ids if isinstance(ids, np.ndarray) else np.asarray(list(ids), dtype=object)
        if values.dtype.kind == "i" and self._table is not None:
            return self._looked_up(values, *self._table)
        if values.dtype.kind not in "iu" or not self.numeric:
            own = own_number if self.numeric else str
            values = np.array([own(value) for value in values.tolist()], dtype=object)
        positions = self._index.get_indexer(
            pd.Index(values, dtype=self._index.dtype if not self.numeric else None)
        )
        return np.asarray(positions + 1, dtype=np.int32)

    @cached_property
    def texts(self) -> dict[str, int]:
        """The index of each id's text; made when it is first needed."""
        return {str(value): index for index, value in enumerate(self.ids.tolist(), start=1)}

    def _of_texts(self, ids: Sequence[Hashable]) -> np.ndarray:
        """As `index_of`, for ids most of which are text: several times as fast as by way of an array."""
        found = list(map(self.texts.get, ids))  # type: ignore[arg-type]
        if None in found:
            found = [
                self.find(value) if place is None else place for value, place in zip(ids, found, strict=True)
            ]
        return np.array(found, dtype=np.int32)

    @cached_property
    def _table(self) -> tuple[int, np.ndarray] | None:
        """The smallest id, and the index of each id from there on; None where the ids lie too far apart."""
        if not self.numeric or not len(self.ids):
            return None
        low, high = int(self.ids.min()), int(self.ids.max())
        if high - low > 16 * len(self.ids) + ordering.BLOCK:
            return None
        table = np.zeros(high - low + 1, dtype=np.int32)
        table[self.ids - low] = np.arange(1, len(self.ids) + 1)
        return low, table

    @staticmethod
    def _looked_up(values: np.ndarray, low: int, table: np.ndarray) -> np.ndarray:
        found = np.empty(len(values), dtype=np.int32)
        for start in range(0, len(values), ordering.BLOCK):
            places = values[start : start + ordering.BLOCK].astype(np.int64) - low
            there = (places >= 0) & (places < len(table))
            found[start : start + ordering.BLOCK] = table.take(places, mode="clip") * there
        return found

    def find(self, value: Hashable | None) -> int:
        """The index of one id, 0 if it is unknown."""
        if value is None:
            return 0
        if not self.numeric:
            return self.texts.get(str(value), 0)
        number = own_number(value)
        if number is None:
            return 0
        if self._table is None:
            return self._numbers.get(number, 0)
        low, table = self._table
        return int(table[number - low]) if 0 <= number - low < len(table) else 0

    @cached_property
    def _numbers(self) -> dict[int, int]:
        return {value: index for index, value in enumerate(self.ids.tolist(), start=1)}

    def id_of(self, index: int) -> Any:
        """The id with this index, in the type of the file."""
        return self.ids[index - 1].item() if self.numeric else self.ids[index - 1]

    def ids_of(self, indices: np.ndarray) -> list[Any]:
        """The ids with these indices (n,), all of them above 0."""
        ids: list[Any] = self.ids[indices - 1].tolist()
        return ids


def own_number(value: Any) -> int | None:
    """The whole number that `value` is or spells out; None for everything else ('01' spells nothing)."""
    if isinstance(value, str):
        digits = value.removeprefix("-")
        if not digits.isascii() or not digits.isdecimal() or len(digits) > 18:
            return None
        return int(value) if str(int(value)) == value else None
    if isinstance(value, bool):
        return None
    if isinstance(value, int | np.integer) and -(2**63) <= value < 2**63:
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else None
