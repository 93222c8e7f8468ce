"""Reasons: exact for the wide side, and faithful to what happens when an item is taken out of the history."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from test_wide import random_histories

from widedeep import Query, Recommender
from widedeep.cold import ColdItems
from widedeep.explain import contributions
from widedeep.histories import Histories
from widedeep.wide import ItemWeights


@contextmanager
def settings(recommender: Recommender, **values: float) -> Iterator[None]:
    """With other values of the network's deep_share or recency."""
    buffers = {name: getattr(recommender.net, name) for name in values}
    kept = {name: float(buffer) for name, buffer in buffers.items()}
    try:
        for name, value in values.items():
            buffers[name].fill_(value)
        yield
    finally:
        for name, value in kept.items():
            buffers[name].fill_(value)


@pytest.mark.parametrize("users", [200, 12], ids=["dense", "product"])
@pytest.mark.parametrize("weighted", [False, True])
def test_contributions_sum_to_the_scores(users: int, weighted: bool) -> None:
    histories, _ = random_histories(users, 40, 0.3)
    fitted = ItemWeights.fit(histories, 40, 5.0, 0.2, 0.3)
    assert fitted.is_product == (users < 40)
    history = Histories.from_lists([[3, 20, 7, 11, 39]], [[True] * 5], [[5.0] * 5])  # 20 has no weights
    values = torch.tensor([1.0, 0.5, 0.25, 2.0, 0.1]) if weighted else None
    items = torch.arange(1, 40).flip(0)
    parts = fitted.contributions(history, items, values)
    assert parts.shape == (5, 39)
    torch.testing.assert_close(parts.sum(0), fitted.scores(history, values)[0, items], atol=1e-6, rtol=1e-5)
    assert (parts[1] == 0).all()
    own = [int((items == item).nonzero()) for item in (3, 7, 11, 39)]
    torch.testing.assert_close(parts[[0, 2, 3, 4], own], torch.zeros(4), atol=1e-6, rtol=0)
    assert parts.abs().sum() > 1


def test_a_contribution_is_the_cross_itself() -> None:
    """Each entry alone scores what it contributes to the whole."""
    for users in (200, 12):
        histories, _ = random_histories(users, 40, 0.3)
        fitted = ItemWeights.fit(histories, 40, 5.0)
        history = Histories.from_lists([[3, 7, 11]], [[True] * 3], [[5.0] * 3])
        alone = Histories.from_lists([[3], [7], [11]], [[True]] * 3, [[5.0]] * 3)
        parts = fitted.contributions(history, torch.arange(40))
        torch.testing.assert_close(parts, fitted.scores(alone), atol=1e-6, rtol=1e-5)


def test_nothing_to_explain() -> None:
    histories, _ = random_histories(200, 40, 0.3)
    fitted = ItemWeights.fit(histories, 40, 5.0)
    empty = Histories.from_lists([[]], [[]], [[]])
    assert fitted.contributions(empty, torch.arange(40)).shape == (0, 40)
    one = Histories.from_lists([[3]], [[True]], [[5.0]])
    assert fitted.contributions(one, torch.arange(0)).shape == (1, 0)
    assert ItemWeights(40).contributions(one, torch.arange(40)).tolist() == [[0.0] * 40]


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_wide_contributions_are_in_units_of_the_ranking_score(trained: Recommender, share: float) -> None:
    """Their sum is the wide side's part of the score, up to the centring: the same for all items."""
    net, user = trained.net, torch.tensor([3])
    history = trained.histories.take(user)
    items = torch.arange(1, net.warm_count + 1)
    cold = ColdItems(net.item_features, net.warm_count)
    with settings(trained, deep_share=share, recency=0.5), torch.inference_mode():
        _, wide, _ = contributions(net, cold, user, history, items)
        part = net.rank_scores(user, history) - net.deep_part(user, net.read(history))
        centring = wide.sum(0) - part[0, items]
        torch.testing.assert_close(centring, centring[0].expand(len(items)), atol=1e-5, rtol=0)
        assert wide.abs().max() > 0.01


