"""Between protobuf and plain values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from server.pb import recommender_pb2 as pb
from server.served import Details, ServedModel
from server.settings import ServerSettings
from widedeep.errors import InvalidQueryError
from widedeep.queries import ColdStart, Query, Ranking, ScoreQuery, Scores, Similar, SimilarQuery

DEFAULT_K = 10
COLD_START_REASONS = {
    reason: pb.ColdStartReason.Value(f"COLD_START_REASON_{reason.name}") for reason in ColdStart
}
FALLBACKS: dict[int, str] = {
    pb.FALLBACK_UNSPECIFIED: "popularity",
    pb.FALLBACK_POPULARITY: "popularity",
    pb.FALLBACK_ERROR: "error",
}
MOST_SIMILAR_TO = 100  # items in a SimilarItemsRequest


def to_query(request: pb.RecommendRequest, limits: ServerSettings) -> Query:
    """Raises  InvalidQueryError: more than the limits allow"""
    k = _k(request, limits)
    _check_id("request_id", request.request_id, limits)
    history, ratings = _history(request, limits)
    return Query(
        user_id=_user_id(request.user_id, limits),
        k=k,
        exclude_seen=request.exclude_seen if request.HasField("exclude_seen") else True,
        exclude_items=_ids("exclude_item_ids", request.exclude_item_ids, limits),
        candidates=_ids("candidate_item_ids", request.candidate_item_ids, limits) or None,
        history=history,
        history_ratings=ratings,
        genres=_ids("genres", request.genres, limits),
        year_from=request.year_from if request.HasField("year_from") else None,
        year_to=request.year_to if request.HasField("year_to") else None,
        include_cold_items=request.include_cold_items,
        explain=request.explain,
        diversity=request.diversity,
        fallback=_fallback(request.fallback),
    )


def to_score_query(request: pb.ScoreRequest, limits: ServerSettings) -> ScoreQuery:
    """Raises  InvalidQueryError: more than the limits allow, or nothing to score"""
    _check_id("request_id", request.request_id, limits)
    history, ratings = _history(request, limits)
    item_ids = _ids("item_ids", request.item_ids, limits)
    if not item_ids:
        raise InvalidQueryError("item_ids", "is empty. Name at least one item to score.")
    return ScoreQuery(
        user_id=_user_id(request.user_id, limits),
        item_ids=item_ids,
        history=history,
        history_ratings=ratings,
        fallback=_fallback(request.fallback),
    )


def to_similar_query(request: pb.SimilarItemsRequest, limits: ServerSettings) -> SimilarQuery:
    """Raises  InvalidQueryError: more than the limits allow, or nothing to be similar to"""
    _check_id("request_id", request.request_id, limits)
    item_ids = _ids("item_ids", request.item_ids, limits, min(MOST_SIMILAR_TO, limits.max_items))
    if not item_ids:
        raise InvalidQueryError("item_ids", "is empty. Name at least one item to find similar ones of.")
    return SimilarQuery(
        item_ids=item_ids,
        k=_k(request, limits),
        exclude_items=_ids("exclude_item_ids", request.exclude_item_ids, limits),
        candidates=_ids("candidate_item_ids", request.candidate_item_ids, limits) or None,
        genres=_ids("genres", request.genres, limits),
        year_from=request.year_from if request.HasField("year_from") else None,
        year_to=request.year_to if request.HasField("year_to") else None,
        include_cold_items=request.include_cold_items,
    )


def fill_recommendation(
    response: pb.RecommendResponse,
    request: pb.RecommendRequest,
    ranking: Ranking,
    details: Details | None,
    model: ServedModel,
) -> None:
    """Write a ranking into `response`, in place: a stream's response need not be copied into its envelope."""
    response.item_ids.extend(map(str, ranking.item_ids))
    response.scores.extend(ranking.scores)
    response.unknown_item_ids.extend(map(str, ranking.unknown_items))
    if request.explain:
        _fill_reasons(response.reasons, ranking, details)
    _fill_cold_start(response, ranking.cold_start)
    _fill_common(response, request.request_id, details, model)


