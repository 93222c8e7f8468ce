"""Items without interactions: ranked by what is like them, only when asked for, and better than by chance."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from boards import checkerboard, small_config

from widedeep import Query, Recommender
from widedeep.cold import NEIGHBOURS, ColdItems
from widedeep.datasets import Dataset
from widedeep.interactions import Interactions

COLD = list(range(101, 121))


@pytest.fixture(scope="module")
def half_known() -> Recommender:
    """The checkerboard, and 20 films that nobody has seen: even ones comedies, odd ones dramas as ever."""
    board = checkerboard()
    new = pd.DataFrame({"item_id": COLD, "title": [f"New {item}" for item in COLD]})
    new["genres"] = np.where(new["item_id"] % 2 == 0, "Comedy", "Drama|War")
    new["year"] = (1980 + new["item_id"] % 30).astype(np.int32)
    items = pd.concat([board.items, new], ignore_index=True)
    data = Dataset(board.name, board.interactions, items, board.users, "test", board.digest, (), None)
    recommender, _ = Recommender.fit(small_config(), data, board.interactions, chosen=None)
    return recommender


def test_only_when_asked(half_known: Recommender) -> None:
    without = half_known.recommend(1, k=1000, exclude_seen=False)
    assert set(without.item_ids) == set(range(1, 41))
    everything = half_known.recommend(1, k=1000, exclude_seen=False, include_cold_items=True)
    assert set(everything.item_ids) == {*range(1, 43), *COLD}
    assert np.isfinite(everything.scores).all()
    warm = [item for item in everything.item_ids if item <= 40]
    assert warm == without.item_ids
    assert everything.scores == sorted(everything.scores, reverse=True)


def test_the_right_kind_comes_first(half_known: Recommender) -> None:
    for user in range(1, 61):
        ranking = half_known.recommend(user, k=10, candidates=COLD)
        assert all(item % 2 == user % 2 for item in ranking.item_ids)
        together = half_known.recommend(user, k=1000, include_cold_items=True, exclude_seen=False).item_ids
        place = {item: position for position, item in enumerate(together)}
        for cold in COLD:  # above the middle of the catalogue if they are of the kind that is liked
            assert (place[cold] < len(together) / 2) == (cold % 2 == user % 2)


def test_filters_hold_for_them_too(half_known: Recommender) -> None:
    found = half_known.recommend(
        1, k=1000, include_cold_items=True, genres=["Comedy"], year_from=2000, exclude_items=[110]
    ).item_ids
    assert {110, 112} & set(found) == {112}
    assert all(item % 2 == 0 for item in found)


def test_their_own_weights_are_not_read(half_known: Recommender) -> None:
    before = half_known.recommend(1, k=30, candidates=COLD)
    state = {name: value.clone() for name, value in half_known.net.deep.state_dict().items()}
    generator = torch.Generator().manual_seed(1)
    for value in half_known.net.deep.state_dict().values():
        if len(value) == half_known.net.item_count:
            noise = torch.randn(value[half_known.net.warm_count + 1 :].shape, generator=generator)
            value[half_known.net.warm_count + 1 :] += noise
    after = half_known.recommend(1, k=30, candidates=COLD)
    half_known.net.deep.load_state_dict(state)
    assert after.item_ids == before.item_ids
    assert after.scores == pytest.approx(before.scores, abs=1e-5)


def test_a_stranger_gets_what_is_like_the_popular(half_known: Recommender) -> None:
    ranking = half_known.recommend(None, k=1000, include_cold_items=True)
    assert ranking.cold_start is not None
    cold = [position for position, item in enumerate(ranking.item_ids) if item > 42]
    assert 0 < np.mean(cold) < len(ranking.item_ids) - 1


def test_they_are_explained_by_the_same_history(half_known: Recommender) -> None:
    ranking = half_known.recommend_for_history([2, 4, 6, 3], k=3, candidates=[104, 106, 108], explain=2)
    assert len(ranking.item_ids) == 3
    for reasons in ranking.reasons:
        assert reasons
        assert {reason.item_id for reason in reasons} <= {2, 4, 6}


def test_the_score_is_the_mean_of_the_neighbours() -> None:
    features = torch.tensor([[0.0], [1.0], [2.0], [9.0], [1.4], [8.0]])  # the unknown, three warm, two cold
    cold = ColdItems(features, warm_count=3)
    scores = torch.tensor([[9.0, 1.0, 2.0, 6.0, -5.0, -5.0]])
    cold.fill(scores)
    assert scores.tolist() == [[9.0, 1.0, 2.0, 6.0, 3.0, 3.0]], "fewer than there are neighbours: all of them"
    many = torch.cat([torch.zeros(1, 1), torch.arange(100.0)[:, None], torch.tensor([[70.2]])])
    cold = ColdItems(many, warm_count=100)
    nearest = sorted(cold.neighbours[0].tolist())
    assert nearest == list(range(62, 62 + NEIGHBOURS))
    assert cold.sources(torch.tensor([5, 101])).shape == (2, NEIGHBOURS)
    assert cold.sources(torch.tensor([5, 7])).tolist() == [[5], [7]]


def test_equally_near_ones_are_taken_by_index() -> None:
    features = torch.ones(60, 3)
    assert ColdItems(features, 50).neighbours.tolist() == [list(range(1, NEIGHBOURS + 1))] * 9


def test_without_cold_items_nothing_changes() -> None:
    board = checkerboard()
    known = board.items[board.items["item_id"] <= 40]
    data = Dataset(board.name, board.interactions, known, board.users, "test", board.digest, (), None)
    recommender, _ = Recommender.fit(
        small_config(epochs=1, ranking_epochs=2), data, board.interactions, chosen=None
    )
    one, other = recommender.rank([Query(user_id=1), Query(user_id=1, include_cold_items=True, explain=1)])
    assert one.item_ids == other.item_ids
    assert one.scores == other.scores


def test_withheld_films_of_movielens(real_data: object) -> None:
    """Films that half of the model's work never saw: better than chance for those who liked them."""
    from widedeep import DataConfig, ModelConfig, TrainConfig, datasets
    from widedeep.config import Config

    config = Config(
        data=DataConfig(dataset="ml-latest-small", data_dir=str(real_data)),
        model=ModelConfig(deep_share=0.0, recency=0.0),
        train=TrainConfig(epochs=0, ranking_epochs=0, device="cpu"),
    )
    data = datasets.load(config.data)
    generator = np.random.default_rng(0)
    films = np.unique(data.interactions.item_id)
    withheld = generator.choice(films, len(films) // 10, replace=False)
    hidden = np.isin(data.interactions.item_id, withheld)
    recommender, _ = Recommender.fit(config, data, data.interactions.take(~hidden))
    liked = data.interactions.take(hidden & data.interactions.liked(4.0))
    assert mean_auc(recommender, liked, withheld.tolist()) > 0.65


def mean_auc(recommender: Recommender, liked: Interactions, candidates: list[int]) -> float:
    """How often a liked film stands above one that was not, per user."""
    users = np.unique(liked.user_id)
    rankings = recommender.rank([Query(user_id=user, k=1000, candidates=candidates) for user in users])
    found = []
    for user, ranking in zip(users, rankings, strict=True):
        mine = np.isin(ranking.item_ids, liked.item_id[liked.user_id == user])
        if 0 < mine.sum() < len(mine):
            above = (~mine).cumsum()[mine]
            found.append(1 - above.mean() / (~mine).sum())
    return float(np.mean(found))
