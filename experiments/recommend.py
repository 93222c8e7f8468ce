"""Recommendations for many users into a file, a batch of users at a time.

    python -m experiments recommend --model models:/widedeep@champion --k 100 --out recs.parquet
    python -m experiments recommend --model model.pth --users users.txt --out recs.csv
    mlflow run . -e recommend -P out=recs.parquet

Columns user_id, item_id, rank (from 1), score. Ids have the type that they had in the training file. Users that
the model does not know get the popular items, and are counted in the output.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from experiments import registry
from experiments.jobs import BatchConfig
from experiments.progress import Console
from widedeep.errors import ConfigError, DataNotFoundError
from widedeep.queries import Query
from widedeep.recommender import Recommender

USER_COLUMN = "user_id"


class Writer(Protocol):
    def write_table(self, table: pa.Table) -> None: ...


def job(batch: BatchConfig, console: Console) -> None:
    """The entry point `recommend`."""
    out = Path(os.path.expanduser(batch.out))
    if not os.path.isdir(out.parent):
        raise ConfigError(f"out: there is no folder {out.parent}.")
    wanted = read_users(Path(os.path.expanduser(batch.users))) if batch.users else None
    model = registry.load(batch.model, device=batch.device)
    ids = model.processor.users
    users = ids.ids.tolist() if wanted is None else as_ids(wanted, numeric=ids.numeric)
    schema = _schema(model, users)
    console.say(
        f"recommend: {batch.k} items for each of {len(users):,} users, by {batch.model} on {model.device}"
    )
    rows = unknown = 0
    with console.counting("recommend", "users") as counter, _opened(out, schema) as writer:
        for start in range(0, len(users), batch.user_batch):
            part = users[start : start + batch.user_batch]
            table = recommend_table(model, part, batch.k, schema, exclude_seen=batch.exclude_seen)
            writer.write_table(table)
            rows += table.num_rows
            unknown += int((ids.index_of(part) == 0).sum())
            counter(start + len(part), len(users))
    print(f"{out}: {rows:,} rows for {len(users):,} users")
    if unknown:
        print(f"{unknown:,} users are not in the training data; theirs are the popular items.")


def recommend_table(
    model: Recommender, users: Sequence[Any], k: int, schema: pa.Schema, *, exclude_seen: bool
) -> pa.Table:
    """The rows of some users, best item first."""
    answers = model.rank([Query(user_id=user, k=k, exclude_seen=exclude_seen) for user in users])
    counts = [len(answer.item_ids) for answer in answers]
    columns = {
        "user_id": [user for user, count in zip(users, counts, strict=True) for _ in range(count)],
        "item_id": [item for answer in answers for item in answer.item_ids],
        "rank": [place for count in counts for place in range(1, count + 1)],
        "score": [score for answer in answers for score in answer.scores],
    }
    return pa.Table.from_pydict(columns, schema=schema)


def as_ids(users: Sequence[Any], *, numeric: bool) -> list[Any]:
    """Ids from a file as numbers, if the model's ids are and all of these can be."""
    if numeric:
        with contextlib.suppress(ValueError):
            return [int(user) for user in users]
    return [str(user) for user in users]


def _schema(model: Recommender, users: Sequence[Any]) -> pa.Schema:
    def kind(numeric: bool) -> pa.DataType:
        return pa.int64() if numeric else pa.string()

    return pa.schema(
        [
            ("user_id", kind(isinstance(users[0], int))),
            ("item_id", kind(model.processor.items.numeric)),
            ("rank", pa.int32()),
            ("score", pa.float32()),
        ]
    )


def read_users(path: Path) -> list[Any]:
    """User ids, each once: of a text file's lines, or of the column user_id of a CSV or Parquet file.

    Raises  DataNotFoundError: no such file, no such column, or no users in it
    """
    if not os.path.isfile(path):
        raise DataNotFoundError(f"There is no file of users {path}.")
    try:
        if path.suffix == ".parquet":
            column = _user_column(pd.read_parquet(path), path)
        elif path.suffix == ".csv":
            column = _user_column(pd.read_csv(path, dtype=str), path)
        else:
            lines = path.read_text(encoding="utf-8").splitlines()
            column = pd.Series([line.strip() for line in lines if line.strip()], dtype=object)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataNotFoundError(f"{path} could not be read as a file of users: {error}") from error
    users = list(dict.fromkeys(column.dropna().tolist()))
    if not users:
        raise DataNotFoundError(f"{path} has no users in it.")
    return users


def _user_column(frame: pd.DataFrame, path: Path) -> pd.Series:
    if USER_COLUMN not in frame.columns:
        raise DataNotFoundError(
            f"{path} has no column {USER_COLUMN!r} (found: {', '.join(map(str, frame.columns))}). Rename the column "
            "of the users, or give a text file with one id per line."
        )
    return frame[USER_COLUMN]


@contextlib.contextmanager
def _opened(out: Path, schema: pa.Schema) -> Iterator[Writer]:
    """A writer to a file that takes its name only when it is whole."""
    half = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        maker = pa.csv.CSVWriter if out.suffix == ".csv" else pa.parquet.ParquetWriter
        with maker(str(half), schema) as writer:
            yield writer
        os.replace(half, out)
    except OSError as error:
        raise ConfigError(f"Could not write {out}: {error}") from error
    finally:
        half.unlink(missing_ok=True)
