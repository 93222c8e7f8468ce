from __future__ import annotations

import pandas as pd
import pytest

from widedeep import ColdStart, Query, Recommender, ScoreQuery
from widedeep.datasets import Dataset
from widedeep.errors import (
    ConfigError,
    DataNotFoundError,
    InvalidQueryError,
    InvalidRowsError,
    UnknownItemError,
)
from widedeep.frames import prepare
from widedeep.split import Split


def seen(parts: Split, user: int) -> set[int]:
    return set(parts.train.item_id[parts.train.user_id == user].tolist())


def test_recommends_what_is_liked_and_not_yet_seen(trained: Recommender, board_split: Split) -> None:
    for user in range(1, 61):
        ranking = trained.recommend(user, k=5)
        assert len(ranking.item_ids) == 5
        assert ranking.cold_start is None
        assert not seen(board_split, user) & set(ranking.item_ids)
        assert ranking.scores == sorted(ranking.scores, reverse=True)
        assert all(item % 2 == user % 2 for item in ranking.item_ids[:3])


def test_seen_items_come_back_on_request(trained: Recommender, board_split: Split) -> None:
    everything = trained.recommend(1, k=1000, exclude_seen=False)
    assert set(everything.item_ids) == set(range(1, 41))
    unseen = trained.recommend(1, k=1000)
    assert set(unseen.item_ids) == set(range(1, 41)) - seen(board_split, 1)


def test_a_history_serves_a_stranger(trained: Recommender) -> None:
    for parity in (0, 1):
        history = [item for item in range(1, 41) if item % 2 == parity][:8]
        ranking = trained.recommend_for_history(history, k=5)
        assert ranking.cold_start is None
        assert all(item % 2 == parity for item in ranking.item_ids)
        assert not set(history) & set(ranking.item_ids)
        assert trained.recommend("a stranger", k=5, history=history).item_ids == ranking.item_ids


def test_ratings_say_what_of_a_history_was_liked(trained: Recommender) -> None:
    ranking = trained.recommend_for_history([1, 2, 3, 4, 5, 6], history_ratings=[1, 5, 1, 5, 1, 5], k=4)
    assert all(item % 2 == 0 for item in ranking.item_ids)
    assert not {1, 2, 3, 4, 5, 6} & set(ranking.item_ids)


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        (Query(), ColdStart.NO_USER),
        (Query(user_id=""), ColdStart.NO_USER),
        (Query(user_id=999), ColdStart.UNKNOWN_USER),
        (Query(user_id="x", history=[]), ColdStart.UNKNOWN_USER),
        (Query(user_id=1, history=["zz"]), ColdStart.UNKNOWN_HISTORY),
        (Query(history=[2], history_ratings=[1.0]), ColdStart.NO_LIKES),
    ],
)
def test_cold_starts_are_ranked_by_popularity_and_say_so(
    trained: Recommender, query: Query, reason: ColdStart
) -> None:
    ranking = trained.rank([query])[0]
    assert ranking.cold_start == reason
    popularity = trained.net.popularity
    counts = [float(popularity[trained.processor.items.find(item)]) for item in ranking.item_ids]
    assert counts == sorted(counts, reverse=True)
    assert len(ranking.item_ids) == 10


def test_filters(trained: Recommender) -> None:
    comedies = trained.recommend(1, k=1000, genres=["Comedy"], exclude_seen=False).item_ids
    assert set(comedies) == set(range(2, 41, 2))
    years = trained.recommend(1, k=1000, year_from=1985, year_to=1986, exclude_seen=False).item_ids
    assert set(years) == {5, 6, 35, 36}
    assert trained.recommend(1, genres=["Comedy"], year_from=2020).item_ids == []
    left = trained.recommend(1, k=1000, exclude_items=["2", 3, "no such item"], exclude_seen=False).item_ids
    assert set(left) == set(range(1, 41)) - {2, 3}


