"""The client for asyncio: the methods of `Client`, to be awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from typing import Any, TypeVar, Unpack

import grpc
from grpc_health.v1 import health_pb2

from server.client import aio_stream, messages
from server.client.channel import Connection
from server.client.exchange import DEFAULT_IN_FLIGHT, Exchange
from server.client.messages import RECOMMEND, SCORE, SIMILAR, Method
from server.client.queries import Recommend, RecommendOptions, Score, ScoreOptions, Similar, SimilarOptions
from server.client.values import Answer, ClientError, ModelInfo, ModelStatus, Reply
from server.pb import recommender_pb2 as pb

Q = TypeVar("Q")


class AsyncClient(Connection):
    """A connection to a server, of the event loop in which it is made. Options: those of `Client`.

    Every method raises ClientError. `timeout` is in seconds and takes the place of the client's own.
    """

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        for channel in self.channels:
            await channel.close()

    async def recommend(
        self,
        user_id: object = "",
        k: int = 10,
        *,
        timeout: float | None = None,
        **options: Unpack[RecommendOptions],
    ) -> Answer:
        """The `k` items that a user may want next, best first. Options: the fields of `Recommend`."""
        return await self._ask(RECOMMEND, Recommend(user_id, k, **options), timeout)

    async def score(
        self,
        user_id: object,
        item_ids: Iterable[object],
        *,
        timeout: float | None = None,
        **options: Unpack[ScoreOptions],
    ) -> Answer:
        """The probability that a user likes each of the items, in their order. Options: the fields of `Score`."""
        return await self._ask(SCORE, Score(user_id, tuple(item_ids), **options), timeout)

    async def similar(
        self,
        item_ids: Iterable[object],
        k: int = 10,
        *,
        timeout: float | None = None,
        **options: Unpack[SimilarOptions],
    ) -> Answer:
        """The `k` items that are most like the given ones. Options: the fields of `Similar`."""
        return await self._ask(SIMILAR, Similar(tuple(item_ids), k, **options), timeout)

    def recommend_stream(
        self,
        queries: AsyncIterable[Recommend] | Iterable[Recommend],
        *,
        in_flight: int = DEFAULT_IN_FLIGHT,
        timeout: float | None = None,
    ) -> AsyncGenerator[Reply[Recommend], None]:
        """Recommend for many users over one stream, as `Client.recommend_stream`.

        queries  an async iterable, or a plain one that does not block

        Leaving the loop cancels the call as soon as the generator is closed: at once within `contextlib.aclosing`,
        otherwise when Python collects it.
        """
        return self._stream(RECOMMEND, queries, in_flight, timeout)

    def score_stream(
        self,
        queries: AsyncIterable[Score] | Iterable[Score],
        *,
        in_flight: int = DEFAULT_IN_FLIGHT,
        timeout: float | None = None,
    ) -> AsyncGenerator[Reply[Score], None]:
        """Score over one stream, as in `recommend_stream`."""
        return self._stream(SCORE, queries, in_flight, timeout)

    async def info(self, *, timeout: float | None = None) -> ModelInfo:
        """The served model."""
        return messages.model_info(await self._call("GetModel", pb.GetModelRequest(), timeout))

    async def models(self, *, timeout: float | None = None) -> tuple[ModelStatus, ...]:
        """The versions that the server holds or has refused, the served one first."""
        return messages.model_statuses(await self._call("ListModels", pb.ListModelsRequest(), timeout))

    async def health(self, service: str = "", *, timeout: float | None = None) -> str:
        """SERVING or NOT_SERVING."""
        limit = self._limit(timeout)
        with self._explained(limit):
            response = await self._health.Check(
                health_pb2.HealthCheckRequest(service=service), timeout=limit, metadata=self.metadata
            )
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))

    async def _ask(self, method: Method[Q], query: Q, timeout: float | None) -> Answer:
        with self._explained(None):
            request = method.build(query)
        return method.read(request, await self._call(method.name, request, timeout))

    def _open(self, target: str, credentials: Any, options: list[tuple[str, Any]]) -> Any:
        try:
            asyncio.get_running_loop()
        except RuntimeError as error:
            text = (
                "an AsyncClient is made in a running event loop, as by `async with AsyncClient() as client`."
            )
            raise ClientError("FAILED_PRECONDITION", text) from error
        if credentials is None:
            return grpc.aio.insecure_channel(target, options)
        return grpc.aio.secure_channel(target, credentials, options)

    async def _call(self, name: str, request: Any, timeout: float | None) -> Any:
        limit = self._limit(timeout)
        with self._explained(limit):
            return await getattr(self._stub, name)(request, timeout=limit, metadata=self.metadata)

    def _stream(
        self,
        method: Method[Q],
        queries: AsyncIterable[Q] | Iterable[Q],
        in_flight: int,
        timeout: float | None,
    ) -> AsyncGenerator[Reply[Q], None]:
        exchange = Exchange(method, in_flight)
        start = getattr(self._stub, f"{method.name}Stream")
        return aio_stream.replies(
            exchange,
            queries,
            lambda: start(timeout=timeout, metadata=self.metadata),
            lambda error: self._failure(error, timeout, exchange.unanswered),
        )
