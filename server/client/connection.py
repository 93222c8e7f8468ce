"""The connection: one method for each of the server's."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from server.client.values import Answer, ClientError, Item, Model, ModelInfo, Reason
from server.pb import recommender_pb2 as pb
from server.pb import recommender_pb2_grpc as pb_grpc

DEFAULT_TARGET = "127.0.0.1:50051"
DEFAULT_TIMEOUT = 10.0  # seconds, connecting included
START = "Is one running there? Start it with: python -m server --model models:/widedeep@champion"


class Client:
    """A connection to a server: plain Python in and out. Threads may share one."""

    def __init__(self, target: str = DEFAULT_TARGET, timeout: float = DEFAULT_TIMEOUT) -> None:
        """
        target   host:port
        timeout  seconds a call may take, connecting included
        """
        self.target = target
        self.timeout = timeout
        self._channel = grpc.insecure_channel(target)
        self._stub = pb_grpc.RecommenderStub(self._channel)  # type: ignore[no-untyped-call]
        self._health = health_pb2_grpc.HealthStub(self._channel)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    def recommend(
        self,
        user_id: object = "",
        k: int = 10,
        *,
        history: Sequence[object] | None = None,
        ratings: Sequence[float] = (),
        exclude_seen: bool = True,
        exclude: Sequence[object] = (),
        candidates: Sequence[object] = (),
        genres: Sequence[str] = (),
        year_from: int | None = None,
        year_to: int | None = None,
        include_cold_items: bool = False,
        explain: int = 0,
        diversity: float = 0.0,
        details: bool = True,
        request_id: str = "",
    ) -> Answer:
        """The `k` items that a user may want next, best first.

        user_id             empty for somebody without an id
        history             item ids, oldest first, instead of what the model has stored; None to leave that in place
        ratings             one for each item of the history, or none: every item then counts as liked
        candidates          rank only these
        include_cold_items  rank items without interactions, too, by their features
        explain             0 to 100: ask for so many reasons for each item
        diversity           0 to 1: how much the variety of genres counts against the scores
        details             ask for titles, genres and years
        Raises              ClientError
        """
        with self._explained():
            request = pb.RecommendRequest(
                user_id=str(user_id),
                k=k,
                exclude_seen=exclude_seen,
                exclude_item_ids=map(str, exclude),
                candidate_item_ids=map(str, candidates),
                genres=genres,
                year_from=year_from,
                year_to=year_to,
                include_cold_items=include_cold_items,
                explain=explain,
                diversity=diversity,
                history=_history(history, ratings),
                include_details=details,
                request_id=request_id,
            )
            response = self._stub.Recommend(request, timeout=self.timeout)
        return _answer(response, response.item_ids, response.scores, response.unknown_item_ids)

    def score(
        self,
        user_id: object,
        item_ids: Sequence[object],
        *,
        history: Sequence[object] | None = None,
        ratings: Sequence[float] = (),
        details: bool = True,
        request_id: str = "",
    ) -> Answer:
        """The probability that a user likes each of the items, in their order. Raises ClientError."""
        with self._explained():
            request = pb.ScoreRequest(
                user_id=str(user_id),
                item_ids=map(str, item_ids),
                history=_history(history, ratings),
                include_details=details,
                request_id=request_id,
            )
            response = self._stub.Score(request, timeout=self.timeout)
        return _answer(response, request.item_ids, response.probabilities, ())

    def info(self) -> ModelInfo:
        """The served model. Raises ClientError."""
        with self._explained():
            response = self._stub.GetModel(pb.GetModelRequest(), timeout=self.timeout)
        return ModelInfo(
            model=_model(response.model),
            dataset=response.dataset,
            user_count=response.user_count,
            item_count=response.item_count,
            like_threshold=response.like_threshold,
            created_at=response.created_at,
            device=response.device,
            metrics=dict(response.metrics),
        )

    def health(self, service: str = "") -> str:
        """SERVING or NOT_SERVING. Raises ClientError."""
        with self._explained():
            response = self._health.Check(
                health_pb2.HealthCheckRequest(service=service), timeout=self.timeout
            )
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise self._explain(error) from error
        except (TypeError, ValueError) as error:  # protobuf: a value that a field cannot hold
            raise ClientError("INVALID_ARGUMENT", str(error)) from error

    def _explain(self, error: Any) -> ClientError:
        code = error.code().name
        status = rpc_status.from_call(error)
        field = ""
        for detail in status.details if status else ():
            request = error_details_pb2.BadRequest()
            if detail.Unpack(request) and request.field_violations:
                field = request.field_violations[0].field
        if code == "DEADLINE_EXCEEDED":
            return ClientError(code, f"no answer from {self.target} within {self.timeout:g} s. {START}")
        if code == "UNAVAILABLE" and status is None:  # a server that is there but cannot answer sends details
            return ClientError(code, f"cannot reach a server at {self.target}. {START}")
        return ClientError(code, error.details() or "the server gave no reason.", field)


def _history(item_ids: Sequence[object] | None, ratings: Sequence[float]) -> pb.History | None:
    if item_ids is None and not len(ratings):
        return None
    return pb.History(item_ids=map(str, () if item_ids is None else item_ids), ratings=ratings)


def _answer(
    response: Any, item_ids: Sequence[str], scores: Sequence[float], unknown: Sequence[str]
) -> Answer:
    known = response.details
    detailed = response.HasField("details")
    reasons = _reasons(response.reasons) if isinstance(response, pb.RecommendResponse) else []
    items = tuple(
        Item(
            rank=position + 1,
            item_id=item_id,
            score=score,
            title=known.titles[position] if detailed else "",
            genres=tuple(filter(None, known.genres[position].split("|"))) if detailed else (),
            year=known.years[position] if detailed else 0,
            reasons=reasons[position] if reasons else (),
        )
        for position, (item_id, score) in enumerate(zip(item_ids, scores, strict=True))
    )
    reason = pb.ColdStartReason.Name(response.cold_start_reason).removeprefix("COLD_START_REASON_")
    return Answer(
        items=items,
        model=_model(response.model),
        cold_start=reason if response.cold_start else "",
        unknown_items=tuple(unknown),
        request_id=response.request_id,
    )


def _reasons(found: pb.Reasons) -> list[tuple[Reason, ...]]:
    """One tuple for each recommended item."""
    columns = zip(
        found.history_item_ids,
        found.titles or [""] * len(found.history_item_ids),
        found.contributions,
        found.wide_contributions,
        strict=True,
    )
    reasons = itertools.starmap(Reason, columns)
    return [tuple(itertools.islice(reasons, count)) for count in found.counts]


def _model(version: pb.ModelVersion) -> Model:
    return Model(version.name, version.version, version.alias)
