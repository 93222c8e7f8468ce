"""Diversity: maximal marginal relevance, compared with its definition written as a loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from boards import checkerboard, small_config

from widedeep import Query, Recommender
from widedeep.datasets import Dataset
from widedeep.rerank import diversify, genre_vectors, pool_size, rerank


def by_the_definition(scores: list[float], vectors: np.ndarray, share: float, k: int) -> list[int]:
    relevance = (np.array(scores) - min(scores)) / (max(scores) - min(scores))
    left, chosen = list(range(len(scores))), []
    for _ in range(k):
        values = [
            (1 - share) * relevance[place]
            - share * float(np.mean([float(vectors[place] @ vectors[other]) for other in chosen] or [0.0]))
            for place in left
        ]
        chosen.append(left.pop(int(np.argmax(values))))
    return chosen


@pytest.mark.parametrize("share", [0.05, 0.3, 0.7, 1.0])
def test_the_definition(share: float) -> None:
    torch.manual_seed(0)
    scores = torch.randn(6, 30).sort(dim=1, descending=True).values
    vectors = F.normalize(torch.rand(6, 30, 4) + torch.rand(6, 30, 4).round(), dim=2)
    order = diversify(scores, vectors, torch.full((6,), 30), torch.full((6,), share), 8)
    for row in range(6):
        expected = by_the_definition(scores[row].tolist(), vectors[row].numpy(), share, 8)
        assert order[row].tolist() == expected
        assert order[row, 0] == 0


def test_only_the_pool_is_looked_at_and_each_row_has_its_own() -> None:
    scores = torch.arange(20.0, 0, -1).repeat(2, 1)
    vectors = F.normalize(torch.cat([torch.ones(15, 1), torch.zeros(5, 1)]).repeat(1, 2) + 0.0, dim=1)
    vectors[15:, 0] = 1.0  # the last five are unlike the rest
    order = diversify(
        scores, vectors.repeat(2, 1, 1), torch.tensor([10, 20]), torch.tensor([0.9, 0.9]), 3
    ).tolist()
    assert order[0] == [0, 1, 2]
    assert order[1][1] == 15


def test_places_without_an_item_come_last() -> None:
    scores = torch.tensor([[3.0, 2.0, -torch.inf, -torch.inf], [-torch.inf] * 4])
    vectors = F.normalize(torch.rand(2, 4, 3), dim=2)
    order = diversify(scores, vectors, torch.tensor([4, 4]), torch.tensor([1.0, 0.5]), 9)
    assert order.tolist() == [[0, 1, 2, 3], [0, 1, 2, 3]]


def test_equal_scores_are_no_trouble() -> None:
    order = diversify(
        torch.zeros(1, 5),
        F.normalize(torch.eye(5)[None], dim=2),
        torch.tensor([5]),
        torch.tensor([0.5]),
        5,
    )
    assert order.tolist() == [[0, 1, 2, 3, 4]]


def test_items_without_genres_are_like_one_another() -> None:
    vectors = genre_vectors(
        torch.tensor([[True, True, False], [False] * 3, [False] * 3, [True, False, False]])
    )
    cosine = vectors @ vectors.T
    torch.testing.assert_close(
        cosine, torch.tensor([[1, 0, 0, 0.5**0.5], [0, 1, 1, 0], [0, 1, 1, 0], [0.5**0.5, 0, 0, 1]])
    )


def test_rows_that_ask_for_nothing_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    scores = torch.randn(5, 120).sort(dim=1, descending=True).values
    columns = torch.stack([torch.randperm(120) for _ in range(5)])
    vectors = F.normalize(torch.rand(120, 3))
    queries = [Query(k=4, diversity=share) for share in (0.0, 0.5, 0.0, 0.9, 0.6)]
    values, places = rerank(queries, scores, columns, vectors)
    for row in (0, 2):
        assert torch.equal(values[row], scores[row])
        assert torch.equal(places[row], columns[row])
    for row in (1, 3, 4):
        assert not torch.equal(places[row, :4], columns[row, :4])
        found = {int(column): float(value) for column, value in zip(columns[row], scores[row], strict=True)}
        assert [found[int(column)] for column in places[row, :4]] == values[row, :4].tolist()
    monkeypatch.setattr("widedeep.rerank.BLOCK_VALUES", 1)
    assert torch.equal(rerank(queries, scores, columns, vectors)[1][:, :4], places[:, :4])
    assert (pool_size(queries[0]), pool_size(queries[1]), pool_size(Query(k=300, diversity=0.1))) == (
        4,
        100,
        1500,
    )


def variety(recommender: Recommender, item_ids: list[int]) -> float:
    """Mean distance of genres over the pairs of a list."""
    parts = [set(text.split("|")) for text in recommender.item_genres(item_ids)]
    pairs = [
        1 - len(one & other) / len(one | other) for place, one in enumerate(parts) for other in parts[:place]
    ]
    return float(np.mean(pairs))


def test_a_list_gains_variety_and_keeps_its_scores(trained: Recommender) -> None:
    for user in (1, 2, 30):
        plain = trained.recommend(user, k=6)
        scores = dict(zip(*[(full := trained.recommend(user, k=1000)).item_ids, full.scores], strict=True))
        varied = [trained.recommend(user, k=6, diversity=share) for share in (0.0, 0.6, 1.0)]
        assert varied[0] == plain
        values = [variety(trained, ranking.item_ids) for ranking in varied]
        assert values == sorted(values)
        assert values[2] > values[0] == 0.0, "the checkerboard's lists are all of one kind"
        for ranking in varied:
            assert ranking.item_ids[0] == plain.item_ids[0]
            assert ranking.scores == pytest.approx([scores[item] for item in ranking.item_ids])
            assert len(set(ranking.item_ids)) == 6


def test_few_candidates_and_filters(trained: Recommender) -> None:
    ranking = trained.recommend(1, k=10, diversity=0.8, candidates=[3, 4, 5, "no"], exclude_seen=False)
    assert sorted(ranking.item_ids) == [3, 4, 5]
    assert trained.recommend(1, diversity=1, genres=["Comedy"], year_from=2050).item_ids == []
    everything = trained.recommend(1, k=1000, diversity=0.5, exclude_seen=False)
    assert sorted(everything.item_ids) == list(range(1, 41))
    explained = trained.recommend(1, k=5, diversity=0.8, explain=2)
    assert len(explained.reasons) == 5


def test_a_batch_is_diversified_like_single_queries(trained: Recommender) -> None:
    queries = [
        Query(user_id=3, k=4, diversity=0.4),
        Query(user_id=3, k=4),
        Query(history=[2, 4, 6], k=30, diversity=1.0),
        Query(diversity=0.2),
    ]
    for query, ranking in zip(queries, trained.rank(queries), strict=True):
        alone = trained.rank([query])[0]
        assert ranking.item_ids == alone.item_ids
        assert ranking.scores == pytest.approx(alone.scores, abs=1e-5)


def test_without_genres_it_goes_by_what_was_learnt() -> None:
    board = checkerboard()
    plain = board.items.assign(genres="", year=0)
    data = Dataset(board.name, board.interactions, plain, board.users, "test", board.digest, (), None)
    recommender, _ = Recommender.fit(small_config(epochs=1), data, board.interactions)
    top = recommender.recommend(2, k=6).item_ids
    varied = recommender.recommend(2, k=6, diversity=0.9).item_ids
    assert all(item % 2 == 0 for item in top)
    assert any(item % 2 == 1 for item in varied)
