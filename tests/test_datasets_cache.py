"""The cache of parsed columns: what comes out of it is what parsing gives, whatever lies in it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from releases import write_folder, write_zip

from widedeep import datasets
from widedeep.config import DataConfig
from widedeep.datasets import Dataset, cache, files, movielens
from widedeep.errors import InvalidRowsError
from widedeep.interactions import Interactions

ROOT = Path(__file__).parent.parent


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the entries go; files of any size are kept."""
    monkeypatch.setenv("WIDEDEEP_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("WIDEDEEP_NO_CACHE", raising=False)
    monkeypatch.setattr(cache, "SMALLEST", 1)
    return tmp_path / "data" / "columns"


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by one name each time a file is really parsed."""
    names: list[str] = []

    def noting(module: object, name: str, label: Callable[..., str]) -> None:
        real = getattr(module, name)

        def parse(*arguments: object) -> object:
            names.append(label(*arguments))
            return real(*arguments)

        monkeypatch.setattr(module, name, parse)

    noting(files, "_interactions", lambda config: config.ratings)
    noting(movielens, "_ratings", lambda source, *_rest: source.name)
    return names


def write(path: Path, rows: int = 40, text: bool = False, extra: str = "") -> Path:
    lines = [
        f"{'u' if text else ''}{row // 4},{row % 4 + row // 4 * 2},{row % 9 / 2 + 0.5},{10**9 + 977 * row % 501}"
        for row in range(rows)
    ]
    path.write_text("user_id,item_id,rating,timestamp\n" + "\n".join(lines) + "\n" + extra)
    return path


def load(path: Path, **settings: str) -> Dataset:
    return datasets.load(DataConfig(dataset="files", ratings=str(path), **settings))  # type: ignore[arg-type]


def assert_same(one: Dataset, other: Dataset) -> None:
    for name in cache.COLUMNS:
        ours, theirs = getattr(one.interactions, name), getattr(other.interactions, name)
        if ours is None:
            assert theirs is None
            continue
        assert ours.dtype == theirs.dtype
        assert ours.tolist() == theirs.tolist()
    assert (one.name, one.source, one.digest, one.notes) == (
        other.name,
        other.source,
        other.digest,
        other.notes,
    )
    assert one.items.equals(other.items)
    assert one.users.equals(other.users)


def entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("text", [False, True])
def test_the_second_load_is_the_first_one_unparsed(
    tmp_path: Path, folder: Path, parsed: list[str], text: bool
) -> None:
    path = write(tmp_path / "r.csv", text=text)
    first = load(path)
    second = load(path)
    assert parsed == [str(path)]
    assert_same(first, second)
    assert len(entries(folder)) == 1
    for column in (second.interactions.item_id, second.interactions.rating, second.interactions.timestamp):
        assert column is not None
        assert not column.flags.writeable, "mapped from the file"


@pytest.mark.parametrize("name", ["ml-100k", "ml-1m", "ml-10m", "ml-25m"])
@pytest.mark.parametrize("write_release", [write_folder, write_zip])
def test_releases_are_kept_out_of_folders_and_archives(
    tmp_path: Path, folder: Path, parsed: list[str], name: str, write_release: Callable[[str, Path], Path]
) -> None:
    config = DataConfig(dataset=name, data_dir=str(write_release(name, tmp_path / "there")))
    first, second = datasets.load(config), datasets.load(config)
    assert len(parsed) == len(entries(folder)) == 1
    assert any("ratings, " in note for note in first.notes), "what is noted outside the cache is noted again"
    assert_same(first, second)


def test_notes_come_back_and_errors_are_not_kept(tmp_path: Path, folder: Path, parsed: list[str]) -> None:
    path = write(tmp_path / "r.csv", extra="7,,3,5\n")
    for _ in range(2):
        with pytest.raises(InvalidRowsError, match="1 of 41 rows"):
            load(path)
    assert not entries(folder)
    first, second = load(path, on_bad_rows="repair"), load(path, on_bad_rows="repair")
    assert len(parsed) == 3
    assert len(first.notes) == 1
    assert_same(first, second)
    with pytest.raises(InvalidRowsError, match="1 of 41 rows"):
        load(path)


def test_a_changed_file_is_parsed_anew_and_takes_the_older_ones_place(
    tmp_path: Path, folder: Path, parsed: list[str]
) -> None:
    path = write(tmp_path / "r.csv")
    other = write(tmp_path / "other.csv")
    load(path)
    load(other)
    before = path.stat()
    path.write_text(path.read_text().replace("1.5", "2.5", 1))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # neither size nor time gives it away
    changed = load(path)
    assert len(parsed) == 3
    assert len(entries(folder)) == 2, "the other file's entry, and this one's newest"
    assert_same(changed, load(path))
    load(other)
    assert len(parsed) == 3


def test_other_settings_have_entries_of_their_own(tmp_path: Path, folder: Path, parsed: list[str]) -> None:
    path = write(tmp_path / "r.csv")
    settings: list[dict[str, str]] = [
        {},
        {"rating_col": "none"},
        {"timestamp_col": "none"},
        {"user_col": "item_id", "item_col": "user_id"},
        {"on_bad_rows": "repair"},
    ]
    first = [load(path, **each) for each in settings]
    assert len(parsed) == len(entries(folder)) == len(settings)
    for each, expected in zip(settings, first, strict=True):
        assert_same(load(path, **each), expected)
    assert len(parsed) == len(settings)
    assert first[1].interactions.rating is None
    assert first[2].interactions.timestamp is None
    assert first[3].interactions.user_id.tolist() == first[0].interactions.item_id.tolist()


@pytest.mark.usefixtures("folder")
def test_ids_of_any_text_come_back(tmp_path: Path, parsed: list[str]) -> None:
    odd = [
        "é",
        "e\u0301",
        "日本語",
        "🎬🍿",
        "\u202eabc",
        "zero\u200bwidth",
        "a b",
        "007",
        "nan",
        "None",
        "x" * 5000,
    ]
    path = tmp_path / "r.csv"
    rows = [f'"{user}",{item}' for user in odd for item in odd[:3]]
    path.write_text("user_id,item_id\n" + "\n".join(rows) + "\n", encoding="utf-8")
    first, second = load(path), load(path)
    assert len(parsed) == 1
    assert second.interactions.user_id.tolist() == [user for user in odd for _ in range(3)]
    assert_same(first, second)


def test_half_a_surrogate_pair_comes_back(folder: Path) -> None:
    ids: np.ndarray = np.array(["\ud800", "a", "\udfff\ud800", "", "a\0b", "a"], dtype=object)
    rows = Interactions(ids, np.arange(6))
    cache._keep(folder, "key", rows, ["a note with \ud800"], {"path": "", "name": "", "settings": {}})
    found = cache._load(folder / "key")
    assert found is not None
    assert found[0].user_id.tolist() == ids.tolist()
    assert found[1] == ["a note with \ud800"]


def _damage_bit(entry: Path, name: str) -> None:
    data = bytearray((entry / name).read_bytes())
    data[-3] ^= 4
    (entry / name).write_bytes(data)


def _shorten(entry: Path, name: str) -> None:
    data = (entry / name).read_bytes()
    (entry / name).write_bytes(data[: len(data) // 2])


def _pickled(entry: Path, name: str) -> None:
    np.save(entry / name, np.array([{"a": 1}] * 40, dtype=object), allow_pickle=True)


def _as_float(entry: Path, name: str) -> None:
    np.save(entry / name, np.load(entry / name).astype(np.float64))


def _narrow_away(entry: Path, name: str) -> None:
    np.save(entry / name, np.load(entry / name)[:-1])


def _two_dimensional(entry: Path, name: str) -> None:
    np.save(entry / name, np.load(entry / name)[:, None])


def _foreign_entry(entry: Path, _name: str) -> None:
    text = json.dumps({"something": "else"})
    (entry / "entry.json").write_text(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}")


DAMAGES: list[Callable[[Path, str], object]] = [
    _damage_bit,
    _shorten,
    _pickled,
    _as_float,
    _narrow_away,
    _two_dimensional,
    _foreign_entry,
    lambda entry, name: (entry / name).write_bytes(b""),
    lambda entry, name: (entry / name).unlink(),
    lambda entry, name: (entry / name).unlink() or (entry / name).mkdir(),
    lambda entry, _name: _damage_bit(entry, "entry.json"),
    lambda entry, _name: _shorten(entry, "entry.json"),
    lambda entry, _name: [part.unlink() for part in entry.iterdir()],
    lambda entry, _name: [[part.unlink() for part in entry.iterdir()], entry.rmdir(), entry.write_text("x")],
]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["user_id.npy", "user_id.text.npy", "user_id.ends.npy", "rating.npy"])
def test_a_damaged_entry_is_parsed_anew_and_replaced(
    tmp_path: Path, folder: Path, parsed: list[str], damage: Callable[[Path, str], object], name: str
) -> None:
    path = write(tmp_path / "r.csv", text=True)
    whole = load(path)
    (entry,) = entries(folder)
    damage(entry, name)
    assert_same(load(path), whole)
    assert len(parsed) == 2, "it was noticed"
    assert_same(load(path), whole)
    assert len(parsed) == 2, "and replaced"
    assert entries(folder) == [entry]


def test_a_folder_that_cannot_be_written_to_costs_nothing_but_the_cache(
    tmp_path: Path, folder: Path, parsed: list[str]
) -> None:
    folder.parent.mkdir()
    folder.write_text("a file where the folder should be")
    path = write(tmp_path / "r.csv")
    told: list[str] = []
    config = DataConfig(dataset="files", ratings=str(path))
    data = datasets.load(config, told.append)
    assert len(data.interactions) == 40
    assert data.notes == ()
    assert len(told) == 1
    assert str(folder) in told[0]
    assert_same(load(path), data)
    assert len(parsed) == 2


def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, folder: Path, parsed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = np.save

    def full(path: Path, values: np.ndarray, **options: bool) -> None:
        if path.name == "rating.npy":
            raise OSError(28, "No space left on device")
        real(path, values, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(np, "save", full)
    told: list[str] = []
    path = write(tmp_path / "r.csv")
    datasets.load(DataConfig(dataset="files", ratings=str(path)), told.append)
    assert "No space left on device" in told[0]
    assert not entries(folder)
    monkeypatch.setattr(np, "save", real)
    load(path)
    load(path)
    assert len(parsed) == 2


def test_a_file_that_changes_while_it_is_parsed_is_not_kept(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "r.csv")
    real = files._interactions

    def slow(config: DataConfig) -> cache.Read:
        write(path, rows=20)
        return real(config)

    monkeypatch.setattr(files, "_interactions", slow)
    assert len(load(path).interactions) == 20
    assert not entries(folder)


def test_small_files_and_the_switch(
    tmp_path: Path, folder: Path, parsed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "r.csv")
    monkeypatch.setattr(cache, "SMALLEST", path.stat().st_size + 1)
    load(path)
    assert not entries(folder)
    monkeypatch.setattr(cache, "SMALLEST", path.stat().st_size)
    monkeypatch.setenv("WIDEDEEP_NO_CACHE", "1")
    load(path)
    assert not entries(folder)
    monkeypatch.setenv("WIDEDEEP_NO_CACHE", "0")
    load(path)
    assert len(entries(folder)) == 1
    monkeypatch.setenv("WIDEDEEP_NO_CACHE", "1")
    load(path)
    assert len(parsed) == 4


def test_what_dead_processes_left_is_removed_and_what_living_ones_write_is_not(
    tmp_path: Path, folder: Path
) -> None:
    old, new, foreign = folder / ".old.part", folder / ".new.part", folder / "not ours"
    for place in (old, new, foreign):
        place.mkdir(parents=True)
        (place / "x").write_text("x")
    past = time.time() - 2 * cache.ABANDONED
    os.utime(old, (past, past))
    load(write(tmp_path / "r.csv"))
    assert not old.exists()
    assert new.exists()
    assert foreign.exists()


def test_two_processes_at_once(tmp_path: Path, folder: Path) -> None:
    """Both keep the same entry, over and over, each time after it was damaged, and read it in between."""
    path = write(tmp_path / "r.csv", rows=4000, text=True)
    whole = load(path)
    (entry,) = entries(folder)
    code = f"""
import sys
from pathlib import Path
from widedeep import datasets
from widedeep.config import DataConfig
from widedeep.datasets import cache
cache.SMALLEST = 1
told = []
for turn in range(30):
    if turn % 3 == 0:
        try:
            (Path({str(entry)!r}) / "rating.npy").unlink()
        except FileNotFoundError:
            pass  # the other process was faster
    data = datasets.load(DataConfig(dataset="files", ratings={str(path)!r}), told.append)
    assert data.digest == data.interactions.digest() == {whole.digest!r}
    assert len(data.interactions) == 4000
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    running = [
        subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, env=environment, text=True)
        for _ in range(2)
    ]
    for process in running:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    assert_same(load(path), whole)
    assert [place.name for place in entries(folder)] == [entry.name], "nothing half-written is left"
