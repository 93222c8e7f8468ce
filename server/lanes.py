"""Which query goes into which lane, and what it costs there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from server.batcher import Batch, Lane
from server.served import Details, ServedModel
from server.settings import ServerSettings
from widedeep.queries import Query, Ranking, ScoreQuery, Scores, Similar, SimilarQuery

EXPLAINED = (
    50  # a ranking with reasons took 35 to 50 times as long as one without, with 45 entries in a history
)


class Lanes:
    """Rankings and scores apart, so that a long ranking does not hold up a score."""

    def __init__(self, settings: ServerSettings, observers: Sequence[Callable[[Batch], None]] = ()) -> None:
        """observers  told of each batch"""
        self.rankings = Lane("ranking", settings.queued_rankings, settings.rankings_at_once, observers)
        self.scores = Lane("scoring", settings.queued_scores, settings.scores_at_once, observers)

    def __iter__(self) -> Iterator[Lane]:
        return iter((self.rankings, self.scores))

    async def recommend(
        self, model: ServedModel, query: Query, with_details: bool, remaining: float | None
    ) -> tuple[Ranking, Details | None]:
        """Raises  RequestError, OverloadedError, DeadlineError"""
        cost = EXPLAINED if query.explain else 1
        asked = query, with_details
        answer: tuple[Ranking, Details | None] = await self.rankings.answer(
            model.recommend, asked, cost, remaining
        )
        return answer

    async def similar(
        self, model: ServedModel, query: SimilarQuery, with_details: bool, remaining: float | None
    ) -> tuple[Similar, Details | None]:
        """Raises  RequestError, OverloadedError, DeadlineError"""
        asked = query, with_details
        answer: tuple[Similar, Details | None] = await self.rankings.answer(
            model.similar, asked, 1, remaining
        )
        return answer

    async def score(
        self, model: ServedModel, query: ScoreQuery, with_details: bool, remaining: float | None
    ) -> tuple[Scores, Details | None]:
        """Raises  RequestError, OverloadedError, DeadlineError"""
        asked, cost = (query, with_details), len(query.item_ids)
        answer: tuple[Scores, Details | None] = await self.scores.answer(model.score, asked, cost, remaining)
        return answer

    def close(self) -> None:
        """Compute nothing more."""
        self.rankings.close()
        self.scores.close()
