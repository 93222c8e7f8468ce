"""The validation users, and their scores by each part of the ranking, kept: mixtures of them cost little."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from widedeep.histories import Encoded, Histories
from widedeep.model import WideDeepNet
from widedeep.rankings import BLOCK_SCORES, Targets, list_ndcg

VALIDATION_USERS = 10_000  # at most, to judge a ranking by after every epoch
VALIDATION_SCORES = 2**27  # of theirs x items at most: half a gigabyte for each part of the ranking


class Mixture:
    """A ranker of the validation users by any mixture of the wide, the low-rank and the deep part."""

    name = "mixture"

    def __init__(self, net: WideDeepNet, targets: Targets, histories: Histories) -> None:
        """Scores by the parts that are fitted before the deep one is trained.

        histories  of all users by user_index, on the network's device, where three floats for each of the
                   targets' users and each item are kept
        """
        self.net = net
        self.targets = targets
        self.histories = histories
        self._row = torch.zeros(net.user_count, dtype=torch.int64, device=net.device)
        self._row[targets.user_index.to(net.device)] = torch.arange(
            len(targets.user_index), device=net.device
        )
        self._wide = self._scores(deep_share=0.0, factor_share=0.0)
        self._factors = self._scores(deep_share=1.0, factor_share=1.0)
        self._deep = torch.zeros_like(self._wide)
        self._weights = (1.0, 0.0, 0.0)

    @torch.no_grad()
    def update_deep(self) -> float:
        """Take the deep part's scores anew, after its weights have changed.

        Returns  the mean -log probability that it gives the likes of the validation part, each among the items
                 that are not in the history
        """
        net, targets = self.net, self.targets
        known = targets.item <= net.warm_count
        row, item = targets.row[known].to(net.device), targets.item[known].to(net.device)
        total = 0.0
        for rows, users in self._blocks():
            seen = self.histories.take(users)
            reading = net.read(seen)
            logits = net.deep_logits(users, reading)
            self._deep[rows] = net.or_popularity(net.standardise(logits), reading)
            logits[seen.row_index, seen.item_index.long()] = -torch.inf
            catalogue = logits[:, 1 : net.warm_count + 1]
            here = (row >= rows.start) & (row < rows.stop)
            found = catalogue[row[here] - rows.start, item[here] - 1]
            total += float((catalogue.logsumexp(1)[row[here] - rows.start] - found).double().sum())
        return total / max(1, len(row))

    def ndcg(self, deep_share: float, factor_share: float, k: int = 10) -> Tensor:
        """(users,) NDCG@k at these shares, NaN where none of a user's likes counts."""
        self._weights = (1 - deep_share, deep_share * factor_share, deep_share * (1 - factor_share))
        return list_ndcg(
            self,
            self.targets,
            self.histories,
            item_count=self.net.item_count,
            warm_count=self.net.warm_count,
            k=k,
        )

    def rank_scores(self, user_index: Tensor, histories: Histories) -> Tensor:  # noqa: ARG002
        """As `WideDeepNet.rank_scores`, of validation users alone."""
        rows = self._row[user_index]
        mixed = torch.zeros(len(rows), self.net.item_count, device=rows.device)
        for weight, scores in zip(self._weights, (self._wide, self._factors, self._deep), strict=True):
            if weight:
                mixed.addcmul_(scores[rows], mixed.new_tensor(weight))
        return mixed

    @torch.no_grad()
    def _scores(self, deep_share: float, factor_share: float) -> Tensor:
        net = self.net
        kept = (float(net.deep_share), float(net.factor_share))
        net.deep_share.fill_(deep_share)
        net.factor_share.fill_(factor_share)
        scores = torch.cat(
            [net.rank_scores(users, self.histories.take(users)) for _, users in self._blocks()]
        )
        net.deep_share.fill_(kept[0])
        net.factor_share.fill_(kept[1])
        return scores

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """The rows of the scores, and their user_index."""
        users = self.targets.user_index.to(self.net.device)
        size = max(1, BLOCK_SCORES // self.net.item_count)
        for start in range(0, len(users), size):
            yield slice(start, min(start + size, len(users))), users[start : start + size]


def ranking_targets(validation: Encoded, item_count: int, seed: int) -> Targets:
    """Of the known users with likes, or of as many random ones as VALIDATION_USERS and _SCORES allow."""
    users = torch.unique(validation.user_index[validation.liked & (validation.user_index > 0)])
    most = max(1, min(VALIDATION_USERS, VALIDATION_SCORES // item_count))
    if len(users) > most:
        generator = torch.Generator().manual_seed(seed)
        users = users[torch.randperm(len(users), generator=generator)[:most].to(users.device)]
    rows = validation.take(torch.isin(validation.user_index, users))
    return Targets.of(rows, rows.user_index.long())
