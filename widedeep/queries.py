"""What can be asked of a Recommender, and what it answers. Ids here are the caller's."""

from __future__ import annotations

import enum
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


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
    fallback: str = "popularity"  # what comes where the ranking cannot be personal: popularity, or error


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
    fallback: str = (
        "popularity"  # what comes where the probabilities cannot be personal: the items' own, or error
    )


@dataclass(frozen=True)
class Scores:
    """probabilities  (items,) float32 of a like, in the order of the query's item_ids"""

    probabilities: np.ndarray
    cold_start: ColdStart | None = None


@dataclass(frozen=True)
class SimilarQuery:
    """Which items are most like these?  The fields are those of Query."""

    item_ids: Sequence[Hashable]  # 1 to 100; those that are like all of them come first
    k: int = 10  # 1 to 1000
    exclude_items: Sequence[Hashable] = ()
    candidates: Sequence[Hashable] | None = None
    genres: Sequence[str] = ()
    year_from: int | None = None
    year_to: int | None = None
    include_cold_items: bool = False


@dataclass(frozen=True)
class Similar:
    """The answer to a SimilarQuery, the most similar first; the query's own items are not in it.

    item_ids       at most k ids in the type of the training file
    similarities   in [-1, 1]
    unknown_items  candidates that the model does not know
    """

    item_ids: list[Any]
    similarities: list[float]
    unknown_items: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class RankingMethod:
    """How the whole catalogue is ranked, and what was measured of it.

    precision            in which the best items are found: float32 or bfloat16; they are ranked in float32
    precision_agreement  share of the 100 best items by float32 that this precision finds
    approximate          candidates come from an index and the model ranks those; else it ranks every item
    recall               share of the 100 best items of the exact ranking that the approximate one finds
    """

    precision: str = "float32"
    precision_agreement: float = 1.0
    approximate: bool = False
    recall: float = 1.0
