"""A model that can be served: a recommender, the version it came from, and who holds it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from widedeep.errors import RequestError
from widedeep.queries import Query, RankingMethod, ScoreQuery, SimilarQuery
from widedeep.recommender import Recommender


def now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Details:
    """What is known of a list of items, in parallel lists.

    reason_titles  titles of what the reasons name, item by item
    """

    titles: list[str]
    genres: list[str]
    years: list[int]
    reason_titles: list[str] = field(default_factory=list)


@dataclass(eq=False)
class ServedModel:
    """A recommender and the version it came from.

    The methods that take queries compute: call them off the event loop. Each takes (query, with_details) pairs and
    gives (answer, details) pairs or, in place of one, its RequestError.

    `recommender` is there while the model is served or leased, and is taken away after that.
    """

    recommender: Recommender
    name: str
    version: str
    alias: str  # empty for a model that was asked for by version or by path
    digest: str = ""  # SHA-256 of its bundle
    ranking: RankingMethod = field(default_factory=RankingMethod)
    from_cache: bool = False  # found without the registry, which has not confirmed it since
    leases: int = 0  # requests that hold it; counted by the event loop's thread alone
    since: datetime = field(default_factory=now)  # since when it is served, or retired

    def __str__(self) -> str:
        return f"{self.name} version {self.version}" + (f" ({self.alias})" if self.alias else "")

    def recommend(self, asked: Sequence[tuple[Query, bool]]) -> list[Any]:
        rankings = self.recommender.rank_each([query for query, _ in asked])
        return [self._detailed(ranking, wanted) for ranking, (_, wanted) in zip(rankings, asked, strict=True)]

    def score(self, asked: Sequence[tuple[ScoreQuery, bool]]) -> list[Any]:
        scores = self.recommender.score_each([query for query, _ in asked])
        return [
            self._detailed(found, wanted, query.item_ids)
            for found, (query, wanted) in zip(scores, asked, strict=True)
        ]

    def similar(self, asked: Sequence[tuple[SimilarQuery, bool]]) -> list[Any]:
        found = self.recommender.similar_each([query for query, _ in asked])
        return [self._detailed(items, wanted) for items, (_, wanted) in zip(found, asked, strict=True)]

    def warm_up(self, rankings: Sequence[int], scores: Sequence[int]) -> None:
        """Answer batches of every kind and size, so that no client waits for what happens once.

        rankings  how many queries to rank at once, for each batch
        scores    how many items to score at once, for each batch

        Raises  RequestError and whatever else keeps it from answering
        """
        user_id = self.recommender.processor.users.id_of(1)
        item_id = self.recommender.processor.items.id_of(1)
        kinds = [
            (self.recommend, Query(k=10)),
            (self.recommend, Query(k=10, include_cold_items=True, explain=1, diversity=0.5)),
            (self.similar, SimilarQuery([item_id])),
            *((self.recommend, [Query(user_id=user_id)] * size) for size in rankings),
            *((self.score, ScoreQuery(user_id, [item_id] * size)) for size in scores),
        ]
        for compute, query in kinds:
            queries = query if isinstance(query, list) else [query]
            for answer in compute([(one, True) for one in queries]):  # type: ignore[operator]
                if isinstance(answer, Exception):
                    raise answer

    def _detailed(
        self, answer: Any, wanted: bool, item_ids: Sequence[Hashable] | None = None
    ) -> RequestError | tuple[Any, Details | None]:
        """item_ids  whose details are wanted; None: those of the answer"""
        if isinstance(answer, RequestError):
            return answer
        if not wanted:
            return answer, None
        known = self.recommender
        items = answer.item_ids if item_ids is None else item_ids
        because = [reason.item_id for reasons in getattr(answer, "reasons", ()) for reason in reasons]
        details = Details(
            known.item_titles(items),
            known.item_genres(items),
            known.item_years(items),
            known.item_titles(because),
        )
        return answer, details