def test_candidates(trained: Recommender) -> None:
    ranking = trained.recommend(1, k=3, candidates=["4", 5, "no such item", 7], exclude_seen=False)
    assert sorted(ranking.item_ids) == [4, 5, 7]
    assert ranking.item_ids[-1] == 4
    assert ranking.unknown_items == ["no such item"]
    with pytest.raises(UnknownItemError, match="candidates: none of the 2 items is known"):
        trained.recommend(1, candidates=["a", "b"])


def test_cold_items_are_recommended_only_as_candidates_or_when_asked(trained: Recommender) -> None:
    assert 41 not in trained.recommend(1, k=1000, exclude_seen=False).item_ids
    assert trained.recommend(1, candidates=[41, 42]).item_ids != []
    assert {41, 42} <= set(trained.recommend(1, k=1000, include_cold_items=True).item_ids)


def test_an_item_that_comes_twice_in_a_history_counts_once_as_of_the_last(trained: Recommender) -> None:
    once = trained.recommend_for_history([4, 6, 2], k=5, explain=3)
    assert trained.recommend_for_history([2, 4, 2, 6, 2], k=5, explain=3) == once
    changed = trained.recommend_for_history([3, 2, 4], history_ratings=[5, 5, 5], k=5)
    again = trained.recommend_for_history([4, 3, 2, 4], history_ratings=[1, 5, 5, 5], k=5)
    assert again == changed


def test_a_batch_answers_like_single_queries(trained: Recommender) -> None:
    queries = [
        Query(user_id=3, k=4),
        Query(history=[2, 4, 6], k=7),
        Query(user_id="nobody"),
        Query(user_id=5, exclude_seen=False, genres=["War"]),
        Query(user_id=6, candidates=[1, 2, 3]),
    ]
    for query, ranking in zip(queries, trained.rank(queries), strict=True):
        alone = trained.rank([query])[0]
        assert ranking.item_ids == alone.item_ids
        assert ranking.scores == pytest.approx(alone.scores, abs=1e-5)
        assert ranking.cold_start == alone.cold_start


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"k": 0}, "k"),
        ({"k": 1001}, "k"),
        ({"k": True}, "k"),
        ({"k": 2.5}, "k"),
        ({"history": [1, 2], "history_ratings": [1.0]}, "history_ratings"),
        ({"history": [1], "history_ratings": [float("nan")]}, "history_ratings[0]"),
        ({"history_ratings": [1.0]}, "history_ratings"),
        ({"genres": ["Comedi"]}, "genres"),
        ({"year_from": 2000, "year_to": 1990}, "year_from"),
        ({"candidates": []}, "candidates"),
        ({"include_cold_items": 1}, "include_cold_items"),
        ({"explain": -1}, "explain"),
        ({"explain": 101}, "explain"),
        ({"explain": True}, "explain"),
        ({"explain": 2.0}, "explain"),
        ({"diversity": -0.1}, "diversity"),
        ({"diversity": 1.0001}, "diversity"),
        ({"diversity": float("nan")}, "diversity"),
        ({"diversity": "0.5"}, "diversity"),
        ({"diversity": True}, "diversity"),
    ],
)
def test_a_bad_query_names_its_field(trained: Recommender, options: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidQueryError) as caught:
        trained.recommend(1, **options)
    assert caught.value.field == field


def test_scores_are_probabilities_of_a_like(trained: Recommender, board_split: Split) -> None:
    test = board_split.test
    for user in range(1, 61):
        probabilities = trained.score(user, list(range(1, 41)))
        assert probabilities.shape == (40,)
        assert probabilities[user % 2 == 1 :: 2].shape == (20,)
        own = [item for item in range(1, 41) if item % 2 == user % 2]
        other = [item for item in range(1, 41) if item % 2 != user % 2]
        assert trained.score(user, own).mean() > 0.6 > 0.4 > trained.score(user, other).mean()
    assert len(test)


def test_scores_from_a_history_and_for_nobody(trained: Recommender) -> None:
    scores = trained.score_batch(
        [
            ScoreQuery(None, [10, 11], history=[2, 4, 6, 8, 12], history_ratings=[5, 5, 5, 5, 5]),
            ScoreQuery("nobody", [10]),
            ScoreQuery(1, ["11"]),
        ]
    )
    assert [len(part.probabilities) for part in scores] == [2, 1, 1]
    assert scores[0].probabilities[0] > scores[0].probabilities[1]
    assert [part.cold_start for part in scores] == [None, ColdStart.UNKNOWN_USER, None]
    with pytest.raises(UnknownItemError, match=r"item_ids\[1\]: unknown items: 'zz'") as caught:
        trained.score(1, [1, "zz"])
    assert caught.value.field == "item_ids[1]"


