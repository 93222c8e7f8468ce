"""Plain values to requests and responses to plain values. No I/O: both clients use it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar

from server.client.queries import Recommend, Score, Similar
from server.client.values import (
    Answer,
    Item,
    Model,
    ModelInfo,
    ModelStatus,
    RankingMethod,
    Reason,
    RegistryStatus,
    ShadowAgreement,
)
from server.pb import recommender_pb2 as pb

Q = TypeVar("Q")


@dataclass(frozen=True)
class Method(Generic[Q]):
    """A method of the service that answers one kind of query.

    build     query -> request; raises TypeError or ValueError for what a field cannot hold
    read      request, response -> answer
    envelope  one message of the method's stream; None if it has no stream
    """

    name: str
    build: Callable[[Q], Any]
    read: Callable[[Any, Any], Answer]
    envelope: Callable[..., Any] | None = None


def recommend_request(query: Recommend) -> pb.RecommendRequest:
    return pb.RecommendRequest(
        user_id=str(query.user_id),
        k=query.k,
        exclude_seen=query.exclude_seen,
        exclude_item_ids=map(str, query.exclude),
        candidate_item_ids=map(str, query.candidates),
        genres=query.genres,
        year_from=query.year_from,
        year_to=query.year_to,
        include_cold_items=query.include_cold_items,
        explain=query.explain,
        diversity=query.diversity,
        history=_history(query),
        fallback=_fallback(query.fallback),
        include_details=query.details,
        model_version=query.model_version,
        request_id=query.request_id,
    )


def score_request(query: Score) -> pb.ScoreRequest:
    return pb.ScoreRequest(
        user_id=str(query.user_id),
        item_ids=map(str, query.item_ids),
        history=_history(query),
        fallback=_fallback(query.fallback),
        include_details=query.details,
        model_version=query.model_version,
        request_id=query.request_id,
    )


def similar_request(query: Similar) -> pb.SimilarItemsRequest:
    return pb.SimilarItemsRequest(
        item_ids=map(str, query.item_ids),
        k=query.k,
        exclude_item_ids=map(str, query.exclude),
        candidate_item_ids=map(str, query.candidates),
        genres=query.genres,
        year_from=query.year_from,
        year_to=query.year_to,
        include_cold_items=query.include_cold_items,
        include_details=query.details,
        model_version=query.model_version,
        request_id=query.request_id,
    )


def _ranking(_: pb.RecommendRequest, response: pb.RecommendResponse) -> Answer:
    reasons = _reasons(response.reasons)
    items = _items(response, response.item_ids, response.scores, reasons)
    return _answer(response, items, _cold_start(response), response.unknown_item_ids)


def _probabilities(request: pb.ScoreRequest, response: pb.ScoreResponse) -> Answer:
    items = _items(response, request.item_ids, response.probabilities)
    return _answer(response, items, _cold_start(response), ())


def _similarities(_: pb.SimilarItemsRequest, response: pb.SimilarItemsResponse) -> Answer:
    items = _items(response, response.item_ids, response.similarities)
    return _answer(response, items, "", response.unknown_item_ids)


RECOMMEND = Method("Recommend", recommend_request, _ranking, pb.RecommendStreamRequest)
SCORE = Method("Score", score_request, _probabilities, pb.ScoreStreamRequest)
SIMILAR = Method("SimilarItems", similar_request, _similarities)


def model_info(response: pb.GetModelResponse) -> ModelInfo:
    ranking, registry = response.ranking, response.registry
    return ModelInfo(
        model=_model(response.model),
        dataset=response.dataset,
        user_count=response.user_count,
        item_count=response.item_count,
        like_threshold=response.like_threshold,
        created_at=response.created_at,
        device=response.device,
        metrics=dict(response.metrics),
        ranking=RankingMethod(
            precision=ranking.precision,
            precision_agreement=ranking.precision_agreement,
            approximate=ranking.approximate,
            recall=ranking.recall,
        )
        if response.HasField("ranking")
        else None,
        registry=RegistryStatus(
            following=registry.following,
            reachable=registry.reachable,
            error=registry.error,
            seconds_since_answer=registry.seconds_since_answer
            if registry.seconds_since_answer >= 0
            else None,
            from_cache=registry.from_cache,
            reload_count=registry.reload_count,
            refused_count=registry.refused_count,
            failure_count=registry.failure_count,
        )
        if response.HasField("registry")
        else None,
    )


def model_statuses(response: pb.ListModelsResponse) -> tuple[ModelStatus, ...]:
    return tuple(
        ModelStatus(
            model=_model(found.model),
            state=pb.ModelState.Name(found.state).removeprefix("MODEL_STATE_"),
            reason=found.reason,
            lease_count=found.lease_count,
            since=found.since,
            share=found.share,
            agreement=_agreement(found.agreement) if found.HasField("agreement") else None,
        )
        for found in response.models
    )


def _agreement(found: pb.ShadowAgreement) -> ShadowAgreement:
    return ShadowAgreement(
        compared_version=found.compared_version,
        ranking_count=found.ranking_count,
        mean_overlap=found.mean_overlap,
        same_first_share=found.same_first_share,
        score_count=found.score_count,
        mean_difference=found.mean_difference,
        dropped_count=found.dropped_count,
        failed_count=found.failed_count,
    )


def _history(query: Recommend | Score) -> pb.History | None:
    if query.history is None and not len(query.ratings):
        return None
    item_ids = () if query.history is None else query.history
    return pb.History(item_ids=map(str, item_ids), ratings=query.ratings)


def _fallback(name: str) -> pb.Fallback:
    if name not in ("", "popularity", "error"):
        raise ValueError(f"fallback must be 'popularity' or 'error', got {name!r}.")
    value: pb.Fallback = pb.Fallback.Value(f"FALLBACK_{name.upper() or 'UNSPECIFIED'}")
    return value


def _items(
    response: Any,
    item_ids: Sequence[str],
    scores: Sequence[float],
    reasons: Sequence[tuple[Reason, ...]] = (),
) -> tuple[Item, ...]:
    count = len(item_ids)
    titles: Sequence[str] = [""] * count
    genres: Sequence[tuple[str, ...]] = [()] * count
    years: Sequence[int] = [0] * count
    if response.HasField("details"):
        known = response.details
        titles, genres, years = known.titles, [_genres(text) for text in known.genres], known.years
    ranks = range(1, count + 1)
    columns = zip(ranks, item_ids, scores, titles, genres, years, reasons or [()] * count, strict=True)
    return tuple(itertools.starmap(Item, columns))


@lru_cache(10_000)
def _genres(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.split("|")))


def _answer(response: Any, items: tuple[Item, ...], cold_start: str, unknown: Sequence[str]) -> Answer:
    return Answer(
        items=items,
        model=_model(response.model),
        cold_start=cold_start,
        unknown_items=tuple(unknown),
        request_id=response.request_id,
    )


def _cold_start(response: pb.RecommendResponse | pb.ScoreResponse) -> str:
    reason = pb.ColdStartReason.Name(response.cold_start_reason).removeprefix("COLD_START_REASON_")
    return reason if response.cold_start else ""


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
