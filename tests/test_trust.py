"""Can the figures be believed? Nothing of the test part reaches a model, and others count as we do."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import pytrec_eval
import torch
from boards import small_config

from widedeep import DataConfig, Recommender
from widedeep.baselines import tune_baselines
from widedeep.datasets import Dataset
from widedeep.evaluation import evaluate, user_keys
from widedeep.histories import Encoded, Histories
from widedeep.interactions import Interactions, concatenate
from widedeep.rankings import Targets, rank_users
from widedeep.report import Report
from widedeep.split import Split, split

USERS, WARM, COLD = 400, 120, 3


class Table:
    """A random order of the items for each user."""

    name = "table"

    def __init__(self, users: int, items: int) -> None:
        generator = torch.Generator().manual_seed(5)
        self.scores = torch.rand(users, items, generator=generator).argsort(1).float()

    def rank_scores(self, user_index: torch.Tensor, histories: Histories) -> torch.Tensor:
        assert len(histories) == len(user_index)
        return self.scores[user_index.long()]


def _rows(generator: np.random.Generator, items_of_user: list[np.ndarray]) -> Encoded:
    users = np.repeat(np.arange(1, USERS + 1), [len(items) for items in items_of_user])
    liked = generator.random(len(users)) < 0.7
    return Encoded(
        torch.from_numpy(users).int(),
        torch.from_numpy(np.concatenate(items_of_user)).int(),
        torch.from_numpy(np.where(liked, 5.0, 1.0)).float(),
        torch.from_numpy(liked),
        torch.arange(len(users)),
    )


def _judged(cold: int) -> tuple[Report, Histories, Encoded, Table]:
    """A random ranker on random data; of the test items `cold` cannot be recommended."""
    generator = np.random.default_rng(3)
    orders = [generator.permutation(np.arange(1, WARM + 1 + cold)) for _ in range(USERS)]
    warm = [order[order <= WARM] for order in orders]
    sizes = generator.integers(5, 40, USERS)
    seen = [items[:size] for items, size in zip(warm, sizes, strict=True)]
    held = [order[~np.isin(order, own)][:25] for order, own in zip(orders, seen, strict=True)]
    train = Histories.from_encoded(_rows(generator, seen), USERS + 1)
    test = _rows(generator, held)
    ranker = Table(USERS + 1, WARM + 1 + cold)
    report = evaluate(
        ranker,
        train=train,
        test=test,
        test_users=test.user_index,
        item_count=WARM + 1 + cold,
        warm_count=WARM,
        bootstrap=0,
    )
    return report, train, test, ranker


def test_the_ranking_metrics_are_those_of_trec_eval() -> None:
    report, train, test, ranker = _judged(cold=COLD)
    relevant: dict[str, dict[str, int]] = {}
    ranked: dict[str, dict[str, float]] = {}
    for user, item in zip(
        test.user_index[test.liked].tolist(), test.item_index[test.liked].tolist(), strict=True
    ):
        relevant.setdefault(str(user), {})[str(item)] = 1
    for user in map(int, relevant):
        seen = set(train.take(torch.tensor([user])).item_index.tolist())
        scores = ranker.scores[user].tolist()
        ranked[str(user)] = {str(item): scores[item] for item in range(1, WARM + 1) if item not in seen}
    evaluator = pytrec_eval.RelevanceEvaluator(
        relevant, {"ndcg_cut.10", "recall.10,20", "success.10", "recip_rank"}
    )
    theirs = pd.DataFrame(evaluator.evaluate(ranked)).T
    theirs.index = theirs.index.astype(int)
    names = {
        "ndcg_at_10": "ndcg_cut_10",
        "recall_at_10": "recall_10",
        "recall_at_20": "recall_20",
        "hit_rate_at_10": "success_10",
        "mrr": "recip_rank",
    }
    assert any(int(item) > WARM for items in relevant.values() for item in items)  # some cannot be reached
    assert len(theirs) == report.users > 300
    for ours, name in names.items():
        found = theirs[name].reindex(report.per_user.index)
        np.testing.assert_allclose(report.per_user[ours], found, atol=1e-6, rtol=0)
        assert report.metrics[ours].value == pytest.approx(theirs[name].mean(), abs=1e-6)


def test_a_random_order_scores_what_theory_says() -> None:
    """Within four standard errors of each mean, which a right implementation leaves once in 16,000."""
    report, train, _, _ = _judged(cold=0)
    values = report.per_user
    candidates = WARM - values["history"].to_numpy()
    assert (values["history"] == train.lengths[values.index.to_numpy()].numpy()).all()
    relevant = values["relevant"].to_numpy()
    gain = np.array([1 / math.log2(place + 1) for place in range(1, 11)])
    ideal = np.array([gain[: min(10, count)].sum() for count in relevant])
    misses = [
        math.comb(n - r, 10) / math.comb(n, 10) for n, r in zip(candidates, relevant, strict=True)
    ]  # no relevant item among ten drawn
    first = [
        sum(math.comb(n - place, r - 1) / place for place in range(1, n - r + 2)) / math.comb(n, r)
        for n, r in zip(candidates.tolist(), relevant.tolist(), strict=True)
    ]
    theory = {
        "ndcg_at_10": relevant / candidates * gain.sum() / ideal,
        "recall_at_10": 10 / candidates,
        "recall_at_20": 20 / candidates,
        "hit_rate_at_10": 1 - np.array(misses),
        "mrr": np.array(first),
    }
    for name, expected in theory.items():
        off = values[name].to_numpy() - expected
        assert abs(off.mean()) < 4 * off.std(ddof=1) / math.sqrt(len(off)), name
        assert off.std() > 0


def _with_test_ratings(board: Dataset, parts: Split, ratings: np.ndarray) -> Dataset:
    """The same rows in the same order, with other ratings in the test part."""
    rows = board.interactions
    assert rows.rating is not None
    test = set(zip(parts.test.user_id.tolist(), parts.test.item_id.tolist(), strict=True))
    held = np.array([pair in test for pair in zip(rows.user_id.tolist(), rows.item_id.tolist(), strict=True)])
    rating = rows.rating.copy()
    rating[held] = ratings
    interactions = dataclasses.replace(rows, rating=rating)
    return dataclasses.replace(board, interactions=interactions, digest=interactions.digest())


def _whole_path(dataset: Dataset, parts: Split) -> tuple[dict[str, torch.Tensor], list[object]]:
    """Choose on validation, tune the baselines, fit again: the weights, and everything else that came of it."""
    config = small_config(epochs=2, ranking_epochs=3)
    _, selected = Recommender.fit(config, dataset, parts.train, parts.validation)
    before = concatenate([parts.train, parts.validation])
    recommender, _ = Recommender.fit(config, dataset, before, chosen=selected.chosen)
    processor = recommender.processor
    tuned = tune_baselines(
        Histories.from_encoded(processor.encode(parts.train), processor.user_count),
        processor.encode(parts.validation),
        validation_users=user_keys(parts.validation.user_id)[0],
        item_count=processor.item_count,
        warm_count=processor.warm_count,
        refit_on=recommender.histories,
    )
    targets = Targets.of(processor.encode(parts.test), user_keys(parts.test.user_id)[0])
    lists = [
        rank_users(
            ranker,
            targets,
            recommender.histories,
            item_count=processor.item_count,
            warm_count=processor.warm_count,
        ).top.tolist()
        for ranker in (recommender, *(found.baseline for found in tuned))
    ]
    rest = [selected.chosen, selected.curves, [found.to_dict() for found in tuned], lists]
    return dict(recommender.net.state_dict()), rest


def test_test_labels_change_nothing_before_the_evaluation(board: Dataset, board_split: Split) -> None:
    ratings = board_split.test.rating
    assert ratings is not None
    permuted = np.random.default_rng(0).permutation(ratings)
    assert (permuted != ratings).any()
    weights, rest = _whole_path(board, board_split)
    variants = [
        _with_test_ratings(board, board_split, permuted),
        _with_test_ratings(board, board_split, np.full_like(ratings, 5.0)),
    ]
    for changed in variants:
        parts = split(changed.interactions, DataConfig())
        assert not np.array_equal(parts.test.rating, ratings)
        _assert_same(_whole_path(changed, parts), (weights, rest))
    without = concatenate([board_split.train, board_split.validation])
    _assert_same(_whole_path(_only(board, without), board_split), (weights, rest))


def _only(board: Dataset, rows: Interactions) -> Dataset:
    return dataclasses.replace(board, interactions=rows, digest=rows.digest())


def _assert_same(
    found: tuple[dict[str, torch.Tensor], list[object]],
    expected: tuple[dict[str, torch.Tensor], list[object]],
) -> None:
    assert found[0].keys() == expected[0].keys()
    for name, weight in expected[0].items():
        assert torch.equal(found[0][name], weight), name
    assert found[1] == expected[1]


def test_training_labels_do_change_the_model(board: Dataset, board_split: Split) -> None:
    """So that the test above can fail."""
    config = small_config(epochs=1, ranking_epochs=1)
    rating = board_split.train.rating
    assert rating is not None
    shuffled = np.random.default_rng(0).permutation(rating)
    one, other = (
        Recommender.fit(config, board, rows)[0].net.state_dict()
        for rows in (board_split.train, dataclasses.replace(board_split.train, rating=shuffled))
    )
    assert any(not torch.equal(one[name], other[name]) for name in one)
