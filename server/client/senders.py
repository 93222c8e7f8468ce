"""Requests for a load, made and serialised beforehand: the load's own work must not be what is measured."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc import code_pb2

from server.client.aio import AsyncClient
from server.client.aio_reader import Reader
from server.client.channel import SERVICE
from server.client.messages import RECOMMEND, SCORE, SIMILAR, Method
from server.client.queries import Recommend, Score, Similar
from server.pb import recommender_pb2 as pb

KINDS = ("recommend", "score", "similar", "recommend_stream", "score_stream")
POOL = 1000  # different requests of a kind
ID = "########"  # room for a request id in a serialised message
RESPONSES: dict[str, Any] = {
    "Recommend": pb.RecommendResponse,
    "Score": pb.ScoreResponse,
    "SimilarItems": pb.SimilarItemsResponse,
    "RecommendStream": pb.RecommendStreamResponse,
    "ScoreStream": pb.ScoreStreamResponse,
}


class FailedError(Exception):
    """A request got no answer. `code` is the gRPC status code's name."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class Population:
    """What to ask about.

    k      items in a ranking
    items  items to score at a time
    """

    user_ids: Sequence[str]
    item_ids: Sequence[str]
    k: int
    items: int

    def requests(self, kind: str) -> tuple[Method[Any], Iterator[Any]]:
        """The method of a kind, and requests without end, the same in every run."""
        draw = random.Random(kind)
        if kind.startswith("recommend"):
            return RECOMMEND, (
                RECOMMEND.build(Recommend(draw.choice(self.user_ids), self.k, details=False, request_id=ID))
                for _ in itertools.count()
            )
        if kind.startswith("score"):
            return SCORE, (
                SCORE.build(
                    Score(
                        draw.choice(self.user_ids),
                        draw.choices(self.item_ids, k=self.items),
                        details=False,
                        request_id=ID,
                    )
                )
                for _ in itertools.count()
            )
        return SIMILAR, (
            SIMILAR.build(Similar([draw.choice(self.item_ids)], self.k, details=False))
            for _ in itertools.count()
        )


class Sender:
    """Sends requests of one kind by themselves."""

    def __init__(self, client: AsyncClient, name: str, payloads: Sequence[bytes]) -> None:
        self._client = client
        self._payloads = itertools.cycle(payloads)
        self._methods: Iterator[Callable[..., Any]] = itertools.cycle(
            [
                channel.unary_unary(
                    f"/{SERVICE.full_name}/{name}", response_deserializer=RESPONSES[name].FromString
                )
                for channel in client.channels
            ]
        )

    async def send(self) -> Any:
        """The response to the next one. Raises FailedError."""
        try:
            return await next(self._methods)(
                next(self._payloads), timeout=self._client.timeout, metadata=self._client.metadata
            )
        except grpc.aio.AioRpcError as error:
            raise FailedError(error.code().name) from error

    async def close(self) -> None:
        pass


class StreamSender:
    """Sends requests of one kind over one stream, which is opened anew after it has failed."""

    def __init__(self, client: AsyncClient, name: str, payloads: Sequence[bytes]) -> None:
        self._client = client
        self._payloads = itertools.cycle(payloads)
        self._method: Callable[..., Any] = client.channel.stream_stream(
            f"/{SERVICE.full_name}/{name}", response_deserializer=RESPONSES[name].FromString
        )
        self._numbers = itertools.count()
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._reading: asyncio.Task[None] | None = None

    async def send(self) -> Any:
        """The response to the next one. Raises FailedError."""
        if self._reading is None or self._reading.done():
            self._queue = asyncio.Queue()
            call = self._method(metadata=self._client.metadata)
            self._reading = asyncio.create_task(self._read(call, asyncio.create_task(self._write(call))))
        wire = f"{next(self._numbers) % 10**8:08}"
        answered = self._waiting[wire] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(next(self._payloads) + wire.encode())
        message = await answered
        if message.status.code:
            raise FailedError(code_pb2.Code.Name(message.status.code))
        return message.response

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])

    async def _write(self, call: Any) -> None:
        queue = self._queue
        with suppress(
            grpc.aio.AioRpcError, asyncio.InvalidStateError
        ):  # the call has ended: its reader says why
            while True:
                await call.write(await queue.get())

    async def _read(self, call: Any, writing: asyncio.Task[None]) -> None:
        code = "INTERNAL"  # the server has ended the stream
        reader = Reader(call)
        try:
            while (message := await reader.read()) is not grpc.aio.EOF:
                answered = self._waiting.pop(message.request_id, None)
                if answered is not None and not answered.done():
                    answered.set_result(message)
        except grpc.aio.AioRpcError as error:
            code = error.code().name
        finally:
            writing.cancel()
            call.cancel()
            waiting, self._waiting = self._waiting, {}
            for answered in waiting.values():
                if not answered.done():
                    answered.set_exception(FailedError(code))


def senders(
    client: AsyncClient, kinds: Sequence[str], population: Population
) -> dict[str, Sender | StreamSender]:
    made: dict[str, Sender | StreamSender] = {}
    for kind in kinds:
        method, requests = population.requests(kind)
        some = itertools.islice(requests, POOL)
        if kind.endswith("_stream"):
            assert method.envelope is not None
            made[kind] = StreamSender(
                client,
                f"{method.name}Stream",
                [_without_id(method.envelope(request=request).SerializeToString()) for request in some],
            )
        else:
            made[kind] = Sender(client, method.name, [request.SerializeToString() for request in some])
    return made


def _without_id(message: bytes) -> bytes:
    """All but the request id, for which there is room at the end: fields are serialised in their numbers' order."""
    prefix = message.removesuffix(ID.encode())
    assert len(prefix) == len(message) - len(ID), "a field stands behind the request id"
    return prefix
