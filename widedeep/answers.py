"""From ranking queries to rankings: scores, then filters, order and reasons."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from widedeep.cold import ColdItems
from widedeep.explain import strongest_reasons
from widedeep.histories import Histories
from widedeep.inputs import QueryInputs, cold_start
from widedeep.model import WideDeepNet
from widedeep.queries import Query, Ranking, Reason
from widedeep.rerank import genre_vectors, pool_size, rerank
from widedeep.topk import top_k


class RankingAnswers:
    """Answers blocks of queries with one network."""

    def __init__(self, net: WideDeepNet, inputs: QueryInputs) -> None:
        self.net = net
        self.inputs = inputs
        self.items = inputs.processor.items
        self.cold_items = ColdItems(net.item_features, inputs.processor.warm_count)

    @cached_property
    def likeness_vectors(self) -> Tensor:
        """(item_count, any) of unit length: what `diversity` tells items apart by, genres where there are any."""
        genres = self.inputs.processor.item_table.genres.to(self.inputs.device)
        if genres.any():
            return genre_vectors(genres)
        return F.normalize(self.net.deep.candidate_vectors(self.net.item_features))

    @torch.inference_mode()
    def of(self, queries: Sequence[Query]) -> list[Ranking]:
        """queries  checked, and so many that queries x items scores fit into memory"""
        user_index, histories = self.inputs.users_and_histories(queries)
        allowed, unknown = self.inputs.allowed(queries, histories)
        scores = self.net.rank_scores(user_index, histories)
        if bool(allowed[:, self.cold_items.warm_count + 1 :].any()):
            self.cold_items.fill(scores)
        scores = scores.masked_fill(~allowed, -torch.inf)
        values, columns = top_k(scores, max(pool_size(query) for query in queries))
        if any(query.diversity for query in queries):
            values, columns = rerank(queries, values, columns, self.likeness_vectors)
        counts = (values > -torch.inf).sum(1).tolist()
        users, entries = user_index.tolist(), histories.lengths.tolist()
        likes = self.net.read(histories).liked.lengths.tolist()
        items, numbers = columns.cpu().numpy(), values.float().cpu()
        rankings = []
        for row, query in enumerate(queries):
            length = min(query.k, counts[row])
            rankings.append(
                Ranking(
                    self.items.ids_of(items[row, :length]),
                    numbers[row, :length].tolist(),
                    cold_start(query, users[row], entries[row], likes[row]),
                    unknown[row],
                    self._reasons(query, user_index, histories, row, columns[row, :length]),
                )
            )
        return rankings

    def _reasons(
        self, query: Query, user_index: Tensor, histories: Histories, row: int, columns: Tensor
    ) -> list[list[Reason]]:
        """For the query in `row`, whose answer is `columns`."""
        if not query.explain:
            return []
        one = torch.tensor([row], device=user_index.device)
        found = strongest_reasons(
            self.net, self.cold_items, user_index[one], histories.take(one), columns, limit=int(query.explain)
        )
        return [
            [Reason(self.items.id_of(entry), total, wide) for entry, total, wide in reasons]
            for reasons in found
        ]
