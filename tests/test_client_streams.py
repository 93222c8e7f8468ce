"""The streams of both clients: matched, bounded, and gone when nobody reads them any more."""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import grpc
import pytest
from client_servers import Servicer, calls_in_flight, serving
from serving import Running, recommender, running

from server.client import AsyncClient, Client, ClientError, Recommend, Reply, Score
from server.pb import recommender_pb2 as pb

pytest_plugins = ["serving_fixtures"]


class Ask:
    """One way to send queries over a stream and collect what comes; both clients must behave alike."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(
        self, target: str, queries: Iterable[Any], method: str = "score_stream", **options: Any
    ) -> list:
        replies: list[Reply] = []
        self.into(replies, target, queries, method, **options)
        return replies

    def into(
        self, replies: list, target: str, queries: Iterable[Any], method: str = "score_stream", **options: Any
    ) -> None:
        if self.kind == "threads":
            with Client(target) as client:
                for reply in getattr(client, method)(queries, **options):
                    replies.append(reply)
        else:
            asyncio.run(self._into(replies, target, queries, method, **options))

    async def _into(self, replies: list, target: str, queries: Any, method: str, **options: Any) -> None:
        async def given() -> AsyncIterator[Any]:
            for query in queries:
                await asyncio.sleep(0)
                yield query

        async with AsyncClient(target) as client:
            stream = getattr(client, method)(given() if self.kind == "async input" else queries, **options)
            async for reply in stream:
                replies.append(reply)


@pytest.fixture(params=["threads", "asyncio", "async input"])
def ask(request: pytest.FixtureRequest) -> Ask:
    return Ask(request.param)


def eventually(condition: Callable[[], bool], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


async def soon(condition: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def test_scores_are_those_of_single_calls(server: Running, ask: Ask) -> None:
    queries = [Score(user, [5, 6, user % 30 + 1]) for user in range(1, 41)]
    replies = ask(server.target, queries, in_flight=7)
    assert sorted(map(id, queries)) == sorted(id(reply.query) for reply in replies)
    for reply in replies:
        assert reply.error is None
        expected = recommender().score(reply.query.user_id, reply.query.item_ids)
        assert [item.score for item in reply.answer.items] == pytest.approx(expected, rel=1e-6)
        assert [item.item_id for item in reply.answer.items] == [str(item) for item in reply.query.item_ids]
        assert reply.answer.request_id == ""


def test_rankings_are_those_of_single_calls(server: Running, ask: Ask) -> None:
    queries = [Recommend(user, 3, explain=1) for user in range(1, 20)]
    with Client(server.target) as client:
        for reply in ask(server.target, (query for query in queries), "recommend_stream"):
            alone = client.recommend(reply.query.user_id, 3, explain=1)
            assert reply.answer.model == alone.model
            for item, expected in zip(reply.answer.items, alone.items, strict=True):
                assert (item.rank, item.item_id, item.title) == (
                    expected.rank,
                    expected.item_id,
                    expected.title,
                )
                assert item.score == pytest.approx(expected.score, rel=1e-4, abs=1e-5)
                assert [reason.item_id for reason in item.reasons] == [
                    reason.item_id for reason in expected.reasons
                ]


def test_the_callers_ids_come_back_even_if_they_are_all_the_same(server: Running, ask: Ask) -> None:
    ids = ["a", "a", "", "1", "a", "2", ""]
    queries = [Score(user, [1], request_id=own) for user, own in enumerate(ids, 1)]
    for reply in ask(server.target, queries):
        assert reply.answer.request_id == reply.query.request_id == ids[reply.query.user_id - 1]


def test_a_refusal_is_a_value_and_the_stream_goes_on(server: Running, ask: Ask) -> None:
    queries = [Score(1, [1]), Score(1, ["x"]), Score(1, []), Score("\ud800", [1]), Score(2, [2])]
    replies = {id(reply.query): reply for reply in ask(server.target, queries, in_flight=2)}
    fine, unknown, empty, unsendable, last = (replies[id(query)] for query in queries)
    assert fine.answer
    assert last.answer
    assert (unknown.answer, unknown.error.code, unknown.error.field) == (None, "NOT_FOUND", "item_ids[0]")
    assert unknown.error.reason == "UNKNOWN_ITEM"
    assert (empty.error.code, empty.error.reason) == ("INVALID_ARGUMENT", "INVALID_QUERY")
    assert (unsendable.answer, unsendable.error.code) == (None, "INVALID_ARGUMENT")


def test_unsendable_queries_alone_do_not_fill_the_stream(server: Running, ask: Ask) -> None:
    replies = ask(server.target, (Recommend(k=10**12) for _ in range(9)), "recommend_stream", in_flight=2)
    assert [reply.error.code for reply in replies] == ["INVALID_ARGUMENT"] * 9


def test_nothing_to_ask(server: Running, ask: Ask) -> None:
    assert ask(server.target, []) == []


def test_what_the_input_raises_comes_after_the_replies(server: Running, ask: Ask) -> None:
    def queries() -> Iterator[Score]:
        yield from (Score(1, [1]), Score(2, [2]))
        raise KeyError("the file has ended")

    replies: list[Reply] = []
    with pytest.raises(KeyError, match="the file has ended"):
        ask.into(replies, server.target, queries())
    assert len(replies) == 2


def test_a_query_of_another_method_is_a_fault_of_the_caller(server: Running, ask: Ask) -> None:
    with pytest.raises(AttributeError):
        ask(server.target, [Recommend(1)])


def test_answers_in_any_order_find_their_queries(ask: Ask) -> None:
    def backwards(requests: Iterator[Any]) -> Iterator[Any]:
        while window := list(itertools.islice(requests, 5)):
            for message in reversed(window):
                asked = message.request
                answer = pb.ScoreResponse(request_id=asked.request_id, probabilities=[float(asked.user_id)])
                yield pb.ScoreStreamResponse(request_id=asked.request_id, response=answer)

    queries = [Score(user, ["i"]) for user in range(23)]
    with serving(Servicer(score_stream=backwards)) as target:
        replies = ask(target, queries, in_flight=5)
    assert [reply.query.user_id for reply in replies[:6]] == [4, 3, 2, 1, 0, 9]
    assert all(reply.answer.items[0].score == reply.query.user_id for reply in replies)
    assert len(replies) == 23


def test_a_server_that_answers_what_nobody_asked(ask: Ask) -> None:
    def guessing(requests: Iterator[Any]) -> Iterator[Any]:
        next(requests)
        yield pb.ScoreStreamResponse(request_id="guess")

    with serving(Servicer(score_stream=guessing)) as target, pytest.raises(ClientError) as caught:
        ask(target, [Score(1, [1])])
    assert (caught.value.code, caught.value.unanswered) == ("INTERNAL", (Score(1, [1]),))


def test_a_server_that_ends_early(ask: Ask) -> None:
    with (
        serving(Servicer(score_stream=lambda _: iter(()))) as target,
        pytest.raises(ClientError) as caught,
    ):
        ask(target, [Score(1, [1])])
    assert caught.value.code == "INTERNAL"
    assert "before it had answered" in caught.value.message


def test_a_stream_that_fails_says_what_is_unanswered(ask: Ask) -> None:
    def failing(requests: Iterator[Any]) -> Iterator[Any]:
        asked = next(requests).request
        response = pb.ScoreResponse(request_id=asked.request_id, probabilities=[0.5])
        yield pb.ScoreStreamResponse(request_id=asked.request_id, response=response)
        next(requests), next(requests)
        raise RuntimeError("broken")

    queries = [Score(user, ["i"]) for user in range(3)]
    replies: list[Reply] = []
    with serving(Servicer(score_stream=failing)) as target, pytest.raises(ClientError) as caught:
        ask.into(replies, target, queries)
    assert [reply.query for reply in replies] == queries[:1]
    assert caught.value.code == "UNKNOWN"
    assert caught.value.unanswered == tuple(queries[1:])


def test_the_servers_status_is_kept_where_the_client_is_writing(ask: Ask) -> None:
    def refusing(_: Iterator[Any]) -> Iterator[Any]:
        raise RuntimeError("broken")
        yield

    texts = set()
    with serving(Servicer(score_stream=refusing)) as target:
        for _ in range(40):
            with pytest.raises(ClientError) as caught:
                ask(target, itertools.repeat(Score(1, ["i"] * 1000)), in_flight=1000)
            texts.add(caught.value.message)
    assert texts == {"Exception iterating responses: broken"}


def test_no_server(ask: Ask) -> None:
    with pytest.raises(ClientError) as caught:
        ask("127.0.0.1:1", itertools.repeat(Score(1, [1])))
    assert caught.value.code == "UNAVAILABLE"
    assert "cannot reach a server at 127.0.0.1:1" in caught.value.message


def test_a_limit_for_the_whole_stream(ask: Ask) -> None:
    def silent(requests: Iterator[Any]) -> Iterator[Any]:
        return (message for message in requests if False)

    with serving(Servicer(score_stream=silent)) as target, pytest.raises(ClientError) as caught:
        ask(target, itertools.repeat(Score(1, [1])), timeout=0.5, in_flight=3)
    assert caught.value.code == "DEADLINE_EXCEEDED"
    assert "within 0.5 s" in caught.value.message
    assert len(caught.value.unanswered) == 3


def test_room_for_none_is_refused(server: Running, ask: Ask) -> None:
    with pytest.raises(ClientError, match="in_flight must be at least 1, got 0"):
        ask(server.target, [], in_flight=0)


class Endless:
    """Queries without end; it counts those that were drawn."""

    def __init__(self) -> None:
        self.drawn = 0

    def __iter__(self) -> Iterator[Score]:
        for user in itertools.cycle(range(1, 41)):
            self.drawn += 1
            yield Score(user, [1, 2, 3], details=False)


def test_the_input_is_drawn_no_faster_than_replies_are_taken(server: Running) -> None:
    queries = Endless()
    before = threading.active_count()
    with Client(server.target) as client:
        client.health()
        for taken, _ in enumerate(client.score_stream(queries, in_flight=5), 1):
            assert queries.drawn <= taken + 5
            if taken in (1, 50):
                assert eventually(lambda taken=taken: queries.drawn == taken + 5)
                time.sleep(0.05)
                assert queries.drawn == taken + 5
            if taken == 60:
                break
        assert eventually(lambda: calls_in_flight(server) == 0), "the call is cancelled"
        drawn = queries.drawn
        time.sleep(0.05)
        assert queries.drawn == drawn
        assert client.health() == "SERVING", "the connection lives on"
    assert eventually(lambda: threading.active_count() <= before), threading.enumerate()


def test_asyncio_draws_no_faster_either(server: Running) -> None:
    async def run() -> None:
        queries = Endless()
        async with AsyncClient(server.target) as client:
            async with aclosing(client.score_stream(queries, in_flight=5)) as replies:
                taken = 0
                async for _ in replies:
                    taken += 1
                    assert queries.drawn <= taken + 5
                    if taken in (1, 50):
                        await soon(lambda taken=taken: queries.drawn == taken + 5)
                        await asyncio.sleep(0.05)
                        assert queries.drawn == taken + 5
                    if taken == 60:
                        break
            await soon(lambda: len(asyncio.all_tasks()) == 1)  # this one; gRPC's own ends a little later
            assert await client.health() == "SERVING"
            async for _ in client.score_stream(queries):
                break
            await soon(lambda: calls_in_flight(server) == 0)

    asyncio.run(run())


def test_asyncio_cancels_the_input_with_the_stream(server: Running) -> None:
    async def run() -> None:
        ended = asyncio.Event()

        async def queries() -> AsyncIterator[Score]:
            try:
                yield Score(1, [1])
                await asyncio.Event().wait()
            finally:
                ended.set()

        async with AsyncClient(server.target) as client, aclosing(client.score_stream(queries())) as replies:
            assert (await anext(replies)).answer
        await asyncio.wait_for(ended.wait(), 5)

    asyncio.run(run())


def test_a_reply_does_not_wait_for_the_next_query(server: Running) -> None:
    waiting: queue.Queue[Score | None] = queue.Queue()
    waiting.put(Score(1, [1]))
    with Client(server.target) as client:
        replies = client.score_stream(iter(waiting.get, None))
        assert next(replies).answer
        waiting.put(Score("\ud800", [1]))
        assert next(replies).error
        waiting.put(Score(2, [1]))
        assert next(replies).query.user_id == 2
        waiting.put(None)
        assert list(replies) == []


def test_a_drain_ends_a_stream_whose_input_is_silent(bundle: Path) -> None:
    waiting: queue.Queue[Score | None] = queue.Queue()
    waiting.put(Score(1, [1]))
    with running(bundle) as stopping, Client(stopping.target) as client:
        replies = client.score_stream(iter(waiting.get, None))
        assert next(replies).answer
        threading.Timer(0.2, lambda: stopping.run(stopping.server.drain())).start()
        with pytest.raises(ClientError) as caught:
            next(replies)
        waiting.put(None)
    assert (caught.value.code, caught.value.reason) == ("UNAVAILABLE", "UNAVAILABLE")
    assert caught.value.unanswered == ()


def test_a_closed_client_ends_its_streams(server: Running) -> None:
    client = Client(server.target)
    replies = client.score_stream(Endless())
    assert next(replies).answer
    client.close()
    with pytest.raises(ClientError) as caught:
        list(replies)
    assert caught.value.code == grpc.StatusCode.CANCELLED.name
