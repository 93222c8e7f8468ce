"""More like this, fallbacks that are errors, and how the catalogue is ranked."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from experiments.benchmarks import made_up
from widedeep import (
    ColdStart,
    ModelConfig,
    Query,
    RankingMethod,
    Recommender,
    ScoreQuery,
    SimilarQuery,
    halved,
    preparing,
)
from widedeep.errors import ColdStartError, ConfigError, InvalidQueryError, UnknownItemError

CONFIG = ModelConfig(embedding_dim=8, hidden=(32, 16), ranking_hidden=32, ranking_dim=16, factor_dim=24)


def test_similar_items_are_of_the_same_parity(trained: Recommender) -> None:
    for item in range(1, 41):
        found = trained.similar([item], k=8)
        assert len(found.item_ids) == 8
        assert item not in found.item_ids
        assert sum(other % 2 == item % 2 for other in found.item_ids) >= 7
        assert found.similarities == sorted(found.similarities, reverse=True)
        assert -1 <= found.similarities[-1] <= found.similarities[0] <= 1


def test_several_items_are_the_mean_of_each(trained: Recommender) -> None:
    each = []
    for item in (2, 4, 5):
        found = trained.similar([item], k=1000)
        each.append(dict(zip(found.item_ids, found.similarities, strict=True)))
    together = trained.similar([2, "4", 5], k=1000)
    assert set(together.item_ids) == set(range(1, 41)) - {2, 4, 5}
    expected = [np.mean([one[item] for one in each]) for item in together.item_ids]
    assert together.similarities == pytest.approx(expected, abs=1e-6)
    assert trained.similar([2, 2, 4, 5, 4], k=1000).similarities == pytest.approx(together.similarities)


def test_equally_similar_items_come_in_the_order_of_their_index() -> None:
    recommender = made_up.recommender(60, users=20, config=CONFIG)
    net = recommender.net
    with torch.no_grad():
        for table in (net.factors.vectors, net.deep.item_vectors, net.item_features):
            table[20:40] = table[20]
    found = recommender.similar([1], k=60)
    same = [item for item in found.item_ids if 20 <= item < 40]
    assert same == sorted(same)
    assert len(same) == 20


def test_similar_items_are_filtered(trained: Recommender) -> None:
    assert set(trained.similar([1], k=1000, genres=["Comedy"]).item_ids) == set(range(2, 41, 2))
    assert set(trained.similar([1], k=1000, year_from=1985, year_to=1986).item_ids) == {5, 6, 35, 36}
    chosen = trained.similar([1], candidates=["4", 1, 5, "no"], exclude_items=[5, "neither"])
    assert (chosen.item_ids, chosen.unknown_items) == ([4], ["no"])
    everything = trained.similar([1], k=1000, include_cold_items=True).item_ids
    assert set(everything) == set(range(2, 43))


def test_an_item_without_interactions_is_like_its_neighbours(trained: Recommender) -> None:
    for item in (41, 42):  # a drama and a comedy
        found = trained.similar([item], k=5).item_ids
        assert all(other % 2 == item % 2 for other in found)


@pytest.mark.parametrize(
    ("query", "field", "kind"),
    [
        (SimilarQuery([]), "item_ids", InvalidQueryError),
        (SimilarQuery("12"), "item_ids", InvalidQueryError),
        (SimilarQuery([1] * 101), "item_ids", InvalidQueryError),
        (SimilarQuery([1], k=0), "k", InvalidQueryError),
        (SimilarQuery([1], genres=["Horror"]), "genres", InvalidQueryError),
        (SimilarQuery([1, "zz", "yy"]), "item_ids[1]", UnknownItemError),
        (SimilarQuery([1], candidates=["zz"]), "candidates", UnknownItemError),
    ],
)
def test_what_cannot_be_answered(
    trained: Recommender, query: SimilarQuery, field: str, kind: type[Exception]
) -> None:
    good, bad = trained.similar_each([SimilarQuery([1]), query])
    assert good == trained.similar([1])
    assert type(bad) is kind
    assert bad.field == field  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("given", "reason", "field"),
    [
        ({"user_id": None}, ColdStart.NO_USER, "user_id"),
        ({"user_id": ""}, ColdStart.NO_USER, "user_id"),
        ({"user_id": 999}, ColdStart.UNKNOWN_USER, "user_id"),
        ({"user_id": 1, "history": ["zz"]}, ColdStart.UNKNOWN_HISTORY, "history"),
        ({"user_id": 1, "history": [2], "history_ratings": [1.0]}, ColdStart.NO_LIKES, "history"),
    ],
)
def test_no_answer_that_is_not_personal(
    trained: Recommender, given: dict[str, object], reason: ColdStart, field: str
) -> None:
    queries: list[tuple[object, object]] = [(Query, trained.rank)]
    if reason is not ColdStart.NO_LIKES:  # a dislike tells about likes, too
        queries.append((lambda **options: ScoreQuery(item_ids=[1], **options), trained.score_batch))
    for make, ask in queries:
        assert ask([make(**given)])[0].cold_start is reason  # type: ignore[operator]
        with pytest.raises(ColdStartError) as caught:
            ask([make(**given, fallback="error")])  # type: ignore[operator]
        assert (caught.value.reason, caught.value.field) == (reason, field)
    personal = trained.rank([Query(1, fallback="error"), Query(history=[2], fallback="error")])
    assert [one.cold_start for one in personal] == [None, None]


def test_other_fallbacks_there_are_none(trained: Recommender) -> None:
    scoring = (trained.check_score, ScoreQuery(1, [1], fallback=""))
    for ask, query in ((trained.check, Query(fallback="random")), scoring):
        with pytest.raises(InvalidQueryError) as caught:
            ask(query)  # type: ignore[operator]
        assert caught.value.field == "fallback"


@pytest.fixture(scope="module")
def large() -> Recommender:
    return made_up.recommender(6000, users=60, config=CONFIG)


def test_prepared_it_ranks_as_before(large: Recommender) -> None:
    before = large.rank([Query(user) for user in range(1, 20)])
    assert large.prepare(precision="float32") == RankingMethod("float32", 1.0, False, 1.0)
    assert large.rank([Query(user) for user in range(1, 20)]) == before


def test_half_precision_finds_and_single_precision_ranks(large: Recommender) -> None:
    queries = [
        Query(3, k=50),
        Query(4, k=1000),
        Query(5, exclude_items=list(range(1, 2000))),
        Query(6, genres=["genre 1"]),
        Query(7, candidates=[1, 5, 5999]),
        Query(8, include_cold_items=True),
        Query(),
    ]
    large.prepare(precision="float32")
    exact = large.rank(queries)
    assert large.prepare(precision="bfloat16") == RankingMethod("bfloat16", 1.0, False, 1.0)
    for ours, theirs in zip(large.rank(queries), exact, strict=True):
        assert ours.scores == pytest.approx(theirs.scores, abs=1e-5)
        places = dict(zip(theirs.item_ids, theirs.scores, strict=True))
        common = [
            (score, places[item])
            for item, score in zip(ours.item_ids, ours.scores, strict=True)
            if item in places
        ]
        assert len(common) >= len(places) - 1, "but for a tie at the end, the same items"
        assert [one for one, _ in common] == pytest.approx([other for _, other in common], abs=1e-5)


def test_half_precision_that_loses_items_is_not_taken_unasked(
    large: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "_has_bfloat16", lambda _: True)
    assert large.prepare().precision == "bfloat16"
    monkeypatch.setattr(halved, "FETCHED", 0)
    monkeypatch.setattr(halved, "SPARE", 1)
    monkeypatch.setattr(preparing, "LEAST_AGREEMENT", 1.0)
    assert large.prepare().precision == "float32"
    assert large.prepare(precision="bfloat16").precision_agreement < 1.0
    large.prepare(precision="float32")


@pytest.mark.parametrize("settings", [{"precision": "fp16"}, {"exact_up_to": -1}])
def test_settings_that_there_are_not(large: Recommender, settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        large.prepare(**settings)  # type: ignore[arg-type]


def test_candidates_are_ranked_as_the_whole_is(large: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss", reason="needs faiss: pip install faiss-cpu")
    queries = [
        Query(1),
        Query(2, k=100),
        Query(3, genres=["genre 1"]),
        Query(4, candidates=[1, 2, 3, 5999]),
        Query(5, exclude_items=list(range(1, 500)), explain=1),
        Query(),
        Query(6, diversity=0.5),
        Query(history=[1, 2, 3]),
    ]
    crossed = torch.arange(1, 301)  # so that candidates come from both: few items have crosses, as at scale
    wide = large.net.wide
    monkeypatch.setitem(wide._buffers, "items", crossed)
    monkeypatch.setitem(wide._buffers, "weights", wide.weights[:300, :300].contiguous())
    monkeypatch.setattr(preparing, "FETCHED", (4500,))
    monkeypatch.setattr(preparing, "LEAST_RECALL", 0.95)
    few = Recommender(large.net, large.processor, large.histories, large.config, large.chosen, large.about)
    exact = few.rank(queries)
    method = few.prepare(exact_up_to=5999, precision="float32")
    assert method.approximate
    assert 0.95 < method.recall <= 1.0
    found = few.rank(queries)
    for place in (2, 3, 5):  # filters, candidates and the popularity are exact
        assert found[place].item_ids == exact[place].item_ids
    for ours, theirs in zip(found, exact, strict=True):
        scores = dict(zip(theirs.item_ids, theirs.scores, strict=True))
        same = [
            (score, scores[item])
            for item, score in zip(ours.item_ids, ours.scores, strict=True)
            if item in scores
        ]
        assert len(same) >= 0.9 * len(theirs.item_ids)
        assert [one for one, _ in same] == pytest.approx([other for _, other in same], abs=1e-5)
    assert few.prepare(exact_up_to=6000).approximate is False
    assert few.rank(queries[:1])[0].item_ids == exact[0].item_ids


def test_an_index_that_finds_too_little_is_not_used(
    large: Recommender, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("faiss", reason="needs faiss: pip install faiss-cpu")
    monkeypatch.setattr(preparing, "FETCHED", (101,))
    monkeypatch.setattr(preparing, "LEAST_RECALL", 1.01)
    exact = large.rank([Query(1)])
    method = large.prepare(exact_up_to=100, precision="float32")
    assert (method.approximate, method.recall) == (False, 1.0)
    assert "all 6,000 are ranked" in caplog.text
    assert large.rank([Query(1)]) == exact


def test_without_faiss_the_whole_is_ranked_and_a_hint_given(
    large: Recommender, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    method = large.prepare(exact_up_to=100, precision="float32")
    assert not method.approximate
    assert "pip install faiss-cpu" in caplog.text
