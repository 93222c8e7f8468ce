"""Example recommendations and the map of the items, of a model that has learned the checkerboard."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pandas as pd
import pytest
import torch
from boards import ITEMS

from experiments.figures import embedding, examples, examples_page, item_map
from widedeep import Recommender
from widedeep.datasets import Dataset
from widedeep.evaluation import evaluate, user_keys
from widedeep.interactions import Interactions
from widedeep.report import Report
from widedeep.split import Split


@pytest.fixture(scope="module")
def report(trained: Recommender, board_split: Split) -> Report:
    keys, ids = user_keys(board_split.test.user_id)
    return evaluate(
        trained,
        train=trained.histories.to("cpu"),
        test=trained.processor.encode(board_split.test),
        test_users=keys,
        user_ids=ids,
        item_count=trained.processor.item_count,
        warm_count=trained.processor.warm_count,
        bootstrap=0,
    )


@pytest.fixture(scope="module")
def found(trained: Recommender, board_split: Split, report: Report) -> list[examples.Example]:
    return examples.examples(trained, board_split.test, report)


def test_examples_are_of_the_test_part(
    found: list[examples.Example], trained: Recommender, board_split: Split, report: Report
) -> None:
    test = board_split.test
    assert len(found) == examples.USERS
    for one in found:
        rows = test.user_id == one.user
        liked = set(test.item_id[rows & (test.rating > 4)].tolist())
        known = report.per_user.loc[one.user]
        assert [item.item_id for item in one.recommended] == trained.recommend(one.user, 10).item_ids
        assert {item.item_id for item in one.recommended if item.fate == "liked"} <= liked
        assert one.hits == len(liked & {item.item_id for item in one.recommended})
        assert one.likes == known["relevant"] == len(liked) == one.hits + len(one.missed)
        assert {item.item_id for item in one.missed} == liked - {item.item_id for item in one.recommended}
        assert one.ndcg == known["ndcg_at_10"]
        assert one.why == ""
    assert sum(one.hits for one in found) > 0


def test_what_was_liked_last_comes_first(found: list[examples.Example], board_split: Split) -> None:
    train = board_split.train
    for one in found:
        rows = np.flatnonzero((train.user_id == one.user) & (train.rating > 4))
        latest = rows[np.argsort(train.timestamp[rows])[::-1]]
        assert [item.item_id for item in one.liked] == train.item_id[latest][: examples.LENGTH].tolist()
        assert one.liked[0].title == f"Film {one.liked[0].item_id}"


def test_users_are_of_all_lengths_of_history(report: Report) -> None:
    lengths = pd.DataFrame({"history": [5, 1, 9, 3, 7]}, index=pd.Index(list("abcde"), name="user"))
    some = dataclasses.replace(report, per_user=lengths)
    assert examples.users_of(some, 3) == ["b", "a", "c"]
    assert examples.users_of(some, 1) == ["b"]
    assert examples.users_of(some, 99) == ["b", "d", "a", "e", "c"]


def test_someone_without_a_history_is_said_to_be_so(trained: Recommender, report: Report) -> None:
    """Known to the test part alone, with an item that nobody knows and one that was not liked."""
    test = Interactions(np.array([999, 999, 999]), np.array([2, 888, 4]), np.array([5.0, 5.0, 1.0]), None)
    stranger = pd.DataFrame({"history": [0], "relevant": [2], "ndcg_at_10": [0.1]}, index=pd.Index([999]))
    [one] = examples.examples(trained, test, dataclasses.replace(report, per_user=stranger))
    assert one.liked == []
    assert "not in the training data" in one.why
    assert "Not personal: the user is not in the training data" in examples_page.page([one], "x")
    fates = {item.item_id: item.fate for item in one.recommended}
    assert fates.get(4, "not liked") == "not liked"
    assert [item.item_id for item in one.missed if item.item_id > ITEMS + 2] == [888]


def test_the_table_has_a_row_for_each_item(found: list[examples.Example]) -> None:
    table = examples.table(found)
    assert len(table) == sum(len(one.liked) + len(one.recommended) + len(one.missed) for one in found)
    recommended = table[table["list"] == "recommended"]
    assert (recommended["in the test part"] == "liked").sum() == sum(one.hits for one in found)
    assert recommended.groupby("user")["place"].max().tolist() == [10] * len(found)


def test_the_page_shows_titles_as_they_are(found: list[examples.Example]) -> None:
    odd = examples.Item(1, "<b>Tom & Jerry</b>", "Comedy", "liked")
    page = examples_page.page([dataclasses.replace(found[0], recommended=[odd], liked=[])], "a <test>")
    assert "&lt;b&gt;Tom &amp; Jerry&lt;/b&gt;" in page
    assert "a &lt;test&gt;" in page
    assert "<b>" not in page
    assert "✓ liked" in page
    assert "http" not in page  # nothing is fetched


def test_products_of_the_vectors_are_the_models_similarities(trained: Recommender) -> None:
    items = torch.arange(1, trained.processor.warm_count + 1)
    vectors = embedding.vectors(trained, items)
    ids = trained.processor.items.ids_of(items.numpy())
    answer = trained.similar([ids[4]], 5)
    products = vectors @ vectors[4]
    places = [ids.index(item) for item in answer.item_ids]
    assert products[places].tolist() == pytest.approx(answer.similarities, abs=1e-5)
    assert torch.linalg.vector_norm(vectors, dim=1).tolist() == pytest.approx([1.0] * len(vectors), abs=1e-5)


def test_what_is_alike_lies_together(trained: Recommender, board: Dataset) -> None:
    """Even items are liked by even users: the map has them apart from the odd ones."""
    found = embedding.item_map(trained)
    assert found is not None
    assert len(found.titles) == trained.processor.warm_count == ITEMS
    assert found.count == sorted(found.count, reverse=True)
    assert sum(found.count) == len(trained.histories.item_index)
    even = np.array([int(title.removeprefix("Film ")) % 2 == 0 for title in found.titles])
    distance = np.linalg.norm(found.places[:, None] - found.places[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert (even[distance.argmin(1)] == even).mean() > 0.95
    again = embedding.item_map(trained)
    assert again is not None
    assert np.array_equal(again.places, found.places)
    assert set(found.kinds) == {"Comedy", "Drama"} or set(found.kinds) == {"Comedy", "War"}
    item_map.drawn(found, "the checkerboard").savefig(io.BytesIO())
    page = item_map.hovered(found, "the checkerboard")
    assert all(title in page for title in found.titles)
    assert embedding.item_map(trained, items=embedding.FEWEST_ITEMS - 1) is None
    del board


def test_an_item_is_shown_as_its_rarest_genre_among_the_common() -> None:
    genres = torch.zeros(12, 9, dtype=torch.bool)
    for genre in range(9):
        genres[: 12 - genre, genre] = True  # genre 0 is the most common, 7 and 8 are no longer of the seven
    names = [f"genre {number}" for number in range(9)]
    genres[11] = False
    kinds = embedding._kinds(genres, names)
    assert kinds[0] == "genre 6"
    assert kinds[10] == "genre 1"
    assert kinds[11] == embedding.OTHER
    for columns in (0, 2):
        kinds = embedding._kinds(torch.zeros(3, columns, dtype=torch.bool), ["a", "b"][:columns])
        assert kinds == [embedding.UNKNOWN] * 3


def test_titles_are_no_formulas() -> None:
    """Matplotlib takes what is between two $ for one, and raises where it is none."""
    titles = [r"$\frac{ (Dollars) $", *(f"Film {number}" for number in range(11))]
    places = np.stack([np.arange(12.0), np.arange(12.0) * 3], axis=1)
    found = embedding.ItemMap(places, titles, [""] * 12, ["$a_{$", "b"] * 6, [1] * 12)
    item_map.drawn(found, r"about $\nothing{$").savefig(io.BytesIO())
