"""Delimited text into columns, fast, with the line numbers of whatever is wrong in it."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from widedeep.datasets.source import Source
from widedeep.errors import DataNotFoundError, InvalidRowsError
from widedeep.validation import SHOWN, require_distinct, shown

DELIMITERS = (",", "\t", ";", "|")

csv.field_size_limit(2**31 - 1)  # an unclosed quote takes in the rest of a file, and has to be named, too


@dataclass(frozen=True)
class Table:
    """What was read: the frame, how its row r (from 0) is called in messages, and the repairs made."""

    frame: pd.DataFrame
    place: Callable[[int], str]
    notes: list[str]


def read_csv(
    source: Source,
    ids: Sequence[str],
    columns: Sequence[str] | None = None,
    check: Callable[[list[str]], None] = lambda _names: None,
    names: list[str] | None = None,
    delimiter: str | None = None,
    on_bad_rows: str = "error",
) -> Table:
    """Read delimited UTF-8 text.

    ids        columns whose text is kept as it stands, unless all of it is whole numbers written plainly
    columns    those to read, where the file has them; None: all
    check      called with the header's names before anything else is read
    names      the columns where the file has no header; None: the first line names them
    delimiter  None: the one of , tab ; | that gives the header the most of `ids`
    Raises     DataNotFoundError: not text, or no such layout; InvalidRowsError: rows of another width
    """
    header = names is None
    if names is None:
        names, delimiter = _header(source, ids, delimiter)
    check(names)
    wanted = [name for name in names if columns is None or name in columns]
    require_distinct(wanted, source.name)
    layout = _Layout(source, names, delimiter or ",", header)
    table, odd = layout.read(wanted, {name: pa.string() for name in wanted if name in ids})
    notes = []
    if odd:
        some = list(layout.odd_rows())
        what = (
            f"{source.name}: {odd:,} row{'s do' if odd > 1 else ' does'} not have the {len(names)} columns "
        )
        what += "of the first line" if header else f"of its layout, divided by {delimiter!r}"
        if on_bad_rows == "error" or not table.num_rows:
            rows = "\n".join(f"  line {line}: {shown(text)}" for line, text in some[:SHOWN])
            raise InvalidRowsError(f"{what}:\n{rows}\nMend them, or drop them with --on-bad-rows repair.")
        notes.append(f"{what}; dropped (lines {', '.join(str(line) for line, _ in some[:SHOWN])})")
    return Table(to_frame(table, ids), layout.place(table.num_rows), notes)


def to_frame(table: pa.Table, ids: Sequence[str]) -> pd.DataFrame:
    """An Arrow table as a frame: ids as whole numbers where they are; integers stay exact beside holes."""
    frame = {}
    for name in table.column_names:
        column = table[name]
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            column = column.cast(pa.string())
        if name in ids and (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            column = _whole(column)
        if pa.types.is_integer(column.type) and column.null_count:
            frame[name] = pd.Series(
                column.cast(pa.int64()).to_pandas(types_mapper=lambda _type: pd.Int64Dtype())
            )
        else:
            frame[name] = column.to_pandas()
    return pd.DataFrame(frame, columns=list(table.column_names), copy=False)


def _whole(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text as int64 if every value is a number's own spelling: '007' and '1.0' keep theirs."""
    filled = pc.if_else(pc.equal(column, ""), None, column)
    try:
        numbers = filled.cast(pa.int64())
    except pa.ArrowInvalid:
        return column
    same = pc.all(pc.equal(numbers.cast(column.type), filled)).as_py()
    return numbers if same else column


def _header(source: Source, ids: Sequence[str], delimiter: str | None) -> tuple[list[str], str]:
    try:
        with source.open() as stream:
            first = io.BufferedReader(stream, 1 << 16).readline(1 << 20)  # type: ignore[type-var]
    except (OSError, EOFError) as error:
        raise DataNotFoundError(f"{source.name} cannot be read: {error}.") from error
    try:
        line = first.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        raise DataNotFoundError(_not_utf8(source.name, 1)) from None
    if "\0" in line:
        raise DataNotFoundError(f"{source.name} is not a text file: its first line holds zero bytes.")
    line = line.partition("\r")[0]  # where lines end as on old Macs, that is the whole file
    if not line.strip():
        raise DataNotFoundError(
            f"{source.name} has a blank first line. Begin it with the names of the columns."
        )
    options = [delimiter] if delimiter else DELIMITERS
    headers = {option: _split(line, option) for option in options}
    best = max(
        options, key=lambda option: (sum(name in headers[option] for name in ids), len(headers[option]))
    )
    return headers[best], best


