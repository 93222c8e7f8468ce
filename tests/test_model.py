from __future__ import annotations

import pytest
import torch
from boards import small_config

from widedeep import Recommender, WideDeepNet, like_head
from widedeep.datasets import Dataset
from widedeep.features import FeatureProcessor
from widedeep.histories import Histories
from widedeep.split import Split


def fresh(board: Dataset, board_split: Split) -> tuple[WideDeepNet, Histories]:
    processor = FeatureProcessor.fit(board_split.train, board.items, board.users, 4.0)
    encoded = processor.encode(board_split.train)
    net = WideDeepNet.for_data(small_config().model, processor, encoded)
    return net.eval(), Histories.from_encoded(encoded, processor.user_count)


def test_popularity_is_the_training_likes(board: Dataset, board_split: Split) -> None:
    net, histories = fresh(board, board_split)
    likes = histories.only_liked().multi_hot(net.item_count).sum(0)
    assert torch.equal(net.popularity, likes)


def test_a_history_without_likes_is_ranked_by_popularity(trained: Recommender) -> None:
    net = trained.net
    disliked = Histories.from_lists([[1, 2], []], [[False, False], []], [[1.0, 1.0], []])
    scores = net.rank_scores(torch.tensor([0, 0]), disliked)
    warm = slice(1, net.warm_count + 1)
    for row in scores:
        assert torch.equal(row[warm].argsort(stable=True), net.popularity[warm].argsort(stable=True))


def test_scores_are_standardised_over_the_catalogue(trained: Recommender) -> None:
    net = trained.net
    for part in ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0)):  # each alone
        net.deep_share.fill_(part[0])
        net.factor_share.fill_(part[1])
        scores = net.rank_scores(torch.arange(1, 5), trained.histories.take(torch.arange(1, 5)))
        warm = scores[:, 1 : net.warm_count + 1]
        torch.testing.assert_close(warm.mean(1), torch.zeros(4), atol=1e-5, rtol=0)
        torch.testing.assert_close(warm.std(1, correction=0), torch.ones(4), atol=1e-5, rtol=0)
    net.deep_share.fill_(trained.chosen.deep_share)
    net.factor_share.fill_(trained.chosen.factor_share)


def test_a_batch_scores_like_its_single_rows(trained: Recommender) -> None:
    users = torch.tensor([3, 0, 17, 3])
    together = trained.net.rank_scores(users, trained.histories.take(users))
    for row, user in enumerate(users):
        alone = trained.net.rank_scores(user[None], trained.histories.take(user[None]))
        torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=1e-5)


def test_blocks_change_no_score(trained: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    users = torch.arange(20)
    histories = trained.histories.take(users)
    whole = trained.net.rank_scores(users, histories)
    monkeypatch.setattr("widedeep.model.CACHED_SCORES", 3 * trained.net.item_count)
    torch.testing.assert_close(trained.net.rank_scores(users, histories), whole, atol=1e-5, rtol=1e-5)


def test_blocks_change_no_probability(trained: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    net = trained.net
    pairs = torch.cartesian_prod(torch.arange(net.user_count), torch.arange(net.item_count)).int()
    totals = net.totals(trained.histories)
    whole = net.like_logits(pairs[:, 0], pairs[:, 1], pairs[:, 0], totals)
    calls: list[int] = []
    hook = net.like.perceptron.register_forward_pre_hook(lambda _, given: calls.append(len(given[0])))
    monkeypatch.setattr(like_head, "BLOCK", 1000)
    found = net.like_logits(pairs[:, 0], pairs[:, 1], pairs[:, 0], totals)
    hook.remove()
    assert calls[:-1] == [1000] * (len(pairs) // 1000)
    assert sum(calls) == len(pairs)
    torch.testing.assert_close(found, whole)


def test_the_ranking_score_is_the_mixture_of_its_standardised_parts(trained: Recommender) -> None:
    net, users = trained.net, torch.arange(1, 9)
    reading = net.read(trained.histories.take(users))
    shares = (float(net.deep_share), float(net.factor_share))
    net.deep_share.fill_(0.6)
    net.factor_share.fill_(0.25)
    found = net.rank_scores(users, trained.histories.take(users)).double()
    net.deep_share.fill_(shares[0])
    net.factor_share.fill_(shares[1])
    expected = torch.zeros_like(found)
    for weight, part in (
        (0.4, net.wide.scores(reading.liked, reading.weights)),
        (0.6 * 0.25, net.factors.scores(reading.liked, reading.weights)),
        (0.6 * 0.75, net.deep_logits(users, reading)),
    ):
        warm = part[:, 1 : net.warm_count + 1].double()
        expected += (
            weight * (part.double() - warm.mean(1, keepdim=True)) / warm.std(1, correction=0, keepdim=True)
        )
    read = reading.liked.lengths > 0
    assert read.any()
    torch.testing.assert_close(found[read], expected[read], atol=1e-4, rtol=1e-4)


def test_a_cold_item_has_no_embedding_of_its_own(trained: Recommender) -> None:
    net = trained.net
    cold = net.warm_count + 1
    users, items = torch.tensor([1]), torch.tensor([cold])
    before = net.like_logits(users, items, users, net.totals(trained.histories))
    kept = net.like.item.weight.data[cold].clone()
    net.like.item.weight.data[cold] += 100
    assert torch.equal(net.like_logits(users, items, users, net.totals(trained.histories)), before)
    net.like.item.weight.data[cold] = kept


def test_user_attributes_reach_both_heads(trained: Recommender) -> None:
    net = trained.net
    net.deep_share.fill_(0.5)
    net.factor_share.fill_(0.5)
    one = torch.tensor([1])
    history = trained.histories.take(one)
    ranking = net.rank_scores(one, history)
    likes = net.like_logits(one, torch.tensor([3]), torch.tensor([0]), net.totals(history))
    kept = net.user_features.clone()
    net.user_features[1] += 3.0
    assert not torch.equal(net.rank_scores(one, history), ranking)
    assert not torch.equal(
        net.like_logits(one, torch.tensor([3]), torch.tensor([0]), net.totals(history)), likes
    )
    net.user_features.copy_(kept)
    net.deep_share.fill_(trained.chosen.deep_share)
    net.factor_share.fill_(trained.chosen.factor_share)
