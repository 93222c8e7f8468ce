"""Every MovieLens release in its own layout, out of a folder and out of its archive."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import releases

from widedeep import datasets
from widedeep.config import DataConfig
from widedeep.datasets import DATASETS, Dataset
from widedeep.datasets.titles import year_of
from widedeep.errors import DataNotFoundError, InvalidRowsError


def load(name: str, place: Path, **options: str) -> Dataset:
    return datasets.load(DataConfig(dataset=name, data_dir=str(place), **options))  # type: ignore[arg-type]


def test_the_small_releases_cover_every_one() -> None:
    assert set(releases.MADE) == set(DATASETS)


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("form", ["folder", "folder above", "archive", "folder with archive"])
def test_a_release_is_read_wherever_it_lies(name: str, form: str, tmp_path: Path) -> None:
    place = tmp_path / "data"
    if form.startswith("folder") and form != "folder with archive":
        inner = releases.write_folder(name, place)
        data = load(name, inner if form == "folder" else place)
    else:
        path = releases.write_zip(name, place)
        data = load(name, path if form == "archive" else place)
        assert os.listdir(place) == [path.name], "the archive must not be unpacked beside itself"
    rows = data.interactions
    assert data.name == name
    assert str(place) in data.source
    assert rows.user_id.tolist() == [1, 1, 2, 2]
    assert rows.item_id.tolist() == [10, 20, 10, 30]
    assert rows.user_id.dtype == rows.item_id.dtype == rows.timestamp.dtype == np.int32
    assert rows.rating is not None
    assert rows.rating.tolist() == ([5.0, 2.5, 3.5, 0.5] if name == "ml-10m" else [5.0, 3.0, 4.0, 1.0])
    assert rows.timestamp is not None
    assert rows.timestamp.tolist() == [881250949, 881250950, 881250951, 881250952]
    assert data.digest == rows.digest()
    assert list(data.items.columns) == ["item_id", "title", "genres", "year"]
    assert data.items["year"].dtype == np.int32
    titles = data.items.set_index("item_id")["title"]
    assert titles[10] == "Toy Story (1995)"
    assert titles[20] == "Misérables, Les (1995)"
    assert any("4 ratings" in note and name in note for note in data.notes), (
        "a cut-down copy must be called one"
    )


def test_ml_100k_genres_years_and_users(tmp_path: Path) -> None:
    data = load("ml-100k", releases.write_folder("ml-100k", tmp_path))
    items = data.items.set_index("item_id")
    assert items.loc[10, "genres"] == "Animation|Children's|Comedy"
    assert items.loc[20, "genres"] == "Drama|Musical"
    assert items.loc[267, "genres"] == ""
    assert items["year"].tolist() == [1995, 1995, 1995, 0]
    assert data.users.to_dict("list") == {
        "user_id": [1, 2],
        "age": [24.0, 53.0],
        "gender": ["M", "F"],
        "occupation": ["technician", "other"],
        "zip_code": ["85711", "T8H1N"],
    }


def test_ml_1m_titles_with_colons_and_users(tmp_path: Path) -> None:
    data = load("ml-1m", releases.write_folder("ml-1m", tmp_path))
    items = data.items.set_index("item_id")
    assert items.loc[30, "title"] == "Star Wars: Episode IV - A New Hope (1977)"
    assert items.loc[40, "title"] == "Face/Off::Director's Cut (1997)"
    assert items.loc[40, "genres"] == "Action"
    assert data.users["age"].tolist() == [1.0, 56.0]
    assert data.users["occupation"].tolist() == ["K-12 student", "self-employed"]
    assert data.users["zip_code"].tolist() == ["48067", "70072"]


def test_csv_releases_quote_and_say_when_there_is_no_genre(tmp_path: Path) -> None:
    data = load("ml-25m", releases.write_folder("ml-25m", tmp_path))
    items = data.items.set_index("item_id")
    assert items.loc[30, "title"] == '"Great Performances" Cats (1998)'
    assert items.loc[40, "genres"] == ""
    assert items["year"].tolist() == [1995, 1995, 1998, 2006, 0]
    assert items.loc[50, "genres"] == "null"
    assert list(data.users.columns) == ["user_id"]


@pytest.mark.parametrize(
    ("title", "year"),
    [
        ("Toy Story (1995)", 1995),
        ("Title, The (1995) ", 1995),
        ("Series (1995-1997)", 1995),
        ("Series (2009– )", 2009),
        ("Series (2009-)", 2009),
        ("Nosferatu (Nosferatu, eine Symphonie des Grauens) (1922)", 1922),
        ("Land Before Time III (1995) (V)", 1995),
        ("2001: A Space Odyssey (1968)", 1968),
        ("1984 (1956)", 1956),
        ("Remake (1933) (2005)", 2005),
        ("Blade Runner 2049", 0),
        ("Room (237)", 0),
        ("", 0),
    ],
)
def test_year_out_of_the_title(title: str, year: int) -> None:
    assert year_of(pd.Series([title])).tolist() == [year]


def test_files_that_a_release_can_do_without(tmp_path: Path) -> None:
    folder = releases.write_folder("ml-1m", tmp_path)
    (folder / "users.dat").unlink()
    assert len(load("ml-1m", folder).users) == 0


def test_line_ends_of_another_system(tmp_path: Path) -> None:
    folder = releases.write_folder("ml-1m", tmp_path)
    for name in ("ratings.dat", "movies.dat", "users.dat"):
        (folder / name).write_bytes((folder / name).read_bytes().replace(b"\n", b"\r\n"))
    data = load("ml-1m", folder)
    assert data.interactions.timestamp is not None
    assert data.interactions.timestamp[-1] == 881250952
    assert data.items["genres"].tolist()[0] == "Animation|Children's|Comedy"
    assert data.users["zip_code"].tolist() == ["48067", "70072"]


@pytest.mark.parametrize(
    ("name", "file", "line", "words"),
    [
        ("ml-1m", "ratings.dat", "3::40::four::881250953\n", r"line 5: rating 'four' is not a number"),
        ("ml-1m", "ratings.dat", "3::40::4\n", r"1 row does not have .*\n  line 5: '3::40::4'"),
        ("ml-100k", "u.data", "3\t40\t\t881250953\n", r"line 5: rating is missing"),
        ("ml-100k", "u.data", "3\t40\t4\t-1\n", r"line 5: timestamp -1 is before 1970"),
        ("ml-100k", "u.data", "x\t40\t4\t1\n", r"line 5: user_id is 'x'"),
        ("ml-100k", "u.data", "3\t" + "9" * 30 + "\t4\t1\n", r"line 5: item_id is '9{30}'"),
        ("ml-1m", "ratings.dat", "3::40::4::" + "9" * 30 + "\n", r"line 5: timestamp .* is after 2100"),
        ("ml-20m", "ratings.csv", "3,40,4.0\r\n", r"line 6: '3,40,4.0'"),
        ("ml-20m", "ratings.csv", "2,30,4.0,5\r\n", r"line 6: user 2 and item 30 are also on line 5"),
        ("ml-20m", "ratings.csv", "\r\n3,40,NaN,5\r\n", r"line 7: rating is missing"),
    ],
)
def test_a_bad_rating_row_is_named_with_its_line(
    name: str, file: str, line: str, words: str, tmp_path: Path
) -> None:
    folder = releases.write_folder(name, tmp_path)
    with (folder / file).open("ab") as stream:
        stream.write(line.encode())
    with pytest.raises(InvalidRowsError, match=words):
        load(name, folder)
    data = load(name, folder, on_bad_rows="repair")
    assert len(data.interactions) == 4
    assert any("dropped" in note for note in data.notes)


@pytest.mark.parametrize(
    ("name", "file", "content", "words"),
    [
        ("ml-20m", "movies.csv", None, "has no movies.csv .found: ratings.csv"),
        ("ml-20m", "ratings.csv", b"", "ratings.csv is empty"),
        ("ml-20m", "ratings.csv", b"a,b\n1,2\n", "expected the columns userId, movieId, rating, timestamp; found a, b"),
        ("ml-20m", "movies.csv", b"movieId,name\n1,2\n", "expected the columns movieId, title, genres"),
        ("ml-20m", "movies.csv", b"movieId,title,genres\nx,y,z\n", "movieId holds something else than whole numbers"),
        ("ml-100k", "u.item", b"10|Toy Story (1995)|1|0|0\n", "u.item, line 1: expected 24 fields"),
        ("ml-1m", "movies.dat", "²::T::G\n".encode(), "movies.dat, line 1: expected 3 fields .* whole number"),
        ("ml-1m", "users.dat", b"9" * 30 + b"::F::1::1::1\n", "users.dat, line 1: expected 5 fields"),
        ("ml-1m", "movies.dat", b"\0\1\2\3", "movies.dat, line 1: expected 3 fields"),
        ("ml-1m", "users.dat", b"1,F\n", "users.dat, line 1: expected 5 fields"),
    ],
)  # fmt: skip
def test_a_wrong_layout_is_named(
    name: str, file: str, content: bytes | None, words: str, tmp_path: Path
) -> None:
    folder = releases.write_folder(name, tmp_path)
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    with pytest.raises(DataNotFoundError, match=words):
        load(name, folder)


def test_a_place_without_the_release_says_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"no folder or file .*nowhere.*--data-dir PATH"):
        load("ml-1m", tmp_path / "nowhere")
    with pytest.raises(DataNotFoundError, match=r"expected ratings\.dat, a folder ml-1m .* found nothing"):
        load("ml-1m", tmp_path)
    with pytest.raises(DataNotFoundError, match=r"no folder or file .*that can be read"):
        load("ml-1m", tmp_path / ("x" * 300))
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(DataNotFoundError, match=r"found holiday\.jpg"):
        load("ml-1m", tmp_path)
    archive = releases.write_zip("ml-20m", tmp_path)
    with pytest.raises(DataNotFoundError, match=r"is not ml-1m: it holds no ratings\.dat"):
        load("ml-1m", archive)


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    path = releases.write_zip("ml-1m", tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataNotFoundError, match=r"is not a zip archive, or is damaged.*fetch it again"):
        load("ml-1m", tmp_path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("ml-1m/ratings.dat", b"1::10::5::881250949\n" * 200)
        archive.writestr("ml-1m/movies.dat", releases.ml_1m()["movies.dat"])
    path.write_bytes(path.read_bytes().replace(b"1::10::5::", b"1::10::4::", 1))
    with pytest.raises(DataNotFoundError, match=r"is damaged: .*fetch it again"):
        load("ml-1m", tmp_path)
    path.write_bytes(whole)
    for entry, flags in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        parts = [bytearray(part) for part in path.read_bytes().split(entry)]
        for part in parts[1:]:
            part[flags - 4] |= 1  # the bit that says: encrypted
        path.write_bytes(entry.join(parts))
    with pytest.raises(DataNotFoundError, match=r"cannot be unpacked: .*encrypted.*Fetch it again"):
        load("ml-1m", tmp_path)


@pytest.mark.skipif(
    "WIDEDEEP_TEST_DATA" not in os.environ, reason="needs real MovieLens in $WIDEDEEP_TEST_DATA"
)
def test_the_real_latest_small() -> None:
    data = load("ml-latest-small", Path(os.environ["WIDEDEEP_TEST_DATA"]))
    rows = data.interactions
    assert (len(rows), len(set(rows.user_id)), len(set(rows.item_id))) == (100_836, 610, 9_724)
    assert len(data.items) == 9_742
    assert data.notes == ()
    assert (data.items["year"] == 0).sum() == 12
    assert (data.items["genres"] == "").sum() == 34
    assert data.items["year"][data.items["year"] > 0].min() == 1902
