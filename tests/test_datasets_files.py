"""dataset=files: CSV and Parquet of the user's own, good, odd and damaged."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from widedeep import datasets
from widedeep.config import DataConfig
from widedeep.datasets import Dataset
from widedeep.errors import ConfigError, DataNotFoundError, EmptyDataError, InvalidRowsError

GOOD = "user_id,item_id,rating,timestamp\n1,10,4,100\n1,20,3.5,200\n2,10,5,300\n"


def load(path: Path, **options: str) -> Dataset:
    return datasets.load(DataConfig(dataset="files", ratings=str(path), **options))  # type: ignore[arg-type]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("\n", "\r"),
        GOOD.rstrip("\n"),
        "\ufeff" + GOOD,
        GOOD.replace(",", ";"),
        GOOD.replace(",", "\t"),
        GOOD.replace(",", "|"),
        GOOD.replace("user_id,item_id", "user_id, item_id"),
        GOOD.replace("\n1,20", "\n\n1,20"),
        GOOD.replace("1,10,4,", '"1","10","4",'),
        "timestamp,extra,user_id,rating,item_id\n100,a,1,4,10\n200,b,1,3.5,20\n300,c,2,5,10\n",
        'user_id,review,item_id,rating,timestamp\n1,"two\nlines, yes",10,4,100\n1,,20,3.5,200\n2,x,10,5,300\n',
    ],
)
def test_text_in_every_usual_dress(content: str, tmp_path: Path) -> None:
    data = load(write(tmp_path / "r.csv", content))
    assert data.name == "files"
    assert data.interactions.user_id.tolist() == [1, 1, 2]
    assert data.interactions.item_id.tolist() == [10, 20, 10]
    assert data.interactions.rating is not None
    assert data.interactions.rating.tolist() == [4.0, 3.5, 5.0]
    assert data.interactions.timestamp is not None
    assert data.interactions.timestamp.tolist() == [100, 200, 300]
    assert data.notes == ()
    assert list(data.items.columns) == ["item_id", "title", "genres", "year"]
    assert len(data.items) == len(data.users) == 0


def test_a_compressed_file(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv.gz", gzip.compress(GOOD.encode()))
    assert len(load(path).interactions) == 3
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(DataNotFoundError, match="cannot be read"):
        load(path)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["7", "8", "9"], [7, 8, 9]),
        (["007", "8", "9"], ["007", "8", "9"]),
        (["-7", "0", "9"], [-7, 0, 9]),
        (["+7", "8", "9"], ["+7", "8", "9"]),
        (["1.0", "2.0", "3.0"], ["1.0", "2.0", "3.0"]),
        (["NA", "null", "nan"], ["NA", "null", "nan"]),
        (["12345678901234567890", "2", "3"], ["12345678901234567890", "2", "3"]),
        (["1001-a", "b", "ü"], ["1001-a", "b", "ü"]),
        (["2020-01-01", "2020-01-02", "2020-01-03"], ["2020-01-01", "2020-01-02", "2020-01-03"]),
        (["true", "false", "maybe"], ["true", "false", "maybe"]),
    ],
)
def test_ids_stay_what_they_are_in_the_file(ids: list[str], expected: list[object], tmp_path: Path) -> None:
    rows = "".join(f"{value},{n % 2}\n" for n, value in enumerate(ids))
    data = load(write(tmp_path / "r.csv", "user_id,item_id\n" + rows))
    assert data.interactions.user_id.tolist() == expected
    assert data.interactions.rating is None
    assert data.interactions.timestamp is None


def test_column_flags(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", "who,what,stars,when\na,x,4,2020-01-01\nb,y,5,2020-01-02T00:00:01Z\n")
    data = load(path, user_col="who", item_col="what", rating_col="stars", timestamp_col="when")
    assert data.interactions.user_id.tolist() == ["a", "b"]
    assert data.interactions.timestamp is not None
    assert data.interactions.timestamp.tolist() == [1_577_836_800, 1_577_923_201]
    with pytest.raises(
        DataNotFoundError, match=r"has no column 'user_id' and 'item_id' \(found: who, what, stars, when\)"
    ):
        load(path)
    with pytest.raises(
        DataNotFoundError, match=r"has no column 'points'.*\nName yours with --rating-col stars"
    ):
        load(path, user_col="who", item_col="what", rating_col="points")


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (b"", DataNotFoundError, r"r\.csv is empty"),
        ("user_id,item_id,rating\n", EmptyDataError, "has its columns but no rows"),
        ("user_id,item_id,rating", EmptyDataError, "has its columns but no rows"),
        ("\n" + GOOD, DataNotFoundError, "has a blank first line"),
        ("user_id,item_id,rating,rating\n1,2,3,4\n", DataNotFoundError, "has 2 columns named 'rating'"),
        (GOOD + '"2,20,4,400\n' + "9" * 200_000, InvalidRowsError, r"line 5: '2,20,4,400\\n9{1,120}\.\.\.\n"),
        (
            GOOD + "2,20," + "x" * 200_000 + ",400\n",
            InvalidRowsError,
            r"line 5: rating 'x{1,120}\.\.\. is not",
        ),
        ("x" * 200_000 + "," + GOOD, InvalidRowsError, "line 2: '1,10,4,100'"),
        ("user_id:item_id\n1:2\n", DataNotFoundError, r"found: user_id:item_id"),
        (
            "user_id,item_id\nZoë,1\n".encode("latin-1"),
            DataNotFoundError,
            r"not UTF-8 text \(line 2\).*iconv",
        ),
        ("üser,item_id\nZoë,1\n".encode("latin-1"), DataNotFoundError, r"not UTF-8 text \(line 1\)"),
        (GOOD.encode("utf-16"), DataNotFoundError, r"not UTF-8 text \(line 1\)"),
        (b"PK\x03\x04\0\0\0\0junk\n1,2", DataNotFoundError, "not a text file"),
        (GOOD + "2,20,four,400\n", InvalidRowsError, "line 5: rating 'four' is not a number"),
        (GOOD + "2,20,,400\n", InvalidRowsError, "line 5: rating is missing"),
        (GOOD + "2,20,nan,400\n", InvalidRowsError, "line 5: rating is missing"),
        (GOOD + "2,20,inf,400\n", InvalidRowsError, "line 5: rating inf is not a finite number"),
        (GOOD + "2,20,4,9999-12-31\n", InvalidRowsError, r"line 5: timestamp '9999-12-31' is after 2100\n"),
        (GOOD + "2,,4,400\n", InvalidRowsError, "line 5: item_id is missing"),
        (GOOD + "2,20,4,soon\n", InvalidRowsError, "line 5: timestamp 'soon' is neither"),
        (GOOD + "2,20,4,-5\n", InvalidRowsError, "line 5: timestamp -5 is before 1970"),
        (
            GOOD + "2,20,4,1600000000000\n",
            InvalidRowsError,
            "line 5: timestamp 1600000000000 .* milliseconds",
        ),
        (GOOD + "1,10,2,50\n", InvalidRowsError, "line 5: user 1 and item 10 are also on line 2"),
        (
            'user_id,x,item_id,rating\n1,"two\nlines",10,4\n1,"",20,bad\n',
            InvalidRowsError,
            "line 4: rating 'bad'",
        ),
        (GOOD + "\n\n2,20,four,400\n", InvalidRowsError, "line 7: rating 'four'"),
        (
            GOOD + "2,20,4\n",
            InvalidRowsError,
            r"1 row does not have the 4 columns of the first line:\n  line 5: '2,20,4'",
        ),
        (GOOD + "2,20,4,5,6\n", InvalidRowsError, "line 5: '2,20,4,5,6'"),
        (GOOD + "2,20,4\n3,10,x,5\n", InvalidRowsError, "line 5"),
        (GOOD.replace("2,10", "1,30"), EmptyDataError, "left 1 users, two at least"),
        ("user_id,item_id\n1,5\n2,5\n", EmptyDataError, "left 1 items, two at least"),
    ],
)
def test_bad_files_are_named(
    content: str | bytes, error: type[Exception], words: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words) as caught:
        load(write(tmp_path / "r.csv", content))
    assert "r.csv" in str(caught.value)


def test_a_column_cannot_be_two_things(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", GOOD)
    with pytest.raises(
        ConfigError, match=r"user_col and item_col are both 'user_id': .*r\.csv has: user_id, item"
    ):
        load(path, item_col="user_id")
    with pytest.raises(ConfigError, match="user_col and rating_col are both 'rating'"):
        load(path, user_col="rating")


def test_a_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "r.csv", GOOD)
    write(tmp_path / "items.csv", "item_id,title\n10,Ten\n")
    assert load(Path("~/r.csv"), item_table="~/items.csv").items["title"].tolist() == ["Ten"]
    with pytest.raises(DataNotFoundError, match=r"no file ~nobody-there/r\.csv"):
        load(Path("~nobody-there/r.csv"))


def test_the_first_bad_value_may_come_late(tmp_path: Path) -> None:
    """Beyond the part of the file that the types are guessed from."""
    rows = 200_000
    lines = [f"{n},{n % 7},{n % 5 + 1},{n}" for n in range(rows)]
    lines[rows - 2] = f"{rows - 2},1,bad,7"
    path = write(tmp_path / "r.csv", "user_id,item_id,rating,timestamp\n" + "\n".join(lines) + "\n")
    with pytest.raises(InvalidRowsError, match=f"1 of {rows:,} rows(.|\n)*line {rows}: rating 'bad' is not"):
        load(path)
    data = load(path, on_bad_rows="repair")
    assert len(data.interactions) == rows - 1
    assert data.interactions.user_id.dtype == np.int32


def test_repair_counts_and_keeps_ids_whole(tmp_path: Path) -> None:
    big = 2**60 + 1
    path = write(tmp_path / "r.csv", GOOD + f"{big},20,4,400\n,20,4,500\n2,20\n3,30,x,600\n1,10,1,50\n")
    data = load(path, on_bad_rows="repair")
    assert data.interactions.user_id.tolist() == [1, 1, 2, big]
    assert data.interactions.user_id.dtype == np.int64
    notes = "\n".join(data.notes)
    assert "1 row does not have the 4 columns of the first line; dropped (lines 7)" in notes
    assert "dropped 1 row with no user_id (line 6)" in notes
    assert "dropped 1 row with a rating that is not a number (line 8)" in notes
    assert "dropped 1 row with the user and item of another row (line 9)" in notes


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--ratings PATH"):
        datasets.load(DataConfig(dataset="files"))
    with pytest.raises(DataNotFoundError, match=r"There is no file .*nowhere\.csv"):
        load(tmp_path / "nowhere.csv")
    with pytest.raises(DataNotFoundError, match="is a folder, a file was expected"):
        load(tmp_path)


def parquet(path: Path, **columns: object) -> Path:
    pd.DataFrame(columns).to_parquet(path)
    return path


def test_parquet(tmp_path: Path) -> None:
    path = parquet(
        tmp_path / "r.parquet",
        user_id=pd.Categorical(["a", "b", "a"]),
        item_id=np.array([1, 1, 2], dtype=np.int32),
        rating=np.array([4, 5, 3], dtype=np.int8),
        timestamp=pd.to_datetime(["2020-01-01", "2020-01-02", "2020-01-03"]),
        unused=[1.5, 2.5, 3.5],
    )
    rows = load(path).interactions
    assert rows.user_id.tolist() == ["a", "b", "a"]
    assert rows.item_id.tolist() == [1, 1, 2]
    assert rows.item_id.dtype == np.int32
    assert rows.rating is not None
    assert rows.rating.tolist() == [4.0, 5.0, 3.0]
    assert rows.timestamp is not None
    assert rows.timestamp[0] == 1_577_836_800
    moved = path.rename(tmp_path / "interactions.data")
    assert load(moved).digest == rows.digest(), "told by its content, not by its name"


def test_bad_parquet_is_named(tmp_path: Path) -> None:
    path = parquet(tmp_path / "r.parquet", user_id=[1, 2, 3], item_id=pd.array([1, None, 3], dtype="Int64"))
    with pytest.raises(InvalidRowsError, match="row 2: item_id is missing"):
        load(path)
    assert load(path, on_bad_rows="repair").interactions.item_id.tolist() == [1, 3]
    with pytest.raises(DataNotFoundError, match=r"no column 'movie' \(found: user_id, item_id\)"):
        load(path, item_col="movie")
    whole = path.read_bytes()
    for damaged in (whole[:-20], whole[: len(whole) // 2], b"PAR1" + b"x" * 100 + b"PAR1"):
        path.write_bytes(damaged)
        with pytest.raises(DataNotFoundError, match=r"r\.parquet is not a Parquet file, or is damaged"):
            load(path)


def test_item_and_user_tables(tmp_path: Path) -> None:
    ratings = write(tmp_path / "r.csv", GOOD)
    items = write(
        tmp_path / "items.csv",
        "Title,item_id,genres,colour\nTen (1999),10,A|B,red\nTwenty,20,,blue\nThirty (2001) ,30,(no genres listed),\n",
    )
    users = write(tmp_path / "users.csv", "user_id,age,plan,active\n1,30,free,true\n2,,paid,false\n")
    data = load(ratings, item_table=str(items), user_table=str(users))
    assert data.items.to_dict("list") == {
        "item_id": [10, 20, 30],
        "title": ["Ten (1999)", "Twenty", "Thirty (2001)"],
        "genres": ["A|B", "", ""],
        "year": [1999, 0, 2001],
    }
    assert data.items["year"].dtype == np.int32
    assert data.users["age"].tolist()[0] == 30.0
    assert np.isnan(data.users["age"][1])
    assert data.users["plan"].tolist() == ["free", "paid"]
    assert data.users["active"].tolist() == ["True", "False"]
    assert data.notes == ()


def test_tables_may_be_parquet_with_a_year_of_their_own(tmp_path: Path) -> None:
    path = parquet(
        tmp_path / "i.parquet", item_id=[10, 20], title=["Ten (1999)", None], year=[2005.0, np.nan]
    )
    data = load(write(tmp_path / "r.csv", GOOD), item_table=str(path))
    assert data.items["year"].tolist() == [2005, 0]
    assert data.items["title"].tolist() == ["Ten (1999)", ""]


def test_lists_in_parquet_and_the_index_that_pandas_writes(tmp_path: Path) -> None:
    ratings = write(tmp_path / "r.csv", GOOD)
    items = pd.DataFrame({"item_id": [10, 20], "genres": [["Drama", "War"], []]})
    items.to_parquet(tmp_path / "i.parquet")
    users = pd.DataFrame({"user_id": [1, 2, 3], "tags": [["a", "b"], ["c"], None]})
    users[users["user_id"] < 3].to_parquet(tmp_path / "u.parquet", index=True)
    users.set_axis([5, 6, 7]).to_parquet(tmp_path / "u.parquet")
    data = load(ratings, item_table=str(tmp_path / "i.parquet"), user_table=str(tmp_path / "u.parquet"))
    assert data.items["genres"].tolist() == ["Drama|War", ""]
    assert data.users.columns.tolist() == ["user_id", "tags"]
    assert data.users["tags"].tolist() == ["a, b", "c", ""]


def test_tables_whose_ids_are_text_make_all_ids_text(tmp_path: Path) -> None:
    items = write(tmp_path / "items.csv", "item_id,title\n10,Ten\nspecial,Special\n")
    data = load(write(tmp_path / "r.csv", GOOD), item_table=str(items))
    assert data.interactions.item_id.tolist() == ["10", "20", "10"]
    assert data.items["item_id"].tolist() == ["10", "special"]
    assert any("all item_ids are text" in note for note in data.notes)
    text = write(tmp_path / "t.csv", "user_id,item_id\na,i1\nb,10\n")
    numbers = write(tmp_path / "n.csv", "item_id,title\n10,Ten\n")
    assert load(text, item_table=str(numbers)).items["item_id"].tolist() == ["10"]


def test_bad_tables_are_named(tmp_path: Path) -> None:
    ratings = write(tmp_path / "r.csv", GOOD)
    table = write(tmp_path / "items.csv", "id,title\n10,Ten\n")
    with pytest.raises(DataNotFoundError, match=r"items\.csv has no column 'item_id' \(found: id, title\)"):
        load(ratings, item_table=str(table))
    write(table, "item_id,title\n10,Ten\n,None\n")
    with pytest.raises(InvalidRowsError, match=r"items\.csv: 1 rows without an id:\n  line 3.*\n.*repair"):
        load(ratings, item_table=str(table))
    write(table, "item_id,title\n10,Ten\n20,Twenty,2\n,None\n30,Thirty\n")
    data = load(ratings, item_table=str(table), on_bad_rows="repair")
    assert data.items["title"].tolist() == ["Ten", "Thirty"]
    assert [note.partition("csv: ")[2] for note in data.notes] == [
        "1 row does not have the 2 columns of the first line; dropped (lines 3)",
        "dropped 1 row with no item_id (line 4)",
    ]
    write(table, "item_id,title\n")
    data = load(ratings, item_table=str(table))
    assert data.interactions.item_id.dtype == np.int32
    assert data.notes == (f"{table} has its columns but no rows",)
    write(table, "item_id,title,title\n10,Ten,Zehn\n")
    with pytest.raises(DataNotFoundError, match="has 2 columns named 'title'"):
        load(ratings, item_table=str(table))
    write(table, "item_id,title\n10,Ten\n10,Zehn\n99,X\n")
    data = load(ratings, item_table=str(table))
    assert data.items["title"].tolist() == ["Zehn", "X"]
    assert any("item_id comes again later (line 2)" in note for note in data.notes)
    write(table, "item_id,title\n98,X\n99,Y\n")
    assert any("none of the item_ids" in note for note in load(ratings, item_table=str(table)).notes)
