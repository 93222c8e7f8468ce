"""The client for threads: one method for each of the server's."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any, TypeVar, Unpack

import grpc
from grpc_health.v1 import health_pb2

from server.client import messages, stream
from server.client.channel import Connection
from server.client.exchange import DEFAULT_IN_FLIGHT, Exchange
from server.client.messages import RECOMMEND, SCORE, SIMILAR, Method
from server.client.queries import Recommend, RecommendOptions, Score, ScoreOptions, Similar, SimilarOptions
from server.client.values import Answer, ModelInfo, ModelStatus, Reply
from server.pb import recommender_pb2 as pb

Q = TypeVar("Q")


class Client(Connection):
    """A connection to a server: plain Python in and out. Threads may share one.

    Every method raises ClientError. `timeout` is in seconds and takes the place of the client's own.
    """

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for channel in self.channels:
            channel.close()

    def recommend(
        self,
        user_id: object = "",
        k: int = 10,
        *,
        timeout: float | None = None,
        **options: Unpack[RecommendOptions],
    ) -> Answer:
        """The `k` items that a user may want next, best first. Options: the fields of `Recommend`."""
        return self._ask(RECOMMEND, Recommend(user_id, k, **options), timeout)

    def score(
        self,
        user_id: object,
        item_ids: Iterable[object],
        *,
        timeout: float | None = None,
        **options: Unpack[ScoreOptions],
    ) -> Answer:
        """The probability that a user likes each of the items, in their order. Options: the fields of `Score`."""
        return self._ask(SCORE, Score(user_id, tuple(item_ids), **options), timeout)

    def similar(
        self,
        item_ids: Iterable[object],
        k: int = 10,
        *,
        timeout: float | None = None,
        **options: Unpack[SimilarOptions],
    ) -> Answer:
        """The `k` items that are most like the given ones. Options: the fields of `Similar`."""
        return self._ask(SIMILAR, Similar(tuple(item_ids), k, **options), timeout)

    def recommend_stream(
        self,
        queries: Iterable[Recommend],
        *,
        in_flight: int = DEFAULT_IN_FLIGHT,
        timeout: float | None = None,
    ) -> Generator[Reply[Recommend], None, None]:
        """Recommend for many users over one stream: replies as they come, not always in the order of the queries.

        queries    drawn from in another thread, and no faster than replies are taken; may have no end
        in_flight  how many may be unanswered at a time
        timeout    for the whole stream; None: no limit
        Raises     ClientError where the stream fails, with what was left `unanswered`; a query that is refused alone
                   gets a reply that says so. What `queries` raises comes after the replies to what it has given.

        Leaving the loop, or closing the generator, cancels the call. The thread ends as soon as `queries` gives its
        next one.
        """
        return self._stream(RECOMMEND, queries, in_flight, timeout)

    def score_stream(
        self, queries: Iterable[Score], *, in_flight: int = DEFAULT_IN_FLIGHT, timeout: float | None = None
    ) -> Generator[Reply[Score], None, None]:
        """Score over one stream, as in `recommend_stream`."""
        return self._stream(SCORE, queries, in_flight, timeout)

    def info(self, *, timeout: float | None = None) -> ModelInfo:
        """The served model."""
        return messages.model_info(self._call("GetModel", pb.GetModelRequest(), timeout))

    def models(self, *, timeout: float | None = None) -> tuple[ModelStatus, ...]:
        """The versions that the server holds or has refused, the served one first."""
        return messages.model_statuses(self._call("ListModels", pb.ListModelsRequest(), timeout))

    def health(self, service: str = "", *, timeout: float | None = None) -> str:
        """SERVING or NOT_SERVING."""
        limit = self._limit(timeout)
        with self._explained(limit):
            response = self._health.Check(
                health_pb2.HealthCheckRequest(service=service), timeout=limit, metadata=self.metadata
            )
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))

    def _ask(self, method: Method[Q], query: Q, timeout: float | None) -> Answer:
        with self._explained(None):
            request = method.build(query)
        return method.read(request, self._call(method.name, request, timeout))

    def _open(self, target: str, credentials: Any, options: list[tuple[str, Any]]) -> Any:
        if credentials is None:
            return grpc.insecure_channel(target, options)
        return grpc.secure_channel(target, credentials, options)

    def _call(self, name: str, request: Any, timeout: float | None) -> Any:
        limit = self._limit(timeout)
        with self._explained(limit):
            return getattr(self._stub, name)(request, timeout=limit, metadata=self.metadata)

    def _stream(
        self, method: Method[Q], queries: Iterable[Q], in_flight: int, timeout: float | None
    ) -> Generator[Reply[Q], None, None]:
        exchange = Exchange(method, in_flight)
        start = getattr(self._stub, f"{method.name}Stream")
        return stream.replies(
            exchange,
            queries,
            lambda requests: start(requests, timeout=timeout, metadata=self.metadata),
            lambda error: self._failure(error, timeout, exchange.unanswered),
        )
