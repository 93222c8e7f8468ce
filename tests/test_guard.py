"""Tokens, scopes and rates, in front of a real server."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from certificates import Authority
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from serving import Feed, eventually, recommend, running

from server import tokens
from server.client import AsyncClient, Client, ClientError, Recommend
from server.pb import recommender_pb2 as pb
from server.rates import Rates
from server.status import RateLimitError
from widedeep.errors import ConfigError

pytest_plugins = ["serving_fixtures"]


def by_threads(target: str, **options: Any) -> str:
    with Client(target, **options) as client:
        return client.recommend(1, 3).items[0].item_id


def by_asyncio(target: str, **options: Any) -> str:
    async def run() -> str:
        async with AsyncClient(target, **options) as client:
            return (await client.recommend(1, 3)).items[0].item_id

    return asyncio.run(run())


def refused(best: Callable[..., str], target: str, **options: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        best(target, **options)
    return caught.value.code, caught.value.reason


@pytest.mark.parametrize("best", [by_threads, by_asyncio])
def test_who_may_call(bundle: Path, tmp_path: Path, best: Callable[..., str]) -> None:
    file = tmp_path / "tokens"
    good, admin = tokens.new(file, "shop", "serve"), tokens.new(file, "boss", "admin")
    both, old = tokens.new(file, "lead", "serve,admin"), tokens.new(file, "shop", "serve", "2020-01-01")
    authority = Authority(tmp_path / "root")
    served = authority.issue("server").served
    with running(bundle, tokens_file=str(file), **served) as server:
        trusted = {"ca": authority.cert}
        assert best(server.target, token=good, **trusted)
        assert best(server.target, token=both, **trusted)
        assert refused(best, server.target, **trusted) == ("UNAUTHENTICATED", "TOKEN_MISSING")
        assert refused(best, server.target, token="wd_no", **trusted) == ("UNAUTHENTICATED", "TOKEN_UNKNOWN")
        assert refused(best, server.target, token=old, **trusted) == ("UNAUTHENTICATED", "TOKEN_EXPIRED")
        assert refused(best, server.target, token=admin, **trusted) == ("PERMISSION_DENIED", "SCOPE_MISSING")


def test_every_method_asks_and_health_does_not(bundle: Path, tmp_path: Path) -> None:
    tokens.new(tmp_path / "tokens", "shop", "serve")
    with (
        running(bundle, tokens_file=str(tmp_path / "tokens")) as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        service = pb.DESCRIPTOR.services_by_name["Recommender"]
        for method in service.methods:
            kind = channel.stream_stream if method.client_streaming else channel.unary_unary
            for metadata in ((), (("authorization", "Basic eDp5"),), (("authorization", "Bearer "),)):
                call = kind(f"/{service.full_name}/{method.name}")
                asked: Any = iter([b""]) if method.client_streaming else b"\xff"
                with pytest.raises(grpc.RpcError) as caught:
                    tuple(call(asked, metadata=metadata, timeout=20))
                assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED, method.name
        health = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=20).status == 1
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        with pytest.raises(grpc.RpcError) as caught:
            list(reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([asked])))
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_token_is_replaced_while_clients_run(bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    old = tokens.new(file, "shop", "serve")
    with running(bundle, tokens_file=str(file)) as server, server.stub() as stub:
        feed = Feed()
        replies = stub.RecommendStream(iter(feed), metadata=(("authorization", f"Bearer {old}"),))

        def on_stream() -> int:
            feed.send(user_id="1")
            return next(replies).status.code

        def by(token: str) -> str:
            try:
                return by_threads(server.target, token=token) and "OK"
            except ClientError as error:
                return error.reason

        assert on_stream() == 0
        new = tokens.new(file, "shop", "serve")
        assert eventually(lambda: by(new) == "OK")
        assert by(old) == "OK", "both hold while clients move"
        kept = [line for line in file.read_text().splitlines() if tokens.digest_of(old).hex() not in line]
        file.write_text("\n".join(kept))
        assert eventually(lambda: by(old) == "TOKEN_UNKNOWN")
        assert by(new) == "OK"
        assert on_stream() == grpc.StatusCode.UNAUTHENTICATED.value[0], "the open stream has the old one"
        feed.close()
        assert list(replies) == []


def test_the_server_does_not_start_without_tokens(bundle: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match=r"python -m server\.tokens new"),
        running(bundle, tokens_file=str(tmp_path / "none")),
    ):
        pass


def test_calls_beyond_the_rate_are_told_when_to_come_again(bundle: Path) -> None:
    with running(bundle, rate_limit=0.05, rate_burst=3) as server, server.stub() as stub:
        for _ in range(3):
            assert recommend(stub, user_id="1").item_ids
        with pytest.raises(grpc.RpcError) as caught:
            recommend(stub, user_id="1")
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        details = rpc_status.from_call(caught.value).details
        assert [details[0].Unpack(info), details[1].Unpack(retry)] == [True, True]
        assert (info.reason, info.domain) == ("RATE_LIMITED", "widedeep")
        assert 0 < retry.retry_delay.ToTimedelta().total_seconds() <= 20
        with pytest.raises(ClientError) as failed:
            by_threads(server.target)
        assert failed.value.retry_after is not None


def test_messages_of_a_stream_count_and_the_stream_lives_on(bundle: Path) -> None:
    with running(bundle, rate_limit=4, rate_burst=3) as server, Client(server.target) as client:
        replies = list(client.recommend_stream(Recommend("1", k=3) for _ in range(20)))
        good = [reply for reply in replies if reply.answer]
        bad = [reply.error for reply in replies if reply.error]
        assert len(good) + len(bad) == 20
        assert len(good) >= 2, "opening the stream took one of three"
        assert {(error.code, error.reason) for error in bad} == {("RESOURCE_EXHAUSTED", "RATE_LIMITED")}
        time.sleep(max(error.retry_after or 0 for error in bad))
        with Client(server.target) as other:
            assert other.recommend(1, 3).items, "as promised"


def test_each_token_has_a_rate_of_its_own(bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    few, more = tokens.new(file, "few", "serve", rate=0.01), tokens.new(file, "more", "serve", rate=1000)
    plain = tokens.new(file, "plain", "serve")
    with running(bundle, tokens_file=str(file), rate_limit=0.01) as server:
        for token in (few, plain):
            assert by_threads(server.target, token=token)
            assert refused(by_threads, server.target, token=token) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED")
        for _ in range(5):
            assert by_threads(server.target, token=more)


def test_a_bucket_fills_at_its_rate() -> None:
    rates = Rates(most=2)

    def taken(caller: str, rate: float = 200, burst: int = 4) -> int:
        counts = itertools.count()

        def take_all() -> None:
            while True:
                rates.take(caller, rate, burst)
                next(counts)

        with pytest.raises(RateLimitError) as caught:
            take_all()
        assert 0 < caught.value.retry_after <= 1 / rate
        return next(counts)

    begun = time.monotonic()
    assert taken("a", rate=0.001) == 4
    assert taken("a", rate=0.001) == 0
    first = taken("b")
    time.sleep(0.05)
    again = taken("b")
    assert first >= 4
    assert again >= 4
    assert first + again <= 4 + 200 * (time.monotonic() - begun) + 1
    assert taken("c", rate=0.001) == 4
    assert taken("a", rate=0.001) == 4, "who has not called for long is forgotten: the table is bounded"


def test_a_stub_sees_no_more_than_the_reason(bundle: Path, tmp_path: Path) -> None:
    tokens.new(tmp_path / "tokens", "shop", "serve")
    with running(bundle, tokens_file=str(tmp_path / "tokens")) as server, server.stub() as stub:
        for word in ("bearer", "BEARER"):
            with pytest.raises(grpc.RpcError, match="not known"):
                stub.GetModel(pb.GetModelRequest(), metadata=(("authorization", f"{word} wd_x"),), timeout=20)
        secret = "wd_" + "s" * 43
        with pytest.raises(grpc.RpcError) as caught:
            stub.GetModel(pb.GetModelRequest(), metadata=(("authorization", f"Bearer {secret}"),), timeout=20)
        assert secret not in str(caught.value)
        assert "shop" not in str(caught.value)
