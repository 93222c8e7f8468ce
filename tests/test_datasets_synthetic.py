"""Made-up data: its sizes, its seed, and that its planted truth is the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from widedeep import datasets, split
from widedeep.config import DataConfig
from widedeep.datasets import Dataset, synthetic
from widedeep.errors import ConfigError


@pytest.fixture(scope="module")
def usual() -> Dataset:
    return datasets.load(DataConfig(dataset="synthetic"))


def test_shape_types_and_no_duplicates(usual: Dataset) -> None:
    rows = usual.interactions
    assert len(rows) == 60_000
    assert rows.user_id.dtype == rows.item_id.dtype == np.int32
    assert (rows.user_id.min(), rows.user_id.max()) == (1, 1000)
    assert rows.item_id.min() >= 1
    assert rows.item_id.max() <= 800
    assert len(np.unique(rows.user_id * 1000 + rows.item_id)) == len(rows)
    assert rows.rating is not None
    assert set(np.unique(rows.rating * 2)) <= set(range(1, 11))
    assert 0.45 <= rows.liked(4.0).mean() <= 0.6
    assert rows.timestamp is not None
    assert rows.timestamp.min() > 1_262_000_000
    assert rows.timestamp.max() < 1_705_000_000
    assert len(usual.items) == 800
    assert len(usual.users) == 1000


def test_items_and_users_have_features(usual: Dataset) -> None:
    assert usual.items["title"][11] == f"Item 12 ({usual.items['year'][11]})"
    assert usual.items["year"].between(1900, 2024).all()
    assert all(set(genres.split("|")) <= set(synthetic.GENRES) for genres in usual.items["genres"])
    assert usual.users["age"].between(16, 90).all()
    assert set(usual.users["region"]) == set(synthetic.REGIONS)


def test_activity_and_popularity_are_skewed(usual: Dataset) -> None:
    per_user = np.bincount(usual.interactions.user_id)[1:]
    per_item = np.sort(np.bincount(usual.interactions.item_id, minlength=801)[1:])[::-1]
    assert per_user.min() >= 5
    assert per_user.max() > 4 * np.median(per_user)
    assert per_item[:80].sum() > 0.25 * per_item.sum()


def test_the_seed_decides() -> None:
    def digest(seed: int) -> str:
        return datasets.load(DataConfig(dataset="synthetic", data_seed=seed)).digest

    assert digest(3) == digest(3)
    assert digest(3) != digest(4)


@pytest.mark.parametrize(
    ("users", "items", "interactions"),
    [(2, 2, 4), (3, 50, 149), (50, 3, 70), (100, 40, 4), (7, 9, 63), (40, 400, 900)],
)
def test_any_size_gives_exactly_that_many(users: int, items: int, interactions: int) -> None:
    rows, item_frame, user_frame, _ = synthetic.generate(users, items, interactions, 0)
    assert len(rows) == interactions
    assert len(np.unique(rows.user_id * (items + 1) + rows.item_id)) == interactions
    assert (len(item_frame), len(user_frame)) == (items, users)
    assert rows.user_id.max() <= users
    assert rows.item_id.max() <= items


def test_more_interactions_than_pairs_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"5 interactions of 2 users and 2 items .* 4 pairs"):
        datasets.load(DataConfig(dataset="synthetic", users=2, items=2, interactions=5))


def withheld(data: Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(likes in train, seen in train, likes in test), each (users, items)."""
    cut = split.split(data.interactions, DataConfig(validation_fraction=0.0))
    masks = []
    for part, liked in ((cut.train, True), (cut.train, False), (cut.test, True)):
        rows = part.take(part.liked(4.0)) if liked else part
        mask = np.zeros((len(data.users), len(data.items)), dtype=np.float32)
        mask[rows.user_id - 1, rows.item_id - 1] = 1
        masks.append(mask)
    return masks[0], masks[1], masks[2]


