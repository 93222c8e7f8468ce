"""What the client asks: plain, frozen, in the user's own words.

A stream takes these objects; a single call takes the same fields as arguments. The TypedDicts are those fields once
more, for the type checker; a test holds them to be the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Literal, TypedDict

Fallback = Literal["", "popularity", "error"]


@dataclass(frozen=True)
class Recommend:
    """Which `k` items may a user want next?"""

    user_id: object = ""  # empty for somebody without an id
    k: int = 10
    _: KW_ONLY
    history: Sequence[object] | None = None  # item ids, oldest first, instead of what the model has stored
    ratings: Sequence[
        float
    ] = ()  # one for each item of the history, or none: every item then counts as liked
    exclude_seen: bool = True
    exclude: Sequence[object] = ()  # item ids that must not come
    candidates: Sequence[object] = ()  # rank only these item ids
    genres: Sequence[str] = ()  # only items with one of these
    year_from: int | None = None
    year_to: int | None = None
    include_cold_items: bool = False  # rank items without interactions, too, by their features
    explain: int = 0  # 0 to 100 reasons for each item
    diversity: float = 0.0  # 0 to 1: how much the variety of genres counts against the scores
    fallback: Fallback = ""  # where the answer cannot be personal: popularity (the default), or an error
    details: bool = True  # ask for titles, genres and years
    model_version: str = (
        ""  # only this version may answer, such as "7"; empty: the one that is meant for the user
    )
    request_id: str = ""  # comes back in the answer


@dataclass(frozen=True)
class Score:
    """How likely is a user to like each of these items?"""

    user_id: object
    item_ids: Sequence[object]
    _: KW_ONLY
    history: Sequence[object] | None = None  # as in Recommend
    ratings: Sequence[float] = ()
    fallback: Fallback = ""
    details: bool = True
    model_version: str = ""
    request_id: str = ""


@dataclass(frozen=True)
class Similar:
    """Which `k` items are most like these?"""

    item_ids: Sequence[object]
    k: int = 10
    _: KW_ONLY
    exclude: Sequence[object] = ()  # as in Recommend
    candidates: Sequence[object] = ()
    genres: Sequence[str] = ()
    year_from: int | None = None
    year_to: int | None = None
    include_cold_items: bool = False
    details: bool = True
    model_version: str = ""
    request_id: str = ""


class ScoreOptions(TypedDict, total=False):
    history: Sequence[object] | None
    ratings: Sequence[float]
    fallback: Fallback
    details: bool
    model_version: str
    request_id: str


class SimilarOptions(TypedDict, total=False):
    exclude: Sequence[object]
    candidates: Sequence[object]
    genres: Sequence[str]
    year_from: int | None
    year_to: int | None
    include_cold_items: bool
    details: bool
    model_version: str
    request_id: str


class RecommendOptions(ScoreOptions, SimilarOptions, total=False):
    exclude_seen: bool
    explain: int
    diversity: float
