"""Between protobuf and plain values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from serving import recommender

from server import convert, describe, lanes
from server.cache import CacheCounts
from server.pb import recommender_pb2 as pb
from server.served import Details, ServedModel
from server.settings import ServerSettings
from server.shadow import Agreement
from server.store_status import Counts, StoreStatus
from widedeep.errors import InvalidQueryError
from widedeep.queries import ColdStart, Query, Ranking, Reason, ScoreQuery, Scores, SimilarQuery

LIMITS = ServerSettings()
NO_REGISTRY = StoreStatus([], None, Counts(), CacheCounts())


def test_an_empty_request_is_the_default_query() -> None:
    assert convert.to_query(pb.RecommendRequest(), LIMITS) == Query(
        exclude_items=[], genres=[], history=None, candidates=None
    )


def test_every_field_arrives() -> None:
    request = pb.RecommendRequest(
        user_id="u",
        k=3,
        exclude_seen=False,
        exclude_item_ids=["a"],
        candidate_item_ids=["b", "c"],
        genres=["Drama"],
        year_from=0,
        year_to=-3,
        history=pb.History(item_ids=["d", "e"], ratings=[1.0, 2.5]),
        include_details=True,
        request_id="r",
        include_cold_items=True,
        explain=4,
        diversity=0.25,
        fallback=pb.FALLBACK_ERROR,
        model_version="7",
    )
    named = {field.name for field, _ in request.ListFields()}
    assert named == {field.name for field in pb.RecommendRequest.DESCRIPTOR.fields}
    assert convert.to_query(request, LIMITS) == Query(
        user_id="u",
        k=3,
        exclude_seen=False,
        exclude_items=["a"],
        candidates=["b", "c"],
        history=["d", "e"],
        history_ratings=[1.0, 2.5],
        genres=["Drama"],
        year_from=0,
        year_to=-3,
        include_cold_items=True,
        explain=4,
        diversity=0.25,
        fallback="error",
    )


def test_score_query() -> None:
    request = pb.ScoreRequest(user_id="u", item_ids=["a"], history=pb.History(item_ids=["b"]))
    assert convert.to_score_query(request, LIMITS) == ScoreQuery("u", ["a"], ["b"], None)
    assert convert.to_score_query(pb.ScoreRequest(item_ids=["a"]), LIMITS) == ScoreQuery(None, ["a"])
    strict = pb.ScoreRequest(item_ids=["a"], fallback=pb.FALLBACK_ERROR)
    assert convert.to_score_query(strict, LIMITS).fallback == "error"


def test_similar_query() -> None:
    request = pb.SimilarItemsRequest(
        item_ids=["a", "b"],
        k=3,
        exclude_item_ids=["c"],
        candidate_item_ids=["d"],
        genres=["Drama"],
        year_from=0,
        year_to=-3,
        include_details=True,
        request_id="r",
        include_cold_items=True,
        model_version="7",
    )
    named = {field.name for field, _ in request.ListFields()}
    assert named == {field.name for field in pb.SimilarItemsRequest.DESCRIPTOR.fields}
    assert convert.to_similar_query(request, LIMITS) == SimilarQuery(
        ["a", "b"], 3, ["c"], ["d"], ["Drama"], 0, -3, include_cold_items=True
    )
    plain = convert.to_similar_query(pb.SimilarItemsRequest(item_ids=["a"]), LIMITS)
    assert plain == SimilarQuery(["a"], exclude_items=[], genres=[])


@pytest.mark.parametrize("count", [0, 101])
def test_similar_to_one_to_a_hundred(count: int) -> None:
    with pytest.raises(InvalidQueryError) as caught:
        convert.to_similar_query(pb.SimilarItemsRequest(item_ids=["a"] * count), LIMITS)
    assert caught.value.field == "item_ids"


def test_a_fallback_that_does_not_exist() -> None:
    with pytest.raises(InvalidQueryError, match="7 is no Fallback"):
        convert.to_query(pb.RecommendRequest(fallback=7), LIMITS)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [10_000, 10_001])
def test_the_limit_itself_is_allowed(count: int) -> None:
    request = pb.ScoreRequest(item_ids=["i" * 256] * count)
    if count == 10_000:
        assert len(convert.to_score_query(request, LIMITS).item_ids) == count
    else:
        with pytest.raises(InvalidQueryError, match="10001") as caught:
            convert.to_score_query(request, LIMITS)
        assert caught.value.field == "item_ids"


def test_ranking_to_response() -> None:
    model = ServedModel(recommender(), "films", "7", "champion")
    response = pb.RecommendResponse()
    ranking = Ranking([5, 2], [0.5, -1.25], ColdStart.NO_USER, ["x"])
    details = Details(["Five", "Two"], ["A|B", ""], [1999, 0])
    convert.fill_recommendation(response, pb.RecommendRequest(request_id="r"), ranking, details, model)
    assert response == pb.RecommendResponse(
        request_id="r",
        item_ids=["5", "2"],
        scores=[0.5, -1.25],
        details=pb.ItemDetails(titles=["Five", "Two"], genres=["A|B", ""], years=[1999, 0]),
        cold_start=True,
        cold_start_reason=pb.COLD_START_REASON_NO_USER,
        unknown_item_ids=["x"],
        model=pb.ModelVersion(name="films", version="7", alias="champion"),
    )


def test_reasons_to_response() -> None:
    model = ServedModel(recommender(), "films", "7", "")
    reasons = [[Reason(5, 0.5, 0.25), Reason(6, 0.125, -1.0)], [], [Reason(5, 2.0, 2.0)]]
    ranking = Ranking([1, 2, 3], [3.0, 2.0, 1.0], reasons=reasons)
    response = pb.RecommendResponse()
    convert.fill_recommendation(response, pb.RecommendRequest(explain=2), ranking, None, model)
    expected = pb.Reasons(
        counts=[2, 0, 1],
        history_item_ids=["5", "6", "5"],
        contributions=[0.5, 0.125, 2.0],
        wide_contributions=[0.25, -1.0, 2.0],
    )
    assert response.reasons == expected
    details = Details(["A", "B", "C"], ["", "", ""], [0, 0, 0], ["Five", "Six", "Five"])
    convert.fill_recommendation(
        response := pb.RecommendResponse(), pb.RecommendRequest(explain=2), ranking, details, model
    )
    assert list(response.reasons.titles) == ["Five", "Six", "Five"]
    convert.fill_recommendation(
        response := pb.RecommendResponse(), pb.RecommendRequest(), Ranking([], []), None, model
    )
    assert not response.HasField("reasons")


def test_scores_to_response() -> None:
    model = ServedModel(recommender(), "films", "7", "")
    response = pb.ScoreResponse()
    probabilities = np.array([0.1, 1.0], dtype=np.float32)
    convert.fill_scores(response, pb.ScoreRequest(), Scores(probabilities), None, model)
    assert np.array_equal(np.float32(response.probabilities), probabilities)
    assert not response.cold_start
    assert not response.HasField("details")


def test_every_cold_start_has_its_reason_on_the_wire() -> None:
    assert set(convert.COLD_START_REASONS) == set(ColdStart)
    on_the_wire = {value.number for value in pb.ColdStartReason.DESCRIPTOR.values} - {0}
    assert set(convert.COLD_START_REASONS.values()) == on_the_wire


def test_metrics_that_are_no_numbers_are_left_out() -> None:
    served = recommender()
    about = dict(served.about)
    try:
        served.about["metrics"] = {"ndcg_at_10": 0.25, "auc": math.nan, "curve": [1, 2], "none": None}
        response = describe.to_model_response(ServedModel(served, "films", "7", ""), NO_REGISTRY, Agreement())
    finally:
        served.about.clear()
        served.about.update(about)
    assert set(response.metrics) == {"ndcg_at_10", "auc"}
    assert response.metrics["ndcg_at_10"] == 0.25


def test_the_queues_take_all_that_one_stream_may_have_in_flight() -> None:
    assert LIMITS.stream_in_flight * lanes.EXPLAINED <= LIMITS.queued_rankings
