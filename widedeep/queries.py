"""What can be asked of a Recommender, and what it answers. Ids here are the caller's."""

from __future__ import annotations

import enum
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from widedeep.errors import InvalidQueryError

MAX_K = 1000
MAX_EXPLAIN = 100


class ColdStart(enum.StrEnum):
    """Why an answer is not personal."""

    NO_USER = "no user and no history were given"
    UNKNOWN_USER = "the user is not in the training data and no history was given"
    UNKNOWN_HISTORY = "no item of the history is in the training data"
    NO_LIKES = "the history holds nothing that was liked"


@dataclass(frozen=True)
class Query:
    """Which items next?  An id may come in the type of the training file or as its text."""

    user_id: Hashable | None = None
    k: int = 10  # 1 to 1000
    exclude_seen: bool = True  # leave out what is in the history
    exclude_items: Sequence[Hashable] = ()  # leave these out, too; unknown ones do no harm
    candidates: Sequence[Hashable] | None = None  # rank only these
    history: Sequence[Hashable] | None = None  # oldest first; takes the place of what is stored of the user
    history_ratings: Sequence[float] | None = None  # beside history; without them all of it counts as liked
    genres: Sequence[str] = ()  # only items of any of these genres
    year_from: int | None = None  # only items of this year or later
    year_to: int | None = None  # only items of this year or earlier
    include_cold_items: bool = False  # rank items without interactions, too, by their features
    explain: int = 0  # 0 to 100: for each item so many reasons out of the history
    diversity: float = 0.0  # 0 to 1: how much a list's variety counts against its scores


@dataclass(frozen=True)
class Reason:
    """A liked item of the history, and what it did for a recommended one, in units of the ranking score.

    contribution  the wide side's part, plus by how much the deep side's part falls without the item
    wide          the wide side's part: exact, over the whole history it sums to that side's score before centring
    """

    item_id: Any
    contribution: float
    wide: float


@dataclass(frozen=True)
class Ranking:
    """The answer to a Query, best first.

    item_ids       at most k ids in the type of the training file
    scores         standardised ranking scores: comparable within one ranking, no probabilities; with `diversity`
                   they need not fall from place to place
    cold_start     why the ranking is by popularity, None where it is personal
    unknown_items  candidates that the model does not know
    reasons        for each item, strongest first, what of the history raised it; empty if not asked for
    """

    item_ids: list[Any]
    scores: list[float]
    cold_start: ColdStart | None = None
    unknown_items: list[Any] = field(default_factory=list)
    reasons: list[list[Reason]] = field(default_factory=list)


@dataclass(frozen=True)
class ScoreQuery:
    """Would this user like these items?"""

    user_id: Hashable | None
    item_ids: Sequence[Hashable]
    history: Sequence[Hashable] | None = None
    history_ratings: Sequence[float] | None = None


@dataclass(frozen=True)
class Scores:
    """probabilities  (items,) float32 of a like, in the order of the query's item_ids"""

    probabilities: np.ndarray
    cold_start: ColdStart | None = None


def check_ranking(query: Query, genre_names: Sequence[str]) -> None:
    """Everything about a query that needs no look at the data.

    Raises  InvalidQueryError, with the field's name
    """
    k = query.k
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= MAX_K:
        raise InvalidQueryError("k", f"must be a whole number from 1 to {MAX_K}, got {k!r}")
    check_history(query.history, query.history_ratings)
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
    count, share = query.explain, query.diversity
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or not 0 <= count <= MAX_EXPLAIN:
        raise InvalidQueryError("explain", f"must be a whole number from 0 to {MAX_EXPLAIN}, got {count!r}")
    if isinstance(share, bool) or not isinstance(share, int | float | np.number) or not 0 <= share <= 1:
        raise InvalidQueryError("diversity", f"must be a number from 0 to 1, got {share!r}")


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
