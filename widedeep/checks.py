"""Whether a query can be answered, as far as that needs no look at the data."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from widedeep.errors import InvalidQueryError
from widedeep.queries import Query, ScoreQuery, SimilarQuery

MAX_K = 1000
MAX_EXPLAIN = 100
MAX_SIMILAR_TO = 100
FALLBACKS = ("popularity", "error")


def check_ranking(query: Query, genre_names: Sequence[str]) -> None:
    """Raises  InvalidQueryError, with the field's name"""
    _check_list(query, genre_names)
    check_history(query.history, query.history_ratings)
    count, share = query.explain, query.diversity
    if not _is_whole(count) or not 0 <= count <= MAX_EXPLAIN:
        raise InvalidQueryError("explain", f"must be a whole number from 0 to {MAX_EXPLAIN}, got {count!r}")
    if isinstance(share, bool) or not isinstance(share, int | float | np.number) or not 0 <= share <= 1:
        raise InvalidQueryError("diversity", f"must be a number from 0 to 1, got {share!r}")
    _check_fallback(query.fallback)


def check_scoring(query: ScoreQuery) -> None:
    """Raises  InvalidQueryError, with the field's name"""
    check_history(query.history, query.history_ratings)
    _check_fallback(query.fallback)


def check_similar(query: SimilarQuery, genre_names: Sequence[str]) -> None:
    """Raises  InvalidQueryError, with the field's name"""
    _check_list(query, genre_names)
    if isinstance(query.item_ids, str) or not 1 <= len(query.item_ids) <= MAX_SIMILAR_TO:
        raise InvalidQueryError(
            "item_ids", f"must be a list of 1 to {MAX_SIMILAR_TO} items, got {query.item_ids!r:.60}"
        )


def check_history(history: Sequence[Hashable] | None, ratings: Sequence[float] | None) -> None:
    """Raises  InvalidQueryError: ratings that are not one finite number per item"""
    if ratings is None or not len(ratings):
        return
    if len(ratings) != len(history or ()):
        raise InvalidQueryError(
            "history_ratings",
            f"needs one rating per item of the history ({len(history or ())}), got {len(ratings)}",
        )
    for position, rating in enumerate(ratings):
        if not math.isfinite(rating):
            raise InvalidQueryError(f"history_ratings[{position}]", f"must be a finite number, got {rating}")


def _check_list(query: Query | SimilarQuery, genre_names: Sequence[str]) -> None:
    """What queries for a list of items share: its length, and which items may come."""
    k = query.k
    if not _is_whole(k) or not 1 <= k <= MAX_K:
        raise InvalidQueryError("k", f"must be a whole number from 1 to {MAX_K}, got {k!r}")
    for name in query.genres:
        if name not in genre_names:
            known = ", ".join(genre_names) or "none: the model was trained without genres"
            raise InvalidQueryError("genres", f"there is no genre {name!r}; known: {known}")
    if query.year_from is not None and query.year_to is not None and query.year_from > query.year_to:
        raise InvalidQueryError("year_from", f"{query.year_from} is after year_to, {query.year_to}")
    if query.candidates is not None and not len(query.candidates):
        raise InvalidQueryError("candidates", "must name at least one item, or be left out")
    if not isinstance(query.include_cold_items, bool | np.bool):
        raise InvalidQueryError(
            "include_cold_items", f"must be True or False, got {query.include_cold_items!r}"
        )


def _check_fallback(fallback: str) -> None:
    if fallback not in FALLBACKS:
        raise InvalidQueryError("fallback", f"must be {' or '.join(FALLBACKS)}, got {fallback!r}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