def test_item_facts(trained: Recommender) -> None:
    assert trained.item_titles([3, 2]) == ["Film 3", "Film 2"]
    assert trained.item_genres([3, 2]) == ["Drama|War", "Comedy"]
    assert trained.item_years([3]) == [1983]
    assert trained.describe()["items"] == 40


def frames(board: Dataset) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    train = board.interactions.to_frame().rename(columns={"user_id": "userId", "item_id": "movieId"})
    flags = pd.DataFrame(
        {
            "movieId": board.items["item_id"],
            "title": board.items["title"],
            "Comedy": (board.items["item_id"] % 2 == 0).astype(int),
            "Drama": (board.items["item_id"] % 2 == 1).astype(int),
        }
    )
    return train, board.users.rename(columns={"user_id": "userId"}), flags


SMALL = {"ranking_epochs": 10, "ranking_hidden": 16, "ranking_dim": 8, "learning_rate": 1e-2, "device": "cpu"}


def test_build_and_train_from_data_frames(board: Dataset) -> None:
    train, user_stats, movie_features = frames(board)
    recommender = Recommender.build_and_train(
        train, user_stats, movie_features, ["Comedy", "Drama"], epochs=5, batch_size=128, **SMALL
    )
    ranking = recommender.recommend(2, k=3)
    assert all(item % 2 == 0 for item in ranking.item_ids)
    assert recommender.item_genres([1, 2]) == ["Drama", "Comedy"]
    assert recommender.about["validation"]["auc"] > 0.9


def test_build_and_train_from_likes_alone(board: Dataset) -> None:
    train, _, _ = frames(board)
    labelled = train.assign(liked=(train["rating"] >= 4).astype(int)).drop(columns=["rating", "timestamp"])
    recommender = Recommender.build_and_train(labelled, epochs=3, batch_size=128, **SMALL)
    assert all(item % 2 == 0 for item in recommender.recommend(2, k=3).item_ids)


def test_build_and_train_says_what_is_wrong(board: Dataset) -> None:
    train, _, movie_features = frames(board)
    with pytest.raises(DataNotFoundError, match="train_data has none of the columns user_id"):
        Recommender.build_and_train(train.drop(columns="userId"))
    with pytest.raises(ConfigError, match="no setting 'epoch'"):
        Recommender.build_and_train(train, epoch=3)
    with pytest.raises(DataNotFoundError, match="no column 'Horror' of all_genres"):
        Recommender.build_and_train(train, None, movie_features, ["Horror"])
    with pytest.raises(InvalidRowsError, match=r"row 0: rating is missing"):
        Recommender.build_and_train(train.assign(rating=float("nan")))
    with pytest.raises(InvalidRowsError, match=r"row 0: rating 'yes' is not a number"):
        Recommender.build_and_train(train.drop(columns="rating").assign(liked="yes"))


def test_what_data_frames_say_of_items_is_read_as_files_are(board: Dataset) -> None:
    train, _, _ = frames(board)
    odd = pd.DataFrame(
        {
            "movieId": [1, 2, 3],
            "year": [float("inf"), 1e20, 1999.0],
            "Comedy": [1, None, 0],
            "Drama": ["0", "1", ""],
        }
    )
    _, data, _ = prepare(train, None, odd, ["Comedy", "Drama"], {})
    assert data.items["year"].tolist() == [0, 0, 1999]
    assert data.items["genres"].tolist() == ["Comedy", "Drama", ""]
    lists = pd.DataFrame({"movieId": [1, 2, 3], "genres": [["Comedy", "Drama"], [], None]})
    _, data, _ = prepare(train, None, lists, None, {})
    assert data.items["genres"].tolist() == ["Comedy|Drama", "", ""]
