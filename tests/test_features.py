from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from widedeep.errors import EmptyDataError
from widedeep.features import FeatureProcessor
from widedeep.interactions import Interactions
from widedeep.vocabulary import Vocabulary


@pytest.mark.parametrize(
    ("value", "index"),
    [
        (7, 2),
        ("7", 2),
        (7.0, 2),
        (np.int32(7), 2),
        ("-3", 1),
        ("07", 0),
        ("7.0", 0),
        ("", 0),
        (None, 0),
        (True, 0),
        (7.5, 0),
        (float("nan"), 0),
        ("٧", 0),
        ("9" * 40, 0),
        (2**80, 0),
        (8, 0),
    ],
)
def test_number_vocabulary(value: object, index: int) -> None:
    vocabulary = Vocabulary(np.array([-3, 7, 900], dtype=np.int64))
    assert vocabulary.find(value) == index
    assert vocabulary.index_of([value, 900]).tolist() == [index, 3]


def test_text_vocabulary() -> None:
    vocabulary = Vocabulary(np.array(["a", "b", "7"], dtype=object))
    assert [vocabulary.find(value) for value in ("b", 7, "c", "", None)] == [2, 3, 0, 0, 0]
    assert vocabulary.index_of(["a", "zz", 7]).tolist() == [1, 0, 3]
    assert vocabulary.index_of([]).tolist() == []
    assert vocabulary.ids_of(np.array([3, 1])) == ["7", "a"]


def interactions() -> Interactions:
    return Interactions(
        np.array([10, 10, 20], dtype=np.int64),
        np.array([3, 1, 3], dtype=np.int64),
        np.array([5.0, 2.0, 4.0], dtype=np.float32),
        np.array([100, 200, 300], dtype=np.int64),
    )


def items() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "item_id": np.array([1, 2, 3], dtype=np.int64),
            "title": ["One", "Two", ""],
            "genres": ["A|B", "(no genres listed)", "B"],
            "year": np.array([1990, 0, 2000], dtype=np.int32),
        }
    )


def users() -> pd.DataFrame:
    return pd.DataFrame(
        {"user_id": [10, 20, 99], "age": [20.0, np.nan, 90.0], "city": ["Graz", "Linz", "Wien"]}
    )


def test_processor() -> None:
    processor = FeatureProcessor.fit(interactions(), items(), users(), 4.0)
    assert processor.items.ids.tolist() == [1, 3, 2]  # warm ones first, then what only the table knows
    assert (processor.warm_count, processor.item_count, processor.user_count) == (2, 4, 3)
    table = processor.item_table
    assert table.titles == ["", "One", "3", "Two"]
    assert table.genre_texts == ["", "A|B", "B", ""]
    assert table.years.tolist() == [0, 1990, 2000, 0]
    assert processor.user_feature_names == ["age", "city=Graz", "city=Linz"]
    assert processor.user_features[1].tolist() == [0.0, 1.0, 0.0]
    assert processor.user_features[0].tolist() == [0.0, 0.0, 0.0]
    encoded = processor.encode(interactions())
    assert encoded.user_index.tolist() == [1, 1, 2]
    assert encoded.item_index.tolist() == [2, 1, 2]
    assert encoded.liked.tolist() == [True, False, True]


def test_rows_after_training_that_are_unknown_become_zero() -> None:
    processor = FeatureProcessor.fit(interactions(), items(), users(), 4.0)
    later = Interactions(np.array([10, 77]), np.array([2, 55]), None, None)
    encoded = processor.encode(later)
    assert encoded.user_index.tolist() == [1, 0]
    assert encoded.item_index.tolist() == [3, 0]
    assert encoded.rating.isnan().all()
    assert encoded.liked.all()


def test_too_little() -> None:
    with pytest.raises(EmptyDataError, match="1 users"):
        FeatureProcessor.fit(interactions().take(np.array([0, 1])), items(), users(), 4.0)


@pytest.mark.parametrize("apart", [1, 3, 10**6, 2**40])
@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint64])
def test_columns_of_numbers_are_looked_up_like_single_ones(apart: int, dtype: type) -> None:
    ids = np.array([-7, -1, 0, 5, 90]) * apart
    vocabulary = Vocabulary(ids)
    limits = np.iinfo(dtype)
    asked = {int(value) + step for value in ids for step in (-1, 0, 1, 2**32, 2**63)}
    values = [
        value for value in sorted(asked | {limits.min, limits.max}) if limits.min <= value <= limits.max
    ]
    place = {int(value): index for index, value in enumerate(ids, start=1)}
    found = vocabulary.index_of(np.array(values, dtype=dtype))
    assert found.dtype == np.int32
    assert found.tolist() == [place.get(value, 0) for value in values]
    assert vocabulary.index_of(np.array([], dtype=dtype)).tolist() == []