def ndcg_at_10(scores: np.ndarray, seen: np.ndarray, relevant: np.ndarray) -> float:
    top = np.argsort(-np.where(seen > 0, -np.inf, scores), axis=1)[:, :10]
    gain = 1 / np.log2(np.arange(2, 12))
    found = (np.take_along_axis(relevant, top, axis=1) * gain).sum(axis=1)
    ideal = np.cumsum(gain)[np.minimum(relevant.sum(axis=1), 10).astype(int) - 1]
    return float((found / ideal)[relevant.sum(axis=1) > 0].mean())


def test_taste_beats_popularity_and_the_truth_beats_everything(usual: Dataset) -> None:
    likes, seen, relevant = withheld(usual)
    popular = ndcg_at_10(np.tile(likes.sum(axis=0), (len(likes), 1)), seen, relevant)
    inverse = np.linalg.inv(likes.T @ likes + 300 * np.eye(likes.shape[1], dtype=np.float32))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    ease = ndcg_at_10(likes @ weights, seen, relevant)
    assert usual.truth is not None
    best = ndcg_at_10(usual.truth.ranking_scores(np.arange(1, 1001)), seen, relevant)
    assert ease > 1.5 * popular
    assert best > 1.3 * ease


def test_the_like_probability_is_calibrated(usual: Dataset) -> None:
    rows = usual.interactions
    assert usual.truth is not None
    probability = usual.truth.like_probability(rows.user_id, rows.item_id)
    liked = rows.liked(4.0)
    for low in np.arange(0, 1, 0.1):
        bin_ = (probability >= low) & (probability < low + 0.1)
        assert abs(liked[bin_].mean() - probability[bin_].mean()) < 0.03


def test_the_ranking_score_is_the_log_chance_of_the_next_liked_item() -> None:
    """Draw one item for each of many users of one taste: how often it is a liked one of each item is known."""
    rng = np.random.default_rng(0)
    taste, items, users = rng.standard_normal(synthetic.TASTES) / 4, 6, 200_000
    truth = synthetic.Truth(
        np.tile(taste, (users, 1)).astype(np.float32),
        rng.standard_normal((items, synthetic.TASTES)).astype(np.float32),
        rng.standard_normal(items).astype(np.float32),
        rng.standard_normal(items).astype(np.float32),
        np.zeros(users, dtype=np.float32),
    )
    chosen = np.empty(users, dtype=np.int64)
    for who, index in synthetic._choose_dense(
        truth, np.ones(users, dtype=np.int64), np.random.default_rng(1)
    ):
        chosen[who] = index
    liked = synthetic._ratings(truth, np.arange(users), chosen, np.random.default_rng(2)) >= 4.0
    found = np.bincount(chosen[liked], minlength=items) / liked.sum()
    expected = np.exp(truth.ranking_scores(np.array([1]))[0])
    np.testing.assert_allclose(found, expected / expected.sum(), atol=0.006)


@pytest.mark.parametrize(("items", "interactions"), [(3000, 8000), (30, 3000)])
def test_many_users_and_items_are_made_alike_from_fewer_kinds_of_users(
    items: int, interactions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = DataConfig(dataset="synthetic", users=400, items=items, interactions=interactions)
    whole = datasets.load(config)
    monkeypatch.setattr(synthetic, "DENSE_PAIRS", 0)
    monkeypatch.setattr(synthetic, "KIND_PAIRS", 100 * items)
    by_kind = datasets.load(config)
    assert len(by_kind.interactions) == interactions
    scores = []
    for data in (whole, by_kind):
        assert data.truth is not None
        _, seen, relevant = withheld(data)
        scores.append(ndcg_at_10(data.truth.ranking_scores(np.arange(1, 401)), seen, relevant))
    assert scores[1] == pytest.approx(scores[0], rel=0.15)
    assert by_kind.truth is not None
    assert len(np.unique(by_kind.truth.user_taste, axis=0)) == pytest.approx(100, abs=10)
    assert by_kind.interactions.liked(4.0).mean() == pytest.approx(
        whole.interactions.liked(4.0).mean(), abs=0.04
    )


def test_the_normal_distribution_function() -> None:
    z = np.linspace(-6, 6, 49)
    expected = [0.5 * math.erfc(-value / math.sqrt(2)) for value in z]
    np.testing.assert_allclose(synthetic._above(z), expected, atol=2e-7)