def _split(line: str, delimiter: str) -> list[str]:
    return [name.strip() for name in next(csv.reader([line], delimiter=delimiter), [])]


def _not_utf8(name: str, line: int) -> str:
    return (
        f"{name} is not UTF-8 text (line {line}). Save it as UTF-8, e.g. iconv -f latin1 -t utf-8 OLD > NEW; "
        "a compressed file must be named .gz, .bz2 or .zst, and a Parquet file .parquet."
    )


class _Layout:
    """One text file's columns, and the way back from its rows to its lines."""

    def __init__(self, source: Source, names: list[str], delimiter: str, header: bool) -> None:
        self.source, self.names, self.delimiter, self.header = source, names, delimiter, header

    def read(self, wanted: list[str], types: dict[str, pa.DataType]) -> tuple[pa.Table, int]:
        """The columns `wanted`, and how many rows were left out for having another width."""
        try:
            return self._parse(wanted, types)
        except pa.ArrowInvalid as error:
            if "UTF8" in str(error) or "utf" in str(error).lower():
                raise DataNotFoundError(_not_utf8(self.source.name, self._line_not_utf8())) from error
            if "skip initial" in str(error):  # the first line is the last and has no end
                return pa.table({name: pa.array([], pa.string()) for name in wanted}), 0
            if "conversion error" not in str(error):
                raise DataNotFoundError(
                    f"{self.source.name} cannot be read as text columns: {error}."
                ) from error
        except (OSError, EOFError) as error:
            raise DataNotFoundError(f"{self.source.name} cannot be read: {error}.") from error
        # A column turned out to hold what its first rows did not promise: take text, let the checks judge.
        return self._parse(wanted, dict.fromkeys(wanted, pa.string()))

    def _parse(self, wanted: list[str], types: dict[str, pa.DataType]) -> tuple[pa.Table, int]:
        odd = 0

        def skip(_row: object) -> str:
            nonlocal odd
            odd += 1
            return "skip"

        with self.source.open() as stream:
            table = arrow_csv.read_csv(
                stream,
                read_options=arrow_csv.ReadOptions(column_names=self.names, skip_rows=int(self.header)),
                parse_options=arrow_csv.ParseOptions(
                    delimiter=self.delimiter, newlines_in_values=True, invalid_row_handler=skip
                ),
                convert_options=arrow_csv.ConvertOptions(include_columns=wanted, column_types=types),
            )
        if any(pa.types.is_binary(column.type) for column in table.columns):
            raise pa.ArrowInvalid("invalid UTF8 data")
        return table, odd

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """(line it starts on, fields) of every row that is not blank, after the header."""
        with self.source.open() as stream:
            text = io.TextIOWrapper(io.BytesIO(stream.read()), "utf-8-sig", errors="replace", newline="")
            reader = csv.reader(text, delimiter=self.delimiter)
            start = 1
            for number, fields in enumerate(reader):
                if fields and (number or not self.header):
                    yield start, fields
                start = reader.line_num + 1

    def odd_rows(self) -> Iterator[tuple[int, str]]:
        """(line, text) of the rows that do not have the header's width."""
        for line, fields in self._records():
            if len(fields) != len(self.names):
                yield line, self.delimiter.join(fields)

    def place(self, rows: int) -> Callable[[int], str]:
        starts: list[int] = []

        def place(row: int) -> str:
            if not starts:  # only for a message, so read again rather than carry line numbers along
                starts.extend(line for line, fields in self._records() if len(fields) == len(self.names))
            return f"line {starts[row]}" if len(starts) == rows else f"row {row + 1}"

        return place

    def _line_not_utf8(self) -> int:
        with self.source.open() as stream:
            data = stream.read()
        try:
            data.decode()
        except UnicodeDecodeError as error:
            return data.count(b"\n", 0, error.start) + 1
        return 1
