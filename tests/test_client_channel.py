"""What both clients send beside their requests, and what they make of the errors that come back."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import grpc
import pytest
from client_servers import Certificate, Servicer, serving
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from serving import Running, recommender

from server.client import AsyncClient, Client, ClientError, Recommend, Score, Similar, queries
from server.client.channel import is_local, service_config
from server.pb import recommender_pb2 as pb

pytest_plugins = ["serving_fixtures"]


def by_threads(target: str, method: str, *arguments: Any, options: dict[str, Any], **given: Any) -> Any:
    with Client(target, **options) as client:
        return getattr(client, method)(*arguments, **given)


def by_asyncio(target: str, method: str, *arguments: Any, options: dict[str, Any], **given: Any) -> Any:
    async def run() -> Any:
        async with AsyncClient(target, **options) as client:
            return await getattr(client, method)(*arguments, **given)

    return asyncio.run(run())


Call = Callable[..., Any]


@pytest.fixture(params=[by_threads, by_asyncio], ids=["threads", "asyncio"])
def call(request: pytest.FixtureRequest) -> Call:
    def made(target: str, method: str, *arguments: Any, options: Any = None, **given: Any) -> Any:
        return request.param(target, method, *arguments, options=options or {}, **given)

    return made


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate.make(tmp_path_factory.mktemp("server"), "server")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate.make(tmp_path_factory.mktemp("stranger"), "stranger")


@pytest.mark.parametrize(
    ("query", "options", "positional"),
    [
        (Recommend, queries.RecommendOptions, {"user_id", "k"}),
        (Score, queries.ScoreOptions, {"user_id", "item_ids"}),
        (Similar, queries.SimilarOptions, {"item_ids", "k"}),
    ],
)
def test_arguments_are_the_fields_of_the_query(query: type, options: type, positional: set[str]) -> None:
    hints = get_type_hints(query)
    wanted = {field.name: hints[field.name] for field in fields(query) if field.name not in positional}
    assert get_type_hints(options) == wanted


def test_both_clients_give_the_same(server: Running) -> None:
    def asked(call: Call) -> list[Any]:
        return [
            call(server.target, "recommend", 1, 5, explain=2, fallback="popularity", options={}),
            call(server.target, "score", 3, [5, 6], history=[2, 4], ratings=[5, 5], options={}),
            call(server.target, "health", options={}),
        ]

    assert asked(by_threads) == asked(by_asyncio)


def test_fields_of_requests_and_errors(server: Running, call: Call) -> None:
    answer = call(server.target, "recommend", 1, k=5)
    assert [item.item_id for item in answer.items] == list(map(str, recommender().recommend(1, k=5).item_ids))
    with pytest.raises(ClientError) as caught:
        call(server.target, "score", 1, ["x"])
    error = caught.value
    assert (error.code, error.field, error.reason, error.retry_after) == (
        "NOT_FOUND", "item_ids[0]", "UNKNOWN_ITEM", None,
    )  # fmt: skip
    with pytest.raises(ClientError, match="fallback must be 'popularity' or 'error', got 'luck'"):
        call(server.target, "recommend", fallback="luck")
    with pytest.raises(ClientError, match="INVALID_ARGUMENT"):
        call(server.target, "recommend", genres=[7])
    with pytest.raises(ClientError, match="NOT_FOUND"):
        call(server.target, "health", "something.else")


def test_an_error_where_an_answer_cannot_be_personal(server: Running, call: Call) -> None:
    for method, arguments in (("recommend", ("nobody",)), ("score", ("nobody", [1]))):
        assert call(server.target, method, *arguments, fallback="popularity").cold_start == "UNKNOWN_USER"
        with pytest.raises(ClientError) as caught:
            call(server.target, method, *arguments, fallback="error")
        assert (caught.value.code, caught.value.reason) == ("FAILED_PRECONDITION", "COLD_START")
        assert call(server.target, method, "1", *arguments[1:], fallback="error").items


def test_similar_items(server: Running, call: Call) -> None:
    answer = call(server.target, "similar", [3], 5, request_id="like 3")
    assert len(answer.items) == 5
    assert "3" not in {item.item_id for item in answer.items}
    scores = [item.score for item in answer.items]
    assert scores == sorted(scores, reverse=True)
    assert all(-1 <= score <= 1.00001 for score in scores)
    assert (answer.items[0].title, answer.request_id) == (f"Film {answer.items[0].item_id}", "like 3")
    some = call(server.target, "similar", ["3"], candidates=[5, "x", 7], exclude=[7], details=False)
    assert [(item.item_id, item.title) for item in some.items] == [("5", "")]
    assert some.unknown_items == ("x",)
    with pytest.raises(ClientError) as caught:
        call(server.target, "similar", ["x"])
    assert (caught.value.code, caught.value.reason) == ("NOT_FOUND", "UNKNOWN_ITEM")


def test_the_models_of_a_server(server: Running, call: Call) -> None:
    info, models = call(server.target, "info"), call(server.target, "models")
    assert [(status.model, status.state, status.reason) for status in models] == [(info.model, "SERVING", "")]
    assert models[0].since[:2] == "20"
    assert info.ranking.precision in ("float32", "bfloat16")
    assert info.registry is None, "it is served from a file"


def test_what_a_server_says_of_its_model(call: Call) -> None:
    said = pb.GetModelResponse(
        model=pb.ModelVersion(name="m", version="3", alias="champion"),
        ranking=pb.RankingMethod(
            precision="bfloat16", precision_agreement=0.5, approximate=True, recall=0.25
        ),
        registry=pb.RegistryStatus(following=True, error="away", seconds_since_answer=-1, reload_count=2),
    )
    with serving(Servicer(lambda _: said)) as target:
        info = call(target, "info")
    assert str(info.model) == "m version 3 (champion)"
    assert (info.ranking.precision, info.ranking.recall, info.ranking.approximate) == ("bfloat16", 0.25, True)
    assert (info.registry.following, info.registry.error, info.registry.reload_count) == (True, "away", 2)
    assert info.registry.seconds_since_answer is None


def test_the_reason_and_the_time_to_wait(call: Call) -> None:
    def full(context: Any) -> pb.GetModelResponse:
        status = status_pb2.Status(code=8, message="The queue is full.")
        status.details.add().Pack(error_details_pb2.ErrorInfo(reason="QUEUE_FULL", domain="widedeep"))
        delay = Duration(seconds=1, nanos=250_000_000)
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        context.abort_with_status(rpc_status.to_status(status))
        raise AssertionError

    with serving(servicer := Servicer(full)) as target, pytest.raises(ClientError) as caught:
        call(target, "info")
    error = caught.value
    assert (error.code, error.reason, error.retry_after) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL", 1.25)
    assert len(servicer.metadata) == 1, "a server that has too much to do is not asked again"


class Flaky:
    """UNAVAILABLE so many times, then well."""

    def __init__(self, failures: int) -> None:
        self.calls = 0
        self.failures = failures

    def __call__(self, context: Any) -> pb.GetModelResponse:
        self.calls += 1
        if self.calls <= self.failures:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        return pb.GetModelResponse(dataset="at last")


def test_a_call_is_tried_again_while_the_server_is_unavailable(call: Call) -> None:
    with serving(Servicer(flaky := Flaky(3))) as target:
        assert call(target, "info").dataset == "at last"
    assert flaky.calls == 4
    with serving(Servicer(flaky := Flaky(4))) as target, pytest.raises(ClientError, match="UNAVAILABLE"):
        call(target, "info")
    assert flaky.calls == 4
    with serving(Servicer(flaky := Flaky(1))) as target, pytest.raises(ClientError, match="UNAVAILABLE"):
        call(target, "info", options={"attempts": 1})
    assert flaky.calls == 1


def test_tries_share_one_limit_of_time(call: Call) -> None:
    with serving(Servicer(flaky := Flaky(9))) as target, pytest.raises(ClientError):
        call(target, "info", timeout=0.05)
    assert flaky.calls <= 1, "the second would come after 0.08 s"


def test_a_call_has_its_own_limit(call: Call) -> None:
    def slow(_: Any) -> pb.GetModelResponse:
        time.sleep(1)
        return pb.GetModelResponse()

    with serving(Servicer(slow)) as target:
        with pytest.raises(ClientError, match=r"DEADLINE_EXCEEDED: no answer from .* within 0\.2 s"):
            call(target, "info", timeout=0.2)
        with pytest.raises(ClientError, match=r"within 0\.3 s"):
            call(target, "info", options={"timeout": 0.3})


def test_calls_go_round_several_servers() -> None:
    with serving(one := Servicer()) as first, serving(two := Servicer()) as second:
        with Client(f"ipv4:{first},{second}") as client:
            end = time.monotonic() + 20
            while not (one.metadata and two.metadata) and time.monotonic() < end:
                client.info()  # the second connection may come later than the first
        assert one.metadata
        assert two.metadata


def test_only_calls_that_are_not_streams_are_tried_again() -> None:
    config = json.loads(service_config(3))
    named = {name["method"] for method in config["methodConfig"] for name in method["name"]}
    assert named == {"Recommend", "Score", "SimilarItems", "GetModel", "ListModels"}
    assert "methodConfig" not in json.loads(service_config(1))


@pytest.mark.parametrize(
    ("target", "local"),
    [
        ("127.0.0.1:50051", True), ("localhost:1", True), ("[::1]:50051", True), ("ipv4:127.0.0.1:1,127.9.9.9:2", True),
        ("ipv6:[::1]:5", True), ("dns:///localhost:5", True), ("dns:localhost", True), ("unix:/run/x", True),
        ("unix-abstract:x", True), ("10.0.0.1:50051", False), ("localhost.example.org:1", False), ("[::2]:1", False),
        ("ipv4:127.0.0.1:1,10.0.0.1:2", False), ("dns:///widedeep:1", False), ("dns://localhost/widedeep:1", False),
        ("widedeep", False), ("xds:///localhost:1", False), ("localhost@evil:1", False),
    ],
)  # fmt: skip
def test_which_targets_are_on_this_machine(target: str, local: bool) -> None:
    assert is_local(target) is local


def test_the_token_goes_with_every_call(call: Call) -> None:
    with serving(servicer := Servicer()) as target:
        call(target, "info", options={"token": "s3cret"})
        call(target, "info")
        with Client(target, token="t") as client:
            assert list(client.score_stream([])) == []
    assert [metadata.get("authorization") for metadata in servicer.metadata] == [
        "Bearer s3cret", None, "Bearer t",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("target", "options", "text"),
    [
        ("10.0.0.1:50051", {"token": "t"}, "would go to 10.0.0.1:50051 unencrypted"),
        ("10.0.0.1:50051", {"token": "t"}, "--tls"),
        ("127.0.0.1:1", {"token": "a\nb"}, "no header can hold"),
        ("127.0.0.1:1", {"token": "a b"}, "no header can hold"),
        ("127.0.0.1:1", {"token": "ä"}, "no header can hold"),
        ("127.0.0.1:1", {"ca": "missing.pem"}, "ca: cannot read missing.pem"),
        ("127.0.0.1:1", {"cert": "missing.pem"}, "go together"),
        ("127.0.0.1:1", {"key": "missing.pem"}, "go together"),
        ("127.0.0.1:1", {"attempts": 6}, "attempts must be from 1 to 5, got 6"),
        ("127.0.0.1:1", {"attempts": 0}, "attempts must be from 1 to 5, got 0"),
        (" ", {}, "the target is empty"),
    ],
)
def test_options_that_cannot_be(target: str, options: dict[str, Any], text: str, call: Call) -> None:
    with pytest.raises(ClientError) as caught:
        call(target, "info", options=options)
    assert caught.value.code == "INVALID_ARGUMENT"
    assert text in caught.value.message


def test_tls(certificate: Certificate, stranger: Certificate, call: Call) -> None:
    credentials = grpc.ssl_server_credentials([certificate.pair])
    with serving(servicer := Servicer(), credentials) as target:
        options = {"ca": certificate.cert, "token": "t"}
        assert call(target, "info", options=options).dataset == "small"
        assert servicer.metadata[0]["authorization"] == "Bearer t"
        for wrong in ({"ca": stranger.cert}, {"tls": True}):
            with pytest.raises(ClientError) as caught:
                call(target, "info", options=wrong)
            assert caught.value.code == "UNAVAILABLE"
            assert f"cannot reach a server at {target} by TLS" in caught.value.message
            assert "CERTIFICATE_VERIFY_FAILED" in caught.value.message
            assert "\n" not in caught.value.message
        with pytest.raises(ClientError, match="or it wants TLS"):
            call(target, "info")
        assert len(servicer.metadata) == 1


def test_mutual_tls(certificate: Certificate, stranger: Certificate, call: Call) -> None:
    credentials = grpc.ssl_server_credentials(
        [certificate.pair], stranger.cert.read_bytes(), require_client_auth=True
    )
    with serving(Servicer(), credentials) as target:
        trusted = {"ca": certificate.cert}
        own = {"cert": stranger.cert, "key": stranger.key}
        assert call(target, "info", options={**trusted, **own}).dataset == "small"
        with pytest.raises(ClientError, match="UNAVAILABLE"):
            call(target, "info", options=trusted)


def test_an_answer_may_be_larger_than_grpcs_own_limit(call: Call) -> None:
    large = pb.GetModelResponse(dataset="x" * 5_000_000)
    with serving(Servicer(lambda _: large)) as target:
        assert len(call(target, "info").dataset) == 5_000_000
        with pytest.raises(ClientError, match="RESOURCE_EXHAUSTED"):
            call(target, "info", options={"max_message_bytes": 1000})


def test_asyncio_wants_its_loop() -> None:
    with pytest.raises(ClientError, match="running event loop"):
        AsyncClient("127.0.0.1:1")


def test_paths_may_be_text(certificate: Certificate) -> None:
    Client("127.0.0.1:1", ca=str(certificate.cert)).close()
    Client("127.0.0.1:1", ca=Path(certificate.cert)).close()


def test_several_connections_take_turns() -> None:
    peers: list[str] = []

    def get_model(context: grpc.ServicerContext) -> pb.GetModelResponse:
        peers.append(context.peer())
        return pb.GetModelResponse()

    async def ask_by_asyncio(target: str) -> None:
        async with AsyncClient(target, connections=3) as client:
            for _ in range(6):
                await client.info()

    with serving(Servicer(get_model)) as target:
        with Client(target, connections=3) as client:
            for _ in range(6):
                client.info()
        asyncio.run(ask_by_asyncio(target))
    for asked in (peers[:6], peers[6:]):
        assert len(set(asked)) == 3
        assert asked[:3] == asked[3:]
    with pytest.raises(ClientError, match="connections must be from 1 to 100, got 0"):
        Client(connections=0)
