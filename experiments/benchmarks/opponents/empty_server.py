"""Our own server with the model removed: it decodes, queues and encodes, and the answers are constants.

    python -m experiments.benchmarks.opponents.empty_server FLAGS OF python -m server

The model is loaded and checked as ever; from then on it answers without a look at the request.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import numpy as np

import server.__main__ as entry
from server import app, loader
from widedeep.errors import RequestError
from widedeep.queries import Query, Ranking, ScoreQuery, Scores
from widedeep.recommender import Recommender


class Constant(Recommender):
    """Answers as Recommender does until `removed` is set."""

    removed = False
    catalogue: Sequence[str] = ()

    def rank_each(self, queries: Sequence[Query]) -> list[Ranking | RequestError]:
        if not self.removed:
            return super().rank_each(queries)
        return [Ranking(list(self.catalogue[: query.k]), [1.0] * query.k) for query in queries]

    def score_each(self, queries: Sequence[ScoreQuery]) -> list[Scores | RequestError]:
        if not self.removed:
            return super().score_each(queries)
        return [Scores(np.full(len(query.item_ids), 0.5, np.float32)) for query in queries]


class Empty(app.Server):
    async def load(self, settled: Callable[[], object] = lambda: None) -> None:
        await super().load(settled)
        with self.store.lease() as model:
            Constant.catalogue = model.recommender.processor.items.ids[:1000].astype(str).tolist()
        Constant.removed = True


if __name__ == "__main__":
    loader.Recommender = Constant  # type: ignore[attr-defined]
    app.Server = Empty  # type: ignore[misc]
    sys.exit(entry.main())
