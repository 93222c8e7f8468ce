"""The shadow: a model that is put the queries which another has answered, to see how far the two agree.

Nobody waits for it. Its queries come after the answer, in a lane of their own whose thread lets others go first; they
are dropped while users' queries wait for a model, or too many wait for the shadow.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from server.batcher import Lane
from server.lanes import Lanes
from server.loader import yield_to_others
from server.model_store import ModelStore
from server.served import ServedModel
from server.settings import ServerSettings
from server.status import OverloadedError
from server.work import Compute
from widedeep.errors import RequestError
from widedeep.queries import Query, Ranking, ScoreQuery, Scores

logger = logging.getLogger(__name__)

QUEUED = 64  # rankings that may wait for the shadow
AT_ONCE = 16  # rankings that it makes in one go: few, as its thread holds up others between its products
SCORES_AS_RANKING = 256  # items whose scores count as one ranking


@dataclass
class Agreement:
    """Of one version with another, since both have been served. Sums, of which ListModels tells the means.

    version     the shadow's
    compared    the version that answered
    overlap     of the rankings' lists: items in both over the length of the longer
    same_first  rankings whose first items are the same
    difference  of the scored requests: the mean absolute difference of the probabilities
    dropped     requests that the shadow had no time for
    failed      requests that it could not answer
    """

    version: str = ""
    compared: str = ""
    rankings: int = 0
    overlap: float = 0.0
    same_first: int = 0
    scores: int = 0
    difference: float = 0.0
    dropped: int = 0
    failed: int = 0

    def add_ranking(self, ours: Sequence[object], theirs: Sequence[object]) -> None:
        """ours, theirs  item ids, best first"""
        first, second = list(map(str, ours)), list(map(str, theirs))
        longer = max(len(first), len(second))
        self.rankings += 1
        self.overlap += len({*first} & {*second}) / longer if longer else 1.0
        self.same_first += first[:1] == second[:1]

    def add_scores(self, ours: np.ndarray, theirs: np.ndarray) -> None:
        self.scores += 1
        self.difference += float(np.abs(ours - theirs).mean())


class Shadow:
    """Compares the store's shadow with what has answered. To be used from one event loop."""

    def __init__(self, store: ModelStore, settings: ServerSettings, lanes: Lanes) -> None:
        """lanes  those of the users"""
        self.agreement = Agreement()
        self.share = settings.shadow_share
        self.lane = Lane("shadow", QUEUED, AT_ONCE, math.inf, yield_to_others)
        self._store = store
        self._lanes = lanes
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False

    def recommend(self, answered: ServedModel, query: Query, ranking: Ranking) -> None:
        """`ranking` is what `answered` has said to `query`."""
        if query.explain:  # reasons cost more than the ranking, and are not compared
            query = dataclasses.replace(query, explain=0)

        def add(agreement: Agreement, shadow: Ranking) -> None:
            agreement.add_ranking(ranking.item_ids, shadow.item_ids)

        self._compare(answered, "recommend", query, 1, add)

    def score(self, answered: ServedModel, query: ScoreQuery, scores: Scores) -> None:
        """`scores` are what `answered` has said to `query`."""

        def add(agreement: Agreement, shadow: Scores) -> None:
            agreement.add_scores(scores.probabilities, shadow.probabilities)

        self._compare(answered, "score", query, 1 + len(query.item_ids) // SCORES_AS_RANKING, add)

    async def stop(self) -> None:
        """Compare no more, and let go of the model."""
        self._stopped = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.lane.close()

    def _compare(
        self, answered: ServedModel, method: str, query: Any, cost: int, add: Callable[[Agreement, Any], None]
    ) -> None:
        """add  takes the shadow's answer into the agreement"""
        if self._stopped or random.random() >= self.share:
            return
        shadow = self._store.acquire_shadow(answered)
        if shadow is None:
            return
        if (self.agreement.version, self.agreement.compared) != (shadow.version, answered.version):
            self.agreement = Agreement(shadow.version, answered.version)
        users_wait = self._lanes.rankings.queued or self._lanes.scores.queued
        if users_wait or self.lane.queued + cost > QUEUED:
            self.agreement.dropped += 1
            self._store.release(shadow)
            return
        task = asyncio.create_task(self._ask(getattr(shadow, method), query, cost, add, self.agreement))
        self._tasks.add(task)
        task.add_done_callback(partial(self._done, shadow))

    async def _ask(
        self,
        compute: Compute,
        query: Any,
        cost: int,
        add: Callable[[Agreement, Any], None],
        agreement: Agreement,
    ) -> None:
        try:
            answer, _ = await self.lane.answer(compute, (query, False), cost, None)
        except OverloadedError:
            agreement.dropped += 1
        except RequestError as error:  # such as an item that it does not know
            logger.debug("the shadow cannot answer: %s", error)
            agreement.failed += 1
        except Exception as error:
            if not agreement.failed:
                logger.exception("the shadow fails: %r", error)
            agreement.failed += 1
        else:
            add(agreement, answer)

    def _done(self, shadow: ServedModel, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._store.release(shadow)
