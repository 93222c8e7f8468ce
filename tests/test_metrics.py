import math

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import ndcg_score, roc_auc_score

from widedeep import metrics


def _lists(users: int = 60, items: int = 50, seed: int = 0):
    """Random scores without ties and random relevance, one relevant item per user at least."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(users, items, generator=generator, dtype=torch.float64)
    relevant = torch.rand(users, items, generator=generator) < 0.15
    relevant[torch.arange(users), torch.randint(items, (users,), generator=generator)] = True
    hits = relevant.gather(1, scores.argsort(dim=1, descending=True))
    return scores, relevant, hits, relevant.sum(1)


@pytest.mark.parametrize("k", [1, 3, 10, 50])
def test_ndcg_is_that_of_scikit_learn(k):
    scores, relevant, hits, count = _lists()
    expected = ndcg_score(relevant.numpy(), scores.numpy(), k=k)
    assert float(metrics.ndcg_at_k(hits, count, k).mean()) == pytest.approx(expected, abs=1e-6)
    one = ndcg_score(relevant[:1].numpy(), scores[:1].numpy(), k=k)
    assert float(metrics.ndcg_at_k(hits, count, k)[0]) == pytest.approx(one, abs=1e-6)


def test_values_worked_by_hand():
    hits = torch.tensor([[False, True, False, True], [False, False, False, False], [True, True, True, True]])
    count = torch.tensor([3, 1, 9])
    ideal = 1 + 1 / math.log2(3) + 1 / 2
    assert metrics.ndcg_at_k(hits, count, 4).tolist() == pytest.approx(
        [(1 / math.log2(3) + 1 / math.log2(5)) / ideal, 0, 1]
    )
    assert metrics.recall_at_k(hits, count, 4).tolist() == pytest.approx([2 / 3, 0, 4 / 9])
    assert metrics.recall_at_k_capped(hits, count, 4).tolist() == pytest.approx([2 / 3, 0, 1])
    assert metrics.recall_at_k(hits, count, 2).tolist() == pytest.approx([1 / 3, 0, 2 / 9])
    assert metrics.hit_rate_at_k(hits, count, 1).tolist() == [0, 0, 1]
    assert metrics.hit_rate_at_k(hits, count, 2).tolist() == [1, 0, 1]


def test_items_that_cannot_be_recommended_lower_the_figures():
    hits = torch.tensor([[True, False]])
    reachable, all_of_them = torch.tensor([1]), torch.tensor([2])
    assert metrics.ndcg_at_k(hits, reachable, 2).item() == 1
    assert metrics.ndcg_at_k(hits, all_of_them, 2).item() == pytest.approx(1 / (1 + 1 / math.log2(3)))
    assert metrics.recall_at_k(hits, all_of_them, 2).item() == 0.5


def test_a_list_shorter_than_k_ends_in_misses():
    hits = torch.tensor([[True, False]])
    count = torch.tensor([3])
    ideal = sum(1 / math.log2(rank + 1) for rank in (1, 2, 3))
    assert metrics.ndcg_at_k(hits, count, 10).item() == pytest.approx(1 / ideal)
    assert metrics.recall_at_k(hits, count, 10).item() == pytest.approx(1 / 3)


def test_users_without_relevant_items_are_nan():
    hits, count = torch.zeros(1, 5, dtype=torch.bool), torch.tensor([0])
    for metric in (
        metrics.ndcg_at_k,
        metrics.recall_at_k,
        metrics.recall_at_k_capped,
        metrics.hit_rate_at_k,
    ):
        assert metric(hits, count, 5).isnan().all()
    assert metrics.mrr(torch.tensor([0]), count).isnan().all()


def test_k_below_one_is_refused():
    hits, count = torch.zeros(1, 5, dtype=torch.bool), torch.tensor([1])
    for metric in (metrics.ndcg_at_k, metrics.recall_at_k, metrics.hit_rate_at_k):
        with pytest.raises(ValueError, match="k must be 1 or more"):
            metric(hits, count, 0)


def test_mrr():
    rank = metrics.mrr(torch.tensor([1, 4, 0]), torch.tensor([2, 1, 1]))
    assert rank.tolist() == [1, 0.25, 0]


def test_coverage_counts_distinct_items_of_the_first_k():
    ranked = torch.tensor([[3, 5, 7], [5, 3, 8], [4, 0, 0]])
    assert metrics.coverage_at_k(ranked, 10, 2).item() == pytest.approx(0.3)
    assert metrics.coverage_at_k(ranked, 10, 3).item() == pytest.approx(0.5)
    with pytest.raises(ValueError, match="candidates"):
        metrics.coverage_at_k(ranked, 0, 3)


def test_novelty_is_the_mean_self_information_of_the_list():
    information = metrics.self_information(torch.tensor([0, 8, 4, 1, 0]), 8)
    assert information.tolist() == [3, 0, 1, 3, 3]
    ranked = torch.tensor([[1, 2, 3], [4, 0, 0], [0, 0, 0]])
    novelty = metrics.novelty_at_k(ranked, information, 2)
    assert novelty[:2].tolist() == [0.5, 3]
    assert novelty[2].isnan()
    with pytest.raises(ValueError, match="k must be 1 or more"):
        metrics.novelty_at_k(ranked, information, 0)


def test_diversity_is_the_mean_jaccard_distance_of_those_with_genres(monkeypatch):
    genres = torch.tensor([[0, 0, 0], [1, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0]]).bool()
    ranked = torch.tensor([[1, 2, 0, 0], [1, 3, 4, 0], [1, 4, 5, 2], [1, 5, 0, 0], [0, 0, 0, 0]])
    expected = [0, (1 / 2 + 1 + 1) / 3, (1 + 1 + 0) / 3]
    for block in (8192, 2):
        monkeypatch.setattr(metrics, "BLOCK_USERS", block)
        found = metrics.diversity_at_k(ranked, genres, 4)
        assert found[:3].tolist() == pytest.approx(expected)
        assert found[3:].isnan().all()
    assert metrics.diversity_at_k(ranked, genres, 2)[1].item() == 0.5
    assert metrics.diversity_at_k(ranked, genres[:, :0], 4).isnan().all()


@pytest.mark.parametrize("levels", [5, 10**9])  # many ties, and none
def test_auc_is_that_of_scikit_learn(levels):
    generator = np.random.default_rng(1)
    score = generator.integers(levels, size=3000) / levels
    positive = generator.random(3000) < 0.3 + 0.4 * score
    found = metrics.auc(torch.from_numpy(score), torch.from_numpy(positive))
    assert float(found) == pytest.approx(roc_auc_score(positive, score), abs=1e-6)


def test_auc_of_the_perfect_the_reversed_and_the_indifferent():
    positive = torch.tensor([True, True, False, False])
    assert metrics.auc(torch.tensor([4.0, 3.0, 2.0, 1.0]), positive).item() == 1
    assert metrics.auc(torch.tensor([1.0, 2.0, 3.0, 4.0]), positive).item() == 0
    assert metrics.auc(torch.ones(4), positive).item() == 0.5
    assert metrics.auc(torch.ones(4), torch.ones(4, dtype=torch.bool)).isnan()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_loss_is_that_of_scikit_learn(dtype):
    generator = torch.Generator().manual_seed(2)
    probability = torch.rand(2000, generator=generator, dtype=dtype)
    probability[:2] = torch.tensor([0.0, 1.0])
    positive = torch.rand(2000, generator=generator) < 0.5
    expected = sklearn_log_loss(positive.numpy(), probability.numpy())
    assert float(metrics.log_loss(probability, positive)) == pytest.approx(expected, abs=1e-6)


def test_calibration_error_by_hand():
    # Bins of a half: 0.2 and 0.4 promised with one like of two, 0.5 and 1.0 promised with two of two.
    probability = torch.tensor([0.2, 0.4, 0.5, 1.0])
    positive = torch.tensor([True, False, True, True])
    expected = (abs(0.6 - 1) + abs(1.5 - 2)) / 4
    assert float(metrics.calibration_error(probability, positive, bins=2)) == pytest.approx(expected)
    curve = metrics.reliability_bins(probability, positive, bins=2)
    assert curve.count.tolist() == [2, 2]
    assert curve.mean_probability.tolist() == pytest.approx([0.3, 0.75])
    assert curve.positive_rate.tolist() == [0.5, 1.0]
    assert curve.high.tolist() == [0.5, 1.0]


def test_calibration_error_tells_the_calibrated_from_the_boastful():
    generator = torch.Generator().manual_seed(3)
    truth = torch.rand(50_000, generator=generator)
    positive = torch.rand(50_000, generator=generator) < truth
    assert float(metrics.calibration_error(truth, positive)) < 0.01
    boastful = (truth - 0.5).sign() * (truth - 0.5).abs().sqrt() * 0.5**0.5 + 0.5
    assert float(metrics.calibration_error(boastful, positive)) > 0.05


def test_empty_bins_are_nan_and_cost_nothing():
    curve = metrics.reliability_bins(torch.tensor([0.1]), torch.tensor([True]), bins=4)
    assert curve.count.tolist() == [1, 0, 0, 0]
    assert curve.positive_rate.isnan().tolist() == [False, True, True, True]
    assert float(
        metrics.calibration_error(torch.tensor([0.1]), torch.tensor([True]), bins=4)
    ) == pytest.approx(0.9)
