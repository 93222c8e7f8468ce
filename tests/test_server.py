"""The server: a real model, a real channel, every answer compared with what is known."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from serving import Running, checkerboard, field_of, recommend, recommender, withheld

from server.pb import recommender_pb2 as pb

pytest_plugins = ["serving_fixtures"]
SERVICE = "widedeep.v1.Recommender"


def test_withheld_likes_come_first(stub: Any) -> None:
    for user in (1, 2, 17, 32):
        missing = [item for item in range(1, 31) if withheld(user, item)]
        likes = {str(item) for item in missing if item % 2 == user % 2}
        response = recommend(stub, user_id=str(user), k=len(missing))
        assert set(response.item_ids) == set(map(str, missing))
        assert set(response.item_ids[: len(likes)]) == likes
        assert not response.cold_start


def test_scores_over_the_wire_are_the_offline_ones(stub: Any) -> None:
    offline = recommender().recommend(3, k=7)
    response = recommend(stub, user_id="3", k=7)
    assert list(response.item_ids) == [str(item) for item in offline.item_ids]
    assert np.array_equal(np.float32(response.scores), np.float32(offline.scores))

    items = [5, 6, 30, 1]
    scored = stub.Score(pb.ScoreRequest(user_id="3", item_ids=map(str, items)))
    assert np.array_equal(np.float32(scored.probabilities), recommender().score(3, items))
    assert scored.probabilities[0] > 0.5 > scored.probabilities[1]


def test_defaults(stub: Any) -> None:
    response = recommend(stub, user_id="1")
    missing = [item for item in range(1, 31) if withheld(1, item)]
    assert len(response.item_ids) == len(missing) < 10, "seen items are left out"
    assert len(recommend(stub, user_id="1", exclude_seen=False).item_ids) == 10, "k is 10"
    assert not response.HasField("details")


def test_response_names_the_model_and_the_request(stub: Any, bundle: Path) -> None:
    response = recommend(stub, user_id="1", request_id="a-7")
    assert response.request_id == "a-7"
    assert response.model.name == bundle.name
    assert len(response.model.version) == 12
    assert response.model.alias == ""


def test_details_are_in_the_order_of_the_items(stub: Any) -> None:
    response = recommend(stub, user_id="1", k=10, exclude_seen=False, include_details=True)
    items = [int(item) for item in response.item_ids]
    assert list(response.details.titles) == [f"Film {item}" for item in items]
    assert list(response.details.genres) == ["Comedy|Drama" if item % 2 else "Action" for item in items]
    assert list(response.details.years) == [0 if item == 30 else 1990 + item % 20 for item in items]
    scored = stub.Score(pb.ScoreRequest(item_ids=["4", "3"], include_details=True))
    assert list(scored.details.titles) == ["Film 4", "Film 3"]


def test_reasons_are_the_offline_ones(stub: Any) -> None:
    offline = recommender().recommend(3, k=4, explain=2)
    response = recommend(stub, user_id="3", k=4, explain=2, include_details=True)
    assert list(response.reasons.counts) == [len(reasons) for reasons in offline.reasons]
    flat = [reason for reasons in offline.reasons for reason in reasons]
    assert flat
    assert list(response.reasons.history_item_ids) == [str(reason.item_id) for reason in flat]
    assert list(response.reasons.contributions) == pytest.approx([reason.contribution for reason in flat])
    assert list(response.reasons.wide_contributions) == pytest.approx([reason.wide for reason in flat])
    assert list(response.reasons.titles) == [f"Film {reason.item_id}" for reason in flat]
    liked = {str(item) for item in range(1, 31, 2) if not withheld(3, item)}
    assert set(response.reasons.history_item_ids) <= liked
    assert not recommend(stub, user_id="3", k=4).HasField("reasons")
    assert not recommend(stub, user_id="3", k=4, explain=1).reasons.titles
    assert list(recommend(stub, k=2, explain=5).reasons.counts) == [0, 0]


def test_diversity_trades_scores_for_genres(stub: Any) -> None:
    plain = recommend(stub, user_id="1", k=4, exclude_seen=False, include_details=True)
    varied = recommend(stub, user_id="1", k=4, exclude_seen=False, include_details=True, diversity=1.0)
    assert len(set(plain.details.genres)) == 1
    assert len(set(varied.details.genres)) == 2
    assert varied.item_ids[0] == plain.item_ids[0]
    assert sum(varied.scores) < sum(plain.scores)


def test_films_that_nobody_has_seen(stub: Any) -> None:
    everything = {"user_id": "1", "k": 1000, "exclude_seen": False}
    assert not {"31", "32"} & set(recommend(stub, **everything).item_ids)
    asked = recommend(stub, **everything, include_cold_items=True, explain=1)
    assert len(asked.item_ids) == 32
    assert list(asked.item_ids).index("31") < list(asked.item_ids).index("32"), "user 1 likes odd ones"
    assert asked.reasons.counts[list(asked.item_ids).index("31")] == 1


def test_filters(stub: Any) -> None:
    everything = {"user_id": "1", "k": 1000, "exclude_seen": False}
    assert len(recommend(stub, **everything).item_ids) == 30
    drama = recommend(stub, **everything, genres=["Drama"]).item_ids
    assert sorted(map(int, drama)) == list(range(1, 31, 2))
    assert len(recommend(stub, **everything, genres=["Drama", "Action"]).item_ids) == 30
    dated = recommend(stub, **everything, year_from=1995, year_to=1996).item_ids
    assert sorted(map(int, dated)) == [5, 6, 25, 26]
    assert "30" not in recommend(stub, **everything, year_from=-5).item_ids, "its year is not known"
    assert "7" not in recommend(stub, **everything, exclude_item_ids=["7", "no such item"]).item_ids


def test_candidates(stub: Any) -> None:
    response = recommend(stub, user_id="1", exclude_seen=False, candidate_item_ids=["2", "nope", "1"])
    assert list(response.item_ids) == ["1", "2"]
    assert list(response.unknown_item_ids) == ["nope"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "NO_USER"),
        ({"user_id": "9999"}, "UNKNOWN_USER"),
        ({"user_id": "1", "history": {"item_ids": ["x", "y"]}}, "UNKNOWN_HISTORY"),
        ({"user_id": "1", "history": {"item_ids": ["2", "4"], "ratings": [1.0, 2.0]}}, "NO_LIKES"),
        ({"user_id": "1"}, ""),
        ({"user_id": "1", "history": {}}, ""),
        ({"history": {"item_ids": ["1", "x"]}}, ""),
    ],
)
def test_cold_start_is_labelled(stub: Any, fields: dict[str, Any], reason: str) -> None:
    response = recommend(stub, **fields)
    expected = f"COLD_START_REASON_{reason or 'UNSPECIFIED'}"
    assert pb.ColdStartReason.Name(response.cold_start_reason) == expected
    assert response.cold_start == bool(reason)
    assert response.item_ids
    scored = stub.Score(pb.ScoreRequest(item_ids=["1", "2"], **fields))
    assert len(scored.probabilities) == 2
    if reason != "NO_LIKES":  # dislikes are something to go by for a probability
        assert pb.ColdStartReason.Name(scored.cold_start_reason) == expected


def test_a_history_takes_the_place_of_the_stored_one(stub: Any) -> None:
    evens = {"item_ids": ["2", "4", "6", "8"]}
    for user in ("", "1", "nobody"):
        response = recommend(stub, user_id=user, history=evens, k=5)
        assert all(int(item) % 2 == 0 for item in response.item_ids)
        assert not set(response.item_ids) & set(evens["item_ids"])


def test_a_bad_message_does_not_end_a_stream(stub: Any) -> None:
    requests = [{"user_id": "1"}, {"k": 0}, {"candidate_item_ids": ["nope"]}, {"user_id": "2"}]
    messages = (
        pb.RecommendStreamRequest(request=pb.RecommendRequest(request_id=str(number), **fields))
        for number, fields in enumerate(requests)
    )
    replies = sorted(stub.RecommendStream(messages, timeout=20), key=lambda reply: reply.request_id)
    assert [reply.request_id for reply in replies] == ["0", "1", "2", "3"]
    assert [reply.status.code for reply in replies] == [0, 3, 5, 0]
    assert [reply.HasField("response") for reply in replies] == [True, False, False, True]
    assert [field_of(reply.status) for reply in replies[1:3]] == ["k", "candidate_item_ids"]
    streamed, alone = replies[3].response, recommend(stub, user_id="2", request_id="3")
    assert streamed.scores == pytest.approx(alone.scores, abs=1e-6), "in a batch they may round otherwise"
    del streamed.scores[:], alone.scores[:]
    assert streamed == alone


def test_score_stream(stub: Any) -> None:
    requests = [["1", "2"], [], ["2", "nope"], ["2"]]
    messages = (
        pb.ScoreStreamRequest(request=pb.ScoreRequest(user_id="1", item_ids=item_ids, request_id=str(number)))
        for number, item_ids in enumerate(requests)
    )
    replies = sorted(stub.ScoreStream(messages, timeout=20), key=lambda reply: reply.request_id)
    assert [reply.request_id for reply in replies] == ["0", "1", "2", "3"]
    assert [reply.status.code for reply in replies] == [0, 3, 5, 0]
    assert replies[3].response.probabilities == pytest.approx(replies[0].response.probabilities[1:], abs=1e-6)


def test_model_description(stub: Any) -> None:
    about = stub.GetModel(pb.GetModelRequest())
    assert (about.user_count, about.item_count) == (40, 30)
    assert about.like_threshold == 4.0
    assert about.device == "cpu"
    assert about.created_at.endswith("+00:00")
    assert about.model == recommend(stub, user_id="1").model


def test_reflection_lists_the_service(server: Running) -> None:
    with grpc.insecure_channel(server.target) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert SERVICE in database.get_services()
        file = database.FindFileContainingSymbol(SERVICE)
    assert {method.name for method in file.service[0].method} == {
        "Recommend", "RecommendStream", "Score", "ScoreStream", "SimilarItems", "GetModel", "ListModels",
    }  # fmt: skip


def test_many_callers_get_their_own_answers(stub: Any) -> None:
    users = list(checkerboard()["user_id"].unique()) * 5
    with ThreadPoolExecutor(8) as pool:
        responses = list(
            pool.map(lambda user: recommend(stub, user_id=str(user), request_id=str(user)), users)
        )
    for user, response in zip(users, responses, strict=True):
        assert response.request_id == str(user)
        assert all(withheld(user, int(item)) for item in response.item_ids)
