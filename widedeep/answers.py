"""From queries to answers: scores, then filters, order and reasons."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from widedeep.bags import Settings, SettingsOf
from widedeep.candidates import Candidates
from widedeep.catalogue import Catalogue
from widedeep.each import answer_each
from widedeep.errors import RequestError
from widedeep.explain import strongest_reasons
from widedeep.halved import Halved
from widedeep.inputs import Asked, QueryInputs
from widedeep.like_split import SplitLikeHead
from widedeep.lists import Lists
from widedeep.model import WideDeepNet
from widedeep.queries import Query, Ranking, Reason, ScoreQuery, Scores
from widedeep.rerank import genre_vectors, pool_size, rerank

BLOCK_SCORES = 2**24  # queries x items scored at once: 64 MB of float32


class RankingAnswers:
    """Answers blocks of queries with one network."""

    def __init__(self, net: WideDeepNet, inputs: QueryInputs, lists: Lists) -> None:
        self.net = net
        self.inputs = inputs
        self.lists = lists
        self.settings = SettingsOf(net)
        self.candidates: Candidates | Halved | None = None  # where not every item is ranked

    @cached_property
    def catalogue(self) -> Catalogue:
        """Made when the first query comes, or before by whoever wants that to be quick."""
        return Catalogue(self.net)

    @cached_property
    def likeness_vectors(self) -> Tensor:
        """(item_count, any) of unit length: what `diversity` tells items apart by, genres where there are any."""
        genres = self.inputs.processor.item_table.genres.to(self.inputs.device)
        if genres.any():
            return genre_vectors(genres)
        return F.normalize(self.net.deep.candidate_vectors(self.net.item_features))

    def check(self, query: Query) -> None:
        """Raises  RequestError: it cannot be answered"""
        self.inputs.ask_ranking(query, likes_only=self.settings().likes_only)

    def each(self, queries: Sequence[Query]) -> list[Ranking | RequestError]:
        settings = self.settings()
        return answer_each(
            queries,
            lambda query: self.inputs.ask_ranking(query, likes_only=settings.likes_only),
            lambda asked: self._all(asked, settings),
        )

    def _all(self, asked: Sequence[Asked[Query]], settings: Settings) -> list[Ranking]:
        block = max(1, BLOCK_SCORES // self.net.item_count)
        exact = [place for place, one in enumerate(asked) if not self._takes_candidates(one)]
        found: dict[int, Ranking] = {}
        for places in (exact, sorted(set(range(len(asked))) - set(exact))):
            for start in range(0, len(places), block):
                some = places[start : start + block]
                rankings = self._block([asked[place] for place in some], settings, places is exact)
                found.update(zip(some, rankings, strict=True))
        return [found[place] for place in range(len(asked))]

    def _takes_candidates(self, asked: Asked[Query]) -> bool:
        """Filters leave too little of what is found, and the popularity is not in it."""
        return self.candidates is not None and asked.cold_start is None and not self.inputs.is_filtered(asked)

    def _scores(self, asked: Sequence[Asked[Query]], settings: Settings, exact: bool) -> Tensor:
        """(queries, width)"""
        pasts = [one.past for one in asked]
        if not exact and self.candidates is not None:
            wanted = max(
                pool_size(one.query) + len(one.past.items) + len(one.query.exclude_items) for one in asked
            )
            return self.candidates.scores(pasts, settings, wanted)
        scores = self.catalogue.scores(pasts, settings)
        self.catalogue.popular(scores, [row for row, one in enumerate(asked) if one.cold_start is not None])
        return scores

    @torch.inference_mode()
    def _block(self, asked: Sequence[Asked[Query]], settings: Settings, exact: bool) -> list[Ranking]:
        scores = self._scores(asked, settings, exact)
        queries = [one.query for one in asked]
        values, columns = self.lists.best(
            scores, asked, [pool_size(query) for query in queries], [query.exclude_seen for query in queries]
        )
        if any(query.diversity for query in queries):
            values, columns = rerank(queries, values, columns, self.likeness_vectors)
        numbers, items = values.cpu().numpy(), columns.cpu().numpy()
        listed = numbers > -np.inf
        rankings = []
        for row, one in enumerate(asked):
            length = min(one.query.k, int(np.count_nonzero(listed[row])))
            found = items[row, :length]
            rankings.append(
                Ranking(
                    self.inputs.processor.items.ids_of(found),
                    numbers[row, :length].tolist(),
                    one.cold_start,
                    self.inputs.unknown_candidates(one),
                    self._reasons(one, columns[row, :length]) if one.query.explain else [],
                )
            )
        return rankings

    def _reasons(self, asked: Asked[Query], columns: Tensor) -> list[list[Reason]]:
        """For a query whose answer is `columns`."""
        user_index, history = self.inputs.tensors([asked.past])
        found = strongest_reasons(
            self.net, self.lists.cold_items, user_index, history, columns, limit=int(asked.query.explain)
        )
        items = self.inputs.processor.items
        return [
            [Reason(items.id_of(entry), total, wide) for entry, total, wide in reasons] for reasons in found
        ]


class ScoreAnswers:
    """Answers score queries with one network."""

    def __init__(self, net: WideDeepNet, inputs: QueryInputs) -> None:
        self.net = net
        self.inputs = inputs

    @cached_property
    def head(self) -> SplitLikeHead:
        """Made when the first query comes, or before by whoever wants that to be quick."""
        return SplitLikeHead(self.net)

    def prepare(self) -> None:
        """Make what the first query would make."""
        _ = self.head, self.inputs.processor.items.texts

    def each(self, queries: Sequence[ScoreQuery]) -> list[Scores | RequestError]:
        return answer_each(queries, self.inputs.ask_scoring, self._all)

    def _all(self, asked: Sequence[Asked[ScoreQuery]]) -> list[Scores]:
        parts = self.head.probabilities(asked)
        return [Scores(part, one.cold_start) for part, one in zip(parts, asked, strict=True)]
