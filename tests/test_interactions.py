"""Interactions: ids as they came, bad rows named, repairs counted, a digest that is the content's."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import pandas as pd
import pytest

from widedeep.errors import DataNotFoundError, EmptyDataError, InvalidRowsError
from widedeep.interactions import Interactions, concatenate, distinct, id_codes, narrow, pair_keys


def frame(**columns: object) -> pd.DataFrame:
    usual: dict[str, object] = {
        "user_id": [1, 1, 2, 2],
        "item_id": [10, 20, 10, 30],
        "rating": [4.0, 3.5, 5.0, 1.0],
        "timestamp": [100, 200, 300, 400],
    }
    return pd.DataFrame({**usual, **columns})


def refused(data: pd.DataFrame, **options: object) -> str:
    with pytest.raises(InvalidRowsError) as caught:
        Interactions.from_frame(data, source="ratings.csv", **options)  # type: ignore[arg-type]
    return str(caught.value)


def test_columns_keep_their_values_and_get_their_types() -> None:
    rows, repairs = Interactions.from_frame(frame())
    assert repairs == []
    assert rows.user_id.dtype == np.int32
    assert rows.item_id.tolist() == [10, 20, 10, 30]
    assert rows.rating is not None
    assert rows.rating.dtype == np.float32
    assert rows.timestamp is not None
    assert rows.timestamp.tolist() == [100, 200, 300, 400]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a", "b", "c", "d"], ["a", "b", "c", "d"]),
        (["007", "7", "8", "9"], ["007", "7", "8", "9"]),
        (pd.Categorical(["x", "y", "x", "z"]), ["x", "y", "x", "z"]),
        (pd.Categorical([3, 4, 3, 5]), [3, 4, 3, 5]),
        ([True, False, True, False], ["True", "False", "True", "False"]),
        (np.array([2**63 + 1, 1, 2, 3], dtype=np.uint64), [str(2**63 + 1), "1", "2", "3"]),
        (np.array([7, 8, 9, 10], dtype=np.uint16), [7, 8, 9, 10]),
        ([1.0, 2.0, 3.0, 4.0], [1, 2, 3, 4]),
        (pd.array([1, 2, 3, 2**60 + 1], dtype="Int64"), [1, 2, 3, 2**60 + 1]),
        (pd.Series(["a", 5, 2.5, "b"], dtype=object), ["a", "5", "2.5", "b"]),
    ],
)
def test_ids_keep_their_type(given: object, expected: list[object]) -> None:
    rows, _ = Interactions.from_frame(frame(user_id=given, item_id=[1, 2, 3, 4]))
    assert rows.user_id.tolist() == expected
    whole = np.int64 if 2**60 + 1 in expected else np.int32
    assert rows.user_id.dtype == (object if isinstance(expected[0], str) else whole)


def test_ratings_and_times_are_optional() -> None:
    rows, _ = Interactions.from_frame(frame()[["user_id", "item_id"]])
    assert rows.rating is None
    assert rows.timestamp is None
    assert rows.liked(4.0).tolist() == [True] * 4
    ignored, _ = Interactions.from_frame(frame(), rating_col="none", timestamp_col=None)
    assert ignored.rating is None
    assert ignored.timestamp is None


def test_liked_is_at_or_above_the_threshold_in_the_ratings_own_precision() -> None:
    rows, _ = Interactions.from_frame(frame(rating=[3.7, 3.6999, 4.0, 0.5]))
    assert rows.liked(3.7).tolist() == [True, False, True, False]


def test_missing_columns_are_named_with_the_flags_to_set() -> None:
    data = frame().rename(columns={"user_id": "userId", "item_id": "movieId"})
    with pytest.raises(DataNotFoundError) as caught:
        Interactions.from_frame(data, source="ratings.csv")
    assert str(caught.value) == (
        "ratings.csv has no column 'user_id' and 'item_id' (found: userId, movieId, rating, timestamp).\n"
        "Name yours with --user-col userId --item-col movieId."
    )
    with pytest.raises(DataNotFoundError, match=r"'stars'.*\n.*--rating-col rating \(or --rating-col none\)"):
        Interactions.from_frame(frame(), rating_col="stars")


def test_no_rows_is_an_error_of_its_own() -> None:
    with pytest.raises(EmptyDataError, match=r"ratings\.csv has its columns but no rows"):
        Interactions.from_frame(frame().iloc[:0], source="ratings.csv")


def test_bad_rows_are_named_with_their_lines() -> None:
    data = frame(
        rating=pd.Series(["4", "four", "", "5"], dtype=object), timestamp=[100, 200, -3, 1_500_000_000_000]
    )
    message = refused(data)
    assert "ratings.csv: 3 of 4 rows cannot be used" in message
    assert "line 3: rating 'four' is not a number" in message
    assert "line 4: rating is missing" in message
    assert "line 4: timestamp -3 is before 1970" in message
    assert "line 5: timestamp 1500000000000 is after 2100: milliseconds? Divide by 1000" in message
    assert "--on-bad-rows repair" in message


@pytest.mark.parametrize("rating", [np.nan, np.inf, -np.inf])
def test_ratings_must_be_finite(rating: float) -> None:
    assert "line 3" in refused(frame(rating=[4.0, rating, 5.0, 1.0]))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([1, None, 2, 3], "line 3: user_id is missing"),
        (["a", "b", "", "c"], "line 4: user_id is missing"),
        (pd.array([1, 2, 3, None], dtype="Int64"), "line 5: user_id is missing"),
        ([1.0, 2.5, 3.0, 4.0], "line 3: user_id is 2.5"),
    ],
)
def test_rows_without_a_usable_id_are_named(given: object, words: str) -> None:
    assert words in refused(frame(user_id=given))


def test_only_the_first_bad_rows_are_listed_and_all_are_counted() -> None:
    rows = 1000
    data = pd.DataFrame({"user_id": range(rows), "item_id": range(rows), "rating": [np.nan] * rows})
    message = refused(data)
    assert "1,000 of 1,000" in message
    assert "and 995 more" in message
    assert len(message.splitlines()) < 12


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (["2001-09-09T01:46:40Z", "1970-01-01", "1970-01-02 00:00:01", "2001-09-09T03:46:40+02:00"],
         [1_000_000_000, 0, 86_401, 1_000_000_000]),
        (pd.to_datetime(["1970-01-01", "1970-01-02", "1970-01-03", "1970-01-04"]), [0, 86_400, 172_800, 259_200]),
        (pd.to_datetime(["1970-01-01T01:00:00+01:00"] * 4, utc=True), [0, 0, 0, 0]),
        ([1.9, 2.0, 3.5, 4.0], [1, 2, 3, 4]),
        (pd.Series(["5", "6.0", "7", "8"], dtype=object), [5, 6, 7, 8]),
    ],
)  # fmt: skip
def test_times_are_seconds_since_1970(given: object, seconds: list[int]) -> None:
    rows, _ = Interactions.from_frame(frame(timestamp=given))
    assert rows.timestamp is not None
    assert rows.timestamp.tolist() == seconds


def test_times_that_are_none_are_named() -> None:
    message = refused(frame(timestamp=["1970-01-01", "yesterday", None, "1970-01-02"]))
    assert "line 3: timestamp 'yesterday' is neither seconds nor an ISO 8601 date" in message
    assert "line 4: timestamp is missing" in message


def test_duplicates_are_named_with_their_partner() -> None:
    data = frame(user_id=[1, 2, 1, 3], item_id=[10, 10, 10, 10])
    message = refused(data)
    assert "1 of 4 rows" in message
    assert "line 2: user 1 and item 10 are also on line 4" in message
    assert "line 4: user 1" not in message


@pytest.mark.parametrize("times", [True, False])
def test_repair_drops_and_counts_and_keeps_the_latest_of_duplicates(times: bool) -> None:
    data = pd.DataFrame(
        {
            "user_id": ["a", "a", "b", "b", "c", "a"],
            "item_id": ["x", "x", "x", "y", "y", "x"],
            "rating": [1.0, 2.0, np.nan, 4.0, 5.0, 3.0],
            "timestamp": [10, 30, 10, 10, 10, 20],
        }
    )
    if not times:
        data = data.drop(columns="timestamp")
    rows, repairs = Interactions.from_frame(data, source="r.csv", on_bad_rows="repair")
    assert rows.user_id.tolist() == (["a", "b", "c"] if times else ["b", "c", "a"])
    assert rows.rating is not None
    assert rows.rating.tolist() == ([2.0, 4.0, 5.0] if times else [4.0, 5.0, 3.0])
    assert repairs[0] == "r.csv: dropped 1 row with a rating that is not a number (line 4)"
    assert repairs[1].startswith("r.csv: dropped 2 rows with the user and item of another row (line 2, ")


def test_a_repair_that_would_leave_nothing_is_refused() -> None:
    message = refused(frame(timestamp=[10**12 + n for n in range(4)]), on_bad_rows="repair")
    assert "Dropping them leaves nothing" in message


def test_duplicates_are_found_in_any_order_of_rows() -> None:
    rng = np.random.default_rng(0)
    pairs = rng.permutation(40 * 50)[:600]
    users, items = pairs // 50, pairs % 50
    clean = pd.DataFrame({"user_id": users, "item_id": items})
    for data in (clean, clean.sort_values(["user_id", "item_id"]), clean.astype(str)):
        Interactions.from_frame(data)
        again = pd.concat([data, data.iloc[[17]]])
        assert "1 of 601 rows" in refused(again)
        assert "1 of 601 rows" in refused(again.sort_values(["user_id", "item_id"]))


def test_pair_keys_hold_for_ids_with_the_widest_gaps() -> None:
    users = np.array([-(2**63), 2**63 - 1, -(2**63), 0], dtype=np.int64)
    items = np.array([2**62, -5, 2**62, 2**63 - 1], dtype=np.int64)
    keys = pair_keys(users, items)
    assert keys[0] == keys[2]
    assert len(set(keys.tolist())) == 3
    codes, count = id_codes(np.array(["b", "a", "b"], dtype=object))
    assert codes.tolist() == [1, 0, 1]
    assert count == 2


def test_digest_follows_the_content() -> None:
    rows, _ = Interactions.from_frame(frame())
    assert rows.digest() == Interactions.from_frame(frame())[0].digest()
    # Spelt out byte by byte: a digest that changed with machine or version would disown every tracked run.
    content = b"interactions 1 4\nint32\n" + struct.pack("<4i", 1, 1, 2, 2)
    content += b"int32\n" + struct.pack("<4i", 10, 20, 10, 30)
    content += b"float32\n" + struct.pack("<4f", 4.0, 3.5, 5.0, 1.0)
    content += b"int32\n" + struct.pack("<4i", 100, 200, 300, 400)
    assert rows.digest() == hashlib.sha256(content).hexdigest()
    for changed in (
        frame(user_id=[1, 1, 2, 3]),
        frame(item_id=[10, 21, 10, 30]),
        frame(rating=[4.0, 3.5, 5.0, 1.5]),
        frame(timestamp=[100, 200, 300, 4_000_000_000]),
        frame().drop(columns="rating"),
        frame().astype({"user_id": str}),
    ):
        assert Interactions.from_frame(changed)[0].digest() != rows.digest()
    assert rows.take(np.array([1, 0, 2, 3])).digest() != rows.digest()


def test_text_digest_knows_where_an_id_ends() -> None:
    one = Interactions(np.array(["ab", "c"], dtype=object), np.array(["x", "y"], dtype=object))
    other = Interactions(np.array(["a", "bc"], dtype=object), np.array(["x", "y"], dtype=object))
    assert one.digest() != other.digest()


def test_take_concatenate_and_frame_go_together() -> None:
    rows, _ = Interactions.from_frame(frame())
    first, second = rows.take(rows.liked(4.0)), rows.take(~rows.liked(4.0))
    both = concatenate([first, second])
    assert both.user_id.tolist() == [1, 2, 1, 2]
    assert concatenate([rows]).digest() == rows.digest()
    assert Interactions.from_frame(rows.to_frame())[0].digest() == rows.digest()
    without = Interactions(rows.user_id, rows.item_id)
    assert concatenate([without, without]).rating is None
    with pytest.raises(ValueError, match="only some of the parts"):
        concatenate([rows, without])


@pytest.mark.parametrize(
    "values",
    [
        [],
        [5],
        [3, -2, 3, 7, -2],
        [-(2**31), 2**31 - 1],
        [2**31, 0, 0],
        [-(2**31) - 1, -(2**31) - 1],
        [2**63 - 1, -(2**63), 0],
    ],
)
def test_numbers_are_kept_narrow_and_their_distinct_values_and_codes_are_right(values: list[int]) -> None:
    wide = np.array(values, dtype=np.int64)
    fits = bool(values) and min(values) >= -(2**31) and max(values) < 2**31
    column = narrow(wide)
    assert column.dtype == (np.int32 if fits else np.int64)
    assert column.tolist() == values
    for same in (wide, column):
        assert distinct(same).dtype == np.int64
        assert distinct(same).tolist() == sorted(set(values))
        codes, count = id_codes(same)
        assert np.argsort(codes, kind="stable").tolist() == np.argsort(wide, kind="stable").tolist()
        assert all(0 <= code < count for code in codes.tolist())
        assert (codes[:, None] == codes).tolist() == (wide[:, None] == wide).tolist()


def test_distinct_text() -> None:
    assert distinct(np.array(["b", "a", "b", "", "á"], dtype=object)).tolist() == ["", "a", "b", "á"]
