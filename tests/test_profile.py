"""Profiles of data sets whose figures are known."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from experiments import profiling
from experiments.figures.profile import overview
from experiments.profile import Profile
from experiments.profiling import design_effect
from experiments.tally import Tally
from widedeep.config import DataConfig
from widedeep.datasets import Dataset
from widedeep.errors import DataError
from widedeep.interactions import Interactions

DAY = 86_400
ROWS = Interactions(
    user_id=np.array([1, 1, 1, 1, 2, 2, 3], dtype=np.int32),
    item_id=np.array([10, 20, 30, 40, 10, 20, 10], dtype=np.int32),
    rating=np.array([5, 4, 1, 2, 5, 3, 1], dtype=np.float32),
    timestamp=np.array([0, 1, 2, 31 * DAY, 40 * DAY, 41 * DAY, 59 * DAY + 7], dtype=np.int32),
)
ITEMS = pd.DataFrame(
    {
        "item_id": np.array([10, 20, 30, 50], dtype=np.int32),
        "title": ["Ten", "Twenty", "", "Fifty"],
        "genres": ["Comedy|Drama", "Drama", "", "War"],
        "year": np.int32([1990, 1991, 0, 0]),
    }
)
USERS = pd.DataFrame({"user_id": np.array([1], dtype=np.int32), "age": [20.0]})


def of(rows: Interactions, items: pd.DataFrame = ITEMS) -> Profile:
    data = Dataset("known", rows, items, USERS, "made up for a test", rows.digest())
    return profiling.examine(data, DataConfig()).profile


@pytest.fixture(scope="module")
def known() -> Profile:
    return of(ROWS)


def test_the_figures_of_seven_rows(known: Profile) -> None:
    assert (known.interactions, known.users, known.items, known.duplicates) == (7, 3, 4, 0)
    assert known.density == pytest.approx(7 / 12)
    assert (known.first, known.last) == (0, 59 * DAY + 7)
    assert known.months == {"1970-01": 3, "1970-02": 3, "1970-03": 1}
    assert (known.ratings, known.rating_counts) == ([1, 2, 3, 4, 5], [2, 1, 1, 1, 2])
    assert (known.liked, known.users_without_likes) == (3, 1)
    assert known.liked_share(2) == pytest.approx(5 / 7)
    assert known.genres == {"Drama": 5, "Comedy": 3}
    assert (known.described_items, known.known_items) == (3, 4)
    assert (known.without_title, known.untitled_rows) == (2, 2)  # 30 has none, 40 has no row
    assert known.user_attributes == ["age"]


def test_activity_is_counted_by_user_and_by_item(known: Profile) -> None:
    user, item = known.per_user, known.per_item
    assert (user.mean, user.once) == (pytest.approx(7 / 3), 1)
    assert (user.quantiles["0"], user.quantiles["50"], user.quantiles["100"]) == (1, 2, 4)
    assert (user.edges, user.counts) == ([1, 2, 3, 4], [1, 1, 0, 1])
    assert user.at_least() == pytest.approx([1, 2 / 3, 1 / 3, 1 / 3])
    assert (item.edges, item.counts, item.once) == ([1, 2, 3], [2, 1, 1], 2)
    assert sum(user.relative) == pytest.approx(3)


def test_popularity_is_unequal_by_lorenz_and_gini(known: Profile) -> None:
    assert known.lorenz[1] == known.lorenz[25] == pytest.approx(3 / 7)  # one of four items has three of seven
    assert (known.lorenz[50], known.lorenz[100]) == (pytest.approx(5 / 7), 1)
    assert known.gini == pytest.approx(2 * (1 * 1 + 2 * 1 + 3 * 2 + 4 * 3) / (4 * 7) - 5 / 4)


def test_equal_items_have_a_gini_of_zero() -> None:
    alike = ROWS.take(np.array([0, 1, 4, 5]))
    assert of(alike).gini == pytest.approx(0)
    assert of(alike).lorenz[50] == pytest.approx(0.5)


def test_pairs_that_come_again_are_counted() -> None:
    assert of(ROWS.take(np.array([0, 1, 2, 3, 4, 5, 6, 0, 0, 4]))).duplicates == 3


def test_a_profile_comes_back_from_json(known: Profile) -> None:
    assert Profile.from_dict(json.loads(json.dumps(known.to_dict()))) == known


@pytest.mark.parametrize("values", [{"version": 1}, {"version": 99}, {}])
def test_what_is_no_profile_is_refused(values: dict[str, int]) -> None:
    with pytest.raises(DataError, match="profile"):
        Profile.from_dict(values)


def test_rows_may_come_in_any_number_of_blocks(known: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "BLOCK", 2)
    assert of(ROWS) == known


def test_ids_may_be_text_or_far_apart(known: Profile) -> None:
    wide = {1: -(2**61), 2: 5, 3: 2**61, 10: 7, 20: 2**40, 30: 2**50, 40: 2**60, 50: 0}

    def renamed(to: dict[int, object], dtype: type) -> Profile:
        rows = dataclasses.replace(
            ROWS,
            user_id=np.array([to[value] for value in ROWS.user_id.tolist()], dtype=dtype),
            item_id=np.array([to[value] for value in ROWS.item_id.tolist()], dtype=dtype),
        )
        ids = np.array([to[value] for value in ITEMS["item_id"].tolist()], dtype=dtype)
        return dataclasses.replace(of(rows, ITEMS.assign(item_id=ids)), digest=known.digest)

    assert renamed(wide, np.int64) == known
    assert renamed({value: f"id {value}" for value in wide}, object) == known


def test_without_ratings_and_times_everything_is_liked() -> None:
    found = of(Interactions(ROWS.user_id, ROWS.item_id))
    assert (found.ratings, found.rating_counts, found.liked, found.users_without_likes) == (None, [], 7, 0)
    assert (found.first, found.last, found.months) == (None, None, {})
    assert found.liked_share(4) == 1


def test_many_different_ratings_are_kept_as_their_quantiles() -> None:
    generator = np.random.default_rng(0)
    count = 20_000
    rows = Interactions(
        np.repeat(np.arange(200), 100),
        np.tile(np.arange(100), 200),
        generator.random(count).astype(np.float32),
    )
    found = of(rows)
    assert found.ratings is not None
    assert len(found.ratings) <= profiling.RATING_POINTS
    assert sum(found.rating_counts) == count
    assert rows.rating is not None
    ratings = overview(found).axes[0]
    assert sum(bar.get_height() for bar in ratings.patches) == pytest.approx(100)
    labels = [float(tick.get_text()) for tick in ratings.get_xticklabels()]
    assert labels == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1], abs=0.01)
    assert found.liked_share(0.3) == pytest.approx(
        (rows.rating >= 0.3).mean(), abs=1 / profiling.RATING_POINTS
    )


def test_users_who_always_say_the_same_count_as_one_draw_each() -> None:
    same = np.kron(
        np.eye(2, dtype=np.int64) * 10, np.ones((200, 1), dtype=np.int64)
    )  # 400 users, ten draws each
    assert design_effect(same) == pytest.approx(10, rel=0.01)
    free = np.random.default_rng(0).multinomial(10, [0.2, 0.3, 0.5], size=4000)
    assert design_effect(free) == pytest.approx(1, abs=0.05)


def test_ids_are_grouped_by_how_often_they_occur() -> None:
    tally = Tally(np.arange(2000), np.arange(1, 2001))
    assert np.bincount(tally.groups()).tolist() == [1000, 600, 300, 80, 20]
    assert (tally.groups()[0], tally.groups()[-1]) == (0, 4)
    few = Tally(np.arange(100), np.arange(1, 101))  # the first 1% and 5% would be fewer than ten
    assert np.bincount(few.groups()).tolist() == [50, 30, 20]
    assert Tally(np.arange(3), np.array([1, 1, 5])).groups().tolist() == [0, 0, 0]
    back = Tally.from_frame(Tally(np.array(["a", "b"], dtype=object), np.array([1, 2])).to_frame())
    assert back.ids.tolist() == ["a", "b"]


def test_activity_against_the_mean_does_not_change_with_its_level() -> None:
    counts = np.repeat([40, 80, 160], [10, 20, 10])
    once, twice = (profiling._activity(counts * factor).relative for factor in (1, 2))
    assert once == pytest.approx(twice, abs=0.3)
    assert sum(once) == pytest.approx(len(counts))
    single = profiling._activity(np.full(7, 3)).relative  # all have 3, or from 2.5 to 3.5
    middle = profiling.RELATIVE
    assert single[middle] + single[middle - 1] + single[middle + 1] == pytest.approx(7)
    assert single[middle] == pytest.approx(7 * (3.5 - 3 * 2**-0.25), abs=1e-5)


def test_the_lines_for_people_are_those_of_the_profile(known: Profile) -> None:
    lines = dict(known.rows())
    assert lines["items with a title row"] == "3 of 4; 1 more are known"
    assert lines["share of the top 1% of items"] == "42.9% (Gini 0.25)"
    assert lines["times"] == "1970-01-01 to 1970-03-01 (UTC)"


def test_the_figure_shows_the_shares_of_both(known: Profile) -> None:
    other = of(ROWS.take(np.array([0, 2, 3, 4])))  # ratings 5, 1, 2, 5
    ratings, *_, genres = overview(known, other).axes
    heights = [bar.get_height() for bar in ratings.patches]
    assert heights == pytest.approx([25, 25, 0, 0, 50, *(100 * count / 7 for count in (2, 1, 1, 1, 2))])
    assert [tick.get_text() for tick in ratings.get_xticklabels()] == ["1", "2", "3", "4", "5"]
    assert [tick.get_text() for tick in genres.get_yticklabels()] == ["Comedy", "Drama"]


def test_the_figure_says_what_there_is_not() -> None:
    bare = of(Interactions(ROWS.user_id, ROWS.item_id), ITEMS[:0])
    said = {text.get_text() for axis in overview(bare).axes for text in axis.texts}
    assert {"no ratings", "no times", "no genres"} <= said