def fill_scores(
    response: pb.ScoreResponse,
    request: pb.ScoreRequest,
    scores: Scores,
    details: Details | None,
    model: ServedModel,
) -> None:
    """Write probabilities into `response`, in place."""
    response.probabilities.extend(scores.probabilities.tolist())  # an array's own items cost 9 times as much
    _fill_cold_start(response, scores.cold_start)
    _fill_common(response, request.request_id, details, model)


def to_similar_response(
    request: pb.SimilarItemsRequest, similar: Similar, details: Details | None, model: ServedModel
) -> pb.SimilarItemsResponse:
    response = pb.SimilarItemsResponse(
        item_ids=map(str, similar.item_ids),
        similarities=similar.similarities,
        unknown_item_ids=map(str, similar.unknown_items),
    )
    _fill_common(response, request.request_id, details, model)
    return response


def _fill_reasons(target: pb.Reasons, ranking: Ranking, details: Details | None) -> None:
    target.counts.extend(map(len, ranking.reasons))
    reasons = [reason for reasons in ranking.reasons for reason in reasons]
    target.history_item_ids.extend(str(reason.item_id) for reason in reasons)
    target.contributions.extend(reason.contribution for reason in reasons)
    target.wide_contributions.extend(reason.wide for reason in reasons)
    if details is not None:
        target.titles.extend(details.reason_titles)


def _fill_cold_start(response: Any, cold_start: ColdStart | None) -> None:
    if cold_start is not None:
        response.cold_start = True
        response.cold_start_reason = COLD_START_REASONS[cold_start]


def _fill_common(response: Any, request_id: str, details: Details | None, model: ServedModel) -> None:
    response.request_id = request_id
    if details is not None:
        response.details.titles.extend(details.titles)
        response.details.genres.extend(details.genres)
        response.details.years.extend(details.years)
    version = response.model
    version.name, version.version, version.alias = model.name, model.version, model.alias


def _k(request: pb.RecommendRequest | pb.SimilarItemsRequest, limits: ServerSettings) -> int:
    k = request.k if request.HasField("k") else DEFAULT_K
    if not 1 <= k <= limits.max_k:
        raise InvalidQueryError("k", f"must be from 1 to {limits.max_k}, got {k}.")
    return k


def _fallback(value: int) -> str:
    if value not in FALLBACKS:
        raise InvalidQueryError(
            "fallback", f"{value} is no Fallback. Leave it out, or use POPULARITY or ERROR."
        )
    return FALLBACKS[value]


def _user_id(user_id: str, limits: ServerSettings) -> str | None:
    _check_id("user_id", user_id, limits)
    return user_id or None


def _history(
    request: pb.RecommendRequest | pb.ScoreRequest, limits: ServerSettings
) -> tuple[list[str] | None, list[float] | None]:
    if not request.HasField("history"):
        return None, None
    item_ids = _ids("history.item_ids", request.history.item_ids, limits, limits.max_history)
    return item_ids, list(request.history.ratings) or None


def _ids(field: str, values: Iterable[str], limits: ServerSettings, most: int | None = None) -> list[str]:
    ids = list(values)
    _check_count(field, ids, limits.max_items if most is None else most)
    if ids and (longest := max(map(len, ids))) > limits.max_id_length:
        _check_id(field, next(value for value in ids if len(value) == longest), limits)
    return ids


def _check_count(field: str, values: Sequence[Any], most: int) -> None:
    if len(values) > most:
        raise InvalidQueryError(
            field, f"has {len(values)} entries; one request takes {most}. Send it in parts."
        )


def _check_id(field: str, value: str, limits: ServerSettings) -> None:
    if len(value) > limits.max_id_length:
        raise InvalidQueryError(
            field,
            f"has an id of {len(value)} characters; the longest that is taken has {limits.max_id_length}.",
        )
