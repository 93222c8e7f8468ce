"""What the server refuses, and how it says so."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from serving import Running, field_of, recommend, refusal, running

from server.pb import recommender_pb2 as pb
from server.served import ServedModel

pytest_plugins = ["serving_fixtures"]
SERVICE = "widedeep.v1.Recommender"
INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"k": 0}, INVALID, "k"),
        ({"k": -1}, INVALID, "k"),
        ({"k": 1001}, INVALID, "k"),
        ({"k": 2**31 - 1}, INVALID, "k"),
        ({"user_id": "u" * 257}, INVALID, "user_id"),
        ({"request_id": "r" * 257}, INVALID, "request_id"),
        ({"candidate_item_ids": ["a", "b"]}, NOT_FOUND, "candidate_item_ids"),
        ({"candidate_item_ids": ["1"] * 10_001}, INVALID, "candidate_item_ids"),
        ({"candidate_item_ids": ["1", "i" * 257]}, INVALID, "candidate_item_ids"),
        ({"exclude_item_ids": ["1"] * 10_001}, INVALID, "exclude_item_ids"),
        ({"genres": ["Polka"]}, INVALID, "genres"),
        ({"genres": ["Drama"] * 10_001}, INVALID, "genres"),
        ({"year_from": 2001, "year_to": 2000}, INVALID, "year_from"),
        ({"explain": -1}, INVALID, "explain"),
        ({"explain": 101}, INVALID, "explain"),
        ({"explain": 2**31 - 1}, INVALID, "explain"),
        ({"diversity": -0.01}, INVALID, "diversity"),
        ({"diversity": 1.01}, INVALID, "diversity"),
        ({"diversity": float("nan")}, INVALID, "diversity"),
        ({"diversity": float("inf")}, INVALID, "diversity"),
        ({"history": {"item_ids": ["1"] * 10_001}}, INVALID, "history.item_ids"),
        (
            {"history": {"item_ids": ["1", "2"], "ratings": [5.0, float("nan")]}},
            INVALID,
            "history.ratings[1]",
        ),
        ({"history": {"item_ids": ["1"], "ratings": [float("-inf")]}}, INVALID, "history.ratings[0]"),
        ({"history": {"item_ids": ["1"], "ratings": [5.0, 4.0]}}, INVALID, "history.ratings"),
        ({"history": {"ratings": [5.0]}}, INVALID, "history.ratings"),
    ],
)
def test_bad_requests_name_their_field(
    stub: Any, fields: dict[str, Any], code: grpc.StatusCode, field: str
) -> None:
    assert refusal(lambda: recommend(stub, **fields)) == (code, field)


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({}, INVALID, "item_ids"),
        ({"item_ids": ["1"] * 10_001}, INVALID, "item_ids"),
        ({"item_ids": ["1", "2", "nope"]}, NOT_FOUND, "item_ids[2]"),
        ({"item_ids": [""]}, NOT_FOUND, "item_ids[0]"),
        ({"item_ids": ["1" * 256]}, NOT_FOUND, "item_ids[0]"),
        (
            {"item_ids": ["1"], "history": {"item_ids": ["1"], "ratings": [float("inf")]}},
            INVALID,
            "history.ratings[0]",
        ),
    ],
)
def test_bad_score_requests_name_their_field(
    stub: Any, fields: dict[str, Any], code: grpc.StatusCode, field: str
) -> None:
    assert refusal(lambda: stub.Score(pb.ScoreRequest(**fields))) == (code, field)


def test_a_refusal_of_long_ids_fits_into_the_headers(stub: Any) -> None:
    ids = [("😀" * 255) + str(number % 10) for number in range(2_000)]
    assert refusal(lambda: stub.Score(pb.ScoreRequest(item_ids=ids))) == (NOT_FOUND, "item_ids[0]")
    assert refusal(lambda: recommend(stub, genres=["😀" * 256])) == (INVALID, "genres")


def test_errors_carry_a_reason(stub: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Score(pb.ScoreRequest(item_ids=["nope"]))
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in rpc_status.from_call(caught.value).details)
    assert (info.reason, info.domain) == ("UNKNOWN_ITEM", "widedeep")


def test_bytes_that_are_no_message(server: Running) -> None:
    with grpc.insecure_channel(server.target) as channel:
        unary = channel.unary_unary(f"/{SERVICE}/Score")
        assert refusal(lambda: unary(b"\xff\xff\xff")) == (INVALID, "request")
        stream = channel.stream_stream(f"/{SERVICE}/ScoreStream")
        good = pb.ScoreStreamRequest(request=pb.ScoreRequest(item_ids=["1"])).SerializeToString()
        replies = [
            pb.ScoreStreamResponse.FromString(raw) for raw in stream(iter([b"\xff\xff\xff", b"", good]))
        ]
    assert [reply.status.code for reply in replies] == [3, 3, 0]
    assert field_of(replies[0].status) == "request"


def test_a_fault_of_ours_tells_nothing_but_its_number(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running(bundle) as started, started.stub() as stub:
        broken = ServedModel(None, "secret-name", "1", "")  # type: ignore[arg-type]
        next(iter(started.server.store._slots.values())).current = broken
        with caplog.at_level(logging.ERROR), pytest.raises(grpc.RpcError) as caught:
            recommend(stub, user_id="1")
        replies = list(stub.RecommendStream(iter([pb.RecommendStreamRequest(request={"user_id": "1"})] * 2)))
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    request_info = error_details_pb2.RequestInfo()
    assert any(detail.Unpack(request_info) for detail in rpc_status.from_call(caught.value).details)
    assert request_info.request_id in caught.value.details()
    assert any(
        request_info.request_id in record.getMessage() and record.exc_info for record in caplog.records
    )
    assert "NoneType" not in str(caught.value)
    assert [reply.status.code for reply in replies] == [grpc.StatusCode.INTERNAL.value[0]] * 2


def test_messages_beyond_the_limit_are_refused(bundle: Path) -> None:
    with running(bundle, max_message_bytes=2000) as started, started.stub() as stub:
        with pytest.raises(grpc.RpcError) as caught:
            recommend(stub, exclude_item_ids=["x" * 200] * 20)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_limits_can_be_lowered(bundle: Path) -> None:
    with (
        running(bundle, max_k=5, max_items=3, max_history=2, max_id_length=4) as started,
        started.stub() as stub,
    ):
        assert refusal(lambda: recommend(stub)) == (INVALID, "k")
        assert refusal(lambda: recommend(stub, k=5, exclude_item_ids=["1"] * 4)) == (
            INVALID,
            "exclude_item_ids",
        )
        assert refusal(lambda: recommend(stub, k=5, user_id="12345")) == (INVALID, "user_id")
        long = {"item_ids": ["1"] * 3}
        assert refusal(lambda: recommend(stub, k=5, history=long)) == (INVALID, "history.item_ids")
        assert len(recommend(stub, k=5).item_ids) == 5


def outcome(method: Any, request: Any) -> tuple[str, str, Any]:
    """The code, the field at fault and the response of one call."""
    try:
        return "OK", "", method(request, timeout=20)
    except grpc.RpcError as error:
        return error.code().name, field_of(rpc_status.from_call(error)), None


def test_hostile_but_valid_messages_are_answered_or_refused(stub: Any) -> None:
    """Nothing that protobuf can carry may reach INTERNAL or UNKNOWN."""
    random = np.random.default_rng(5)
    texts = [
        "",
        "1",
        "2",
        "30",
        "-1",
        "01",
        "1.0",
        "1e3",
        "٣",
        "²",
        "NaN",
        "null",
        "\x00",
        "a\nb",
        "9" * 256,
        "😀",
        "'; --",
        str(2**63),
        str(-(2**63)),
        "Drama",
    ]
    floats = [0.0, -0.0, 1.0, 5.0, 1e38, -1e38, 1e-45, float("nan"), float("inf"), float("-inf")]
    numbers = [0, 1, 10, 1000, 1001, -1, 2**31 - 1, -(2**31)]

    def some(values: list[Any], most: int = 6) -> list[Any]:
        return [values[index] for index in random.integers(0, len(values), random.integers(0, most))]

    def maybe(name: str, value: Any) -> dict[str, Any]:
        return {name: value} if random.random() < 0.4 else {}

    def history() -> dict[str, Any]:
        items = some(texts)
        ratings = (
            some(floats)
            if random.random() < 0.3
            else [floats[index] for index in random.integers(0, 4, len(items))]
        )
        return {"item_ids": items, "ratings": ratings}

    codes = {"OK": 0, "INVALID_ARGUMENT": 0, "NOT_FOUND": 0}
    for _ in range(400):
        shared = {
            **maybe("user_id", texts[random.integers(len(texts))]),
            **maybe("history", history()),
            **maybe("include_details", True),
            **maybe("request_id", texts[random.integers(len(texts))]),
        }
        asked = pb.RecommendRequest(
            **shared,
            **maybe("k", numbers[random.integers(len(numbers))]),
            **maybe("exclude_seen", bool(random.integers(2))),
            **maybe("exclude_item_ids", some(texts)),
            **maybe("candidate_item_ids", some(texts)),
            **maybe("genres", some(["Drama", "Action", "", "drama"], 3)),
            **maybe("year_from", numbers[random.integers(len(numbers))]),
            **maybe("year_to", numbers[random.integers(len(numbers))]),
            **maybe("include_cold_items", bool(random.integers(2))),
            **maybe("explain", [0, 1, 3, 100, 101][random.integers(5)]),
            **maybe("diversity", [0.0, -0.0, 1e-45, 0.3, 1.0, 1e38, float("nan")][random.integers(7)]),
        )
        scored = pb.ScoreRequest(**shared, item_ids=some(["1", "2", "30"]) or some(texts))
        for method, request in ((stub.Recommend, asked), (stub.Score, scored)):
            code, field, response = outcome(method, request)
            codes[code] += 1
            if response is None:
                assert field, request
            else:
                assert response.request_id == request.request_id
                values = response.scores if method is stub.Recommend else response.probabilities
                assert np.isfinite(values).all()
    assert min(codes.values()) > 20, codes