def test_deep_contributions_are_what_the_score_loses(trained: Recommender) -> None:
    items = torch.tensor([5, 8, 9])
    ids = trained.processor.items.ids_of(items.numpy())
    liked = [2, 4, 6, 10, 12, 14]
    # Without recency: else the others' places change, too, when one is left out of a request.
    with settings(trained, deep_share=1.0, recency=0.0), torch.inference_mode():
        history = trained.inputs.users_and_histories([Query(history=liked)])[1]
        cold = ColdItems(trained.net.item_features, trained.net.warm_count)
        entries, wide, deep = contributions(trained.net, cold, torch.tensor([0]), history, items)
        assert not wide.any()
        with_all = trained.recommend_for_history(liked, candidates=ids, exclude_seen=False)
        for position in range(6):
            left = [item for item in liked if item != liked[position]]
            without = trained.recommend_for_history(left, candidates=ids, exclude_seen=False)
            before, after = (
                dict(zip(found.item_ids, found.scores, strict=True)) for found in (with_all, without)
            )
            expected = torch.tensor([before[item] - after[item] for item in ids])
            torch.testing.assert_close(deep[position], expected, atol=1e-4, rtol=1e-3)
    assert deep.abs().max() > 0.01
    assert trained.processor.items.ids_of(entries.numpy()) == liked


@pytest.mark.parametrize(
    ("alike", "other", "genre"), [([*range(2, 22, 2)], 3, "Comedy"), ([*range(1, 21, 2)], 4, "Drama")]
)
def test_the_reasons_are_of_the_same_parity(
    trained: Recommender, alike: list[int], other: int, genre: str
) -> None:
    """The checkerboard: even items are liked by those who like even ones, odd ones by the others."""
    ranking = trained.recommend_for_history([*alike, other], k=4, explain=3, genres=[genre])
    assert [len(reasons) for reasons in ranking.reasons] == [3] * 4
    for reasons in ranking.reasons:
        values = [reason.contribution for reason in reasons]
        assert values == sorted(values, reverse=True)
        assert values[-1] > 0
        assert {reason.item_id for reason in reasons} <= set(alike)


def test_reasons_are_given_as_asked(trained: Recommender) -> None:
    assert trained.recommend(1, k=3).reasons == []
    for options, length in (({"explain": 1}, 1), ({"explain": 100}, 24)):
        ranking = trained.recommend(1, k=3, **options)
        assert len(ranking.reasons) == 3
        assert all(1 <= len(reasons) <= length for reasons in ranking.reasons)
        assert ranking.item_ids == trained.recommend(1, k=3).item_ids
    assert trained.recommend(1, k=1000, explain=5, genres=["Comedy"], year_from=2050).reasons == []
    strangers = trained.recommend(None, k=3, explain=5)
    assert strangers.reasons == [[], [], []]
    disliked = trained.recommend_for_history([1, 2], history_ratings=[1, 1], k=2, explain=5)
    assert disliked.reasons == [[], []]


def test_only_likes_are_reasons(trained: Recommender) -> None:
    ranking = trained.recommend_for_history(
        [2, 4, 6, 8], history_ratings=[5, 1, 5, 5], k=5, explain=10, genres=["Comedy"]
    )
    named = {reason.item_id for reasons in ranking.reasons for reason in reasons}
    assert named == {2, 6, 8}


def test_a_batch_explains_like_single_queries(trained: Recommender) -> None:
    queries = [
        Query(user_id=3, k=4, explain=2),
        Query(user_id=4, k=2),
        Query(history=[2, 4, 42], k=3, explain=9, include_cold_items=True),
        Query(explain=3),
    ]
    for query, ranking in zip(queries, trained.rank(queries), strict=True):
        alone = trained.rank([query])[0]
        assert ranking.item_ids == alone.item_ids
        for ours, theirs in zip(ranking.reasons, alone.reasons, strict=True):
            assert [reason.item_id for reason in ours] == [reason.item_id for reason in theirs]
            assert [reason.wide for reason in ours] == pytest.approx(
                [reason.wide for reason in theirs], abs=1e-5
            )


def test_long_histories_are_explained_in_blocks(
    trained: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained.recommend(1, k=20, explain=100).reasons
    monkeypatch.setattr("widedeep.explain.BLOCK_SCORES", 3 * trained.net.item_count)
    monkeypatch.setattr("widedeep.explain.BLOCK_ITEMS", 7)
    for ours, theirs in zip(trained.recommend(1, k=20, explain=100).reasons, whole, strict=True):
        assert [reason.item_id for reason in ours] == [reason.item_id for reason in theirs]
        assert [reason.contribution for reason in ours] == pytest.approx(
            [reason.contribution for reason in theirs], abs=1e-5
        )
    monkeypatch.setattr("widedeep.explain.DEEP_ENTRIES", 2)
    assert any(trained.recommend(1, k=20, explain=100).reasons)
