"""Which query goes into which lane, and what it costs there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from server.batcher import Lane
from server.deadlines import Deadlines
from server.served import Details, ServedModel
from server.settings import ServerSettings
from server.status import OverloadedError
from server.work import Batch
from widedeep.queries import Query, Ranking, ScoreQuery, Scores, Similar, SimilarQuery

EXPLAINED = (
    50  # a ranking with reasons took 35 to 50 times as long as one without, with 45 entries in a history
)


class Lanes:
    """Rankings and scores apart, so that a long ranking does not hold up a score."""

    def __init__(self, settings: ServerSettings, observers: Sequence[Callable[[Batch], None]] = ()) -> None:
        """observers  told of each batch"""
        wait = settings.max_wait
        self.rankings = Lane(
            "ranking", settings.queued_rankings, settings.rankings_at_once, wait, observers=observers
        )
        self.scores = Lane(
            "scoring", settings.queued_scores, settings.scores_at_once, wait, observers=observers
        )
        self._deadlines = Deadlines.of(settings)
        self._of_method = {
            "Recommend": self.rankings,
            "SimilarItems": self.rankings,
            "Score": self.scores,
        }

    def __iter__(self) -> Iterator[Lane]:
        return iter((self.rankings, self.scores))

    def refusal(self, method: str) -> OverloadedError | None:
        """Why a call of this method would be refused now, whatever it asks."""
        lane = self._of_method.get(method)
        return None if lane is None else lane.refusal()

    async def recommend(
        self,
        model: ServedModel,
        query: Query,
        with_details: bool,
        remaining: float | None,
        patient: bool = False,
    ) -> tuple[Ranking, Details | None]:
        """Raises  RequestError, OverloadedError, DeadlineError"""
        cost = EXPLAINED if query.explain else 1
        asked = query, with_details
        answer: tuple[Ranking, Details | None] = await self.rankings.answer(
            model.recommend, asked, cost, self._deadlines.within(remaining), patient
        )
        return answer

    async def similar(
        self, model: ServedModel, query: SimilarQuery, with_details: bool, remaining: float | None
    ) -> tuple[Similar, Details | None]:
        """Raises  RequestError, OverloadedError, DeadlineError"""
        asked = query, with_details
        answer: tuple[Similar, Details | None] = await self.rankings.answer(
            model.similar, asked, 1, self._deadlines.within(remaining)
        )
        return answer

    async def score(
        self,
        model: ServedModel,
        query: ScoreQuery,
        with_details: bool,
        remaining: float | None,
        patient: bool = False,
    ) -> tuple[Scores, Details | None]:
        """Raises  RequestError, OverloadedError, DeadlineError"""
        asked, cost = (query, with_details), len(query.item_ids)
        answer: tuple[Scores, Details | None] = await self.scores.answer(
            model.score, asked, cost, self._deadlines.within(remaining), patient
        )
        return answer

    def apply(self, settings: ServerSettings) -> None:
        self.rankings.most_queued = settings.queued_rankings
        self.rankings.most_at_once = settings.rankings_at_once
        self.scores.most_queued = settings.queued_scores
        self.scores.most_at_once = settings.scores_at_once
        self.rankings.max_wait = self.scores.max_wait = settings.max_wait

    def close(self) -> None:
        """Compute nothing more."""
        self.rankings.close()
        self.scores.close()
