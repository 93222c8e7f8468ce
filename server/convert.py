"""Between protobuf and plain values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from server.model_store import Details, ServedModel
from server.pb import recommender_pb2 as pb
from server.settings import ServerSettings
from widedeep.errors import InvalidQueryError
from widedeep.queries import ColdStart, Query, Ranking, ScoreQuery, Scores

DEFAULT_K = 10
COLD_START_REASONS = {
    reason: pb.ColdStartReason.Value(f"COLD_START_REASON_{reason.name}") for reason in ColdStart
}


def to_query(request: pb.RecommendRequest, limits: ServerSettings) -> Query:
    """Raises  InvalidQueryError: more than the limits allow"""
    k = request.k if request.HasField("k") else DEFAULT_K
    if not 1 <= k <= limits.max_k:
        raise InvalidQueryError("k", f"must be from 1 to {limits.max_k}, got {k}.")
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
    )


def to_score_query(request: pb.ScoreRequest, limits: ServerSettings) -> ScoreQuery:
    """Raises  InvalidQueryError: more than the limits allow, or nothing to score"""
    _check_id("request_id", request.request_id, limits)
    history, ratings = _history(request, limits)
    item_ids = _ids("item_ids", request.item_ids, limits)
    if not item_ids:
        raise InvalidQueryError("item_ids", "is empty. Name at least one item to score.")
    return ScoreQuery(
        user_id=_user_id(request.user_id, limits), item_ids=item_ids, history=history, history_ratings=ratings
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
    _fill_common(response, request.request_id, ranking.cold_start, details, model)


def fill_scores(
    response: pb.ScoreResponse,
    request: pb.ScoreRequest,
    scores: Scores,
    details: Details | None,
    model: ServedModel,
) -> None:
    """Write probabilities into `response`, in place."""
    response.probabilities.extend(scores.probabilities.tolist())  # an array's own items cost 9 times as much
    _fill_common(response, request.request_id, scores.cold_start, details, model)


def to_model_response(model: ServedModel) -> pb.GetModelResponse:
    about = model.recommender.describe()
    return pb.GetModelResponse(
        model=pb.ModelVersion(name=model.name, version=model.version, alias=model.alias),
        dataset=about.get("dataset", ""),
        user_count=about["users"],
        item_count=about["items"],
        like_threshold=about["like_threshold"],
        created_at=about.get("created", ""),
        device=about["device"],
        metrics={
            name: value for name, value in about.get("metrics", {}).items() if isinstance(value, int | float)
        },
    )


def _fill_reasons(target: pb.Reasons, ranking: Ranking, details: Details | None) -> None:
    target.counts.extend(map(len, ranking.reasons))
    reasons = [reason for reasons in ranking.reasons for reason in reasons]
    target.history_item_ids.extend(str(reason.item_id) for reason in reasons)
    target.contributions.extend(reason.contribution for reason in reasons)
    target.wide_contributions.extend(reason.wide for reason in reasons)
    if details is not None:
        target.titles.extend(details.reason_titles)


def _fill_common(
    response: Any, request_id: str, cold_start: ColdStart | None, details: Details | None, model: ServedModel
) -> None:
    response.request_id = request_id
    if cold_start is not None:
        response.cold_start = True
        response.cold_start_reason = COLD_START_REASONS[cold_start]
    if details is not None:
        response.details.titles.extend(details.titles)
        response.details.genres.extend(details.genres)
        response.details.years.extend(details.years)
    version = response.model
    version.name, version.version, version.alias = model.name, model.version, model.alias


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
    if ids:
        _check_id(field, max(ids, key=len), limits)
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
