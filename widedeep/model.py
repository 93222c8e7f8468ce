"""WideDeepNet: one network, two questions.

"Which items next?"         rank_scores(): scores over the whole catalogue, from the history
"Would this user like it?"  like_logits(): one logit for a pair of user and item

Wide & Deep (Cheng et al. 2016, arXiv 1606.07792): the wide side memorises crosses of features, the deep side
generalises through embeddings. In the ranking the wide side is a weight for every pair (item in the history,
candidate); the deep side is an autoencoder of the history beside low-rank item vectors from least squares. In
the like head the wide side is linear in the user, the item and their statistics; the deep side is a multilayer
perceptron over embeddings and features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from widedeep.autoencoder import HistoryAutoencoder
from widedeep.config import ModelConfig
from widedeep.distributed import Part
from widedeep.factors import ItemFactors
from widedeep.features import FeatureProcessor
from widedeep.histories import Encoded, Histories
from widedeep.like_head import LikeHead
from widedeep.statistics import (
    ITEM_COLUMNS,
    USER_COLUMNS,
    Baselines,
    genre_shares,
    item_statistics,
    user_statistics,
    user_totals,
    without_own,
)
from widedeep.wide import ItemWeights

CACHED_SCORES = 2**19  # 2 MB of float32
UNKNOWN_SHARE = 0.05  # of the training rows show the unknown user, and of the others the unknown item


@dataclass(frozen=True)
class Reading:
    """What the ranking reads of histories.

    liked, weights           for the wide and the low-rank part: the likes, or all entries where `likes_only` is off
    entries, entry_weights   for the deep part: all entries, if it tells likes from others
    weights, entry_weights   (entries,) how much each counts
    """

    liked: Histories
    weights: Tensor
    entries: Histories
    entry_weights: Tensor


class WideDeepNet(nn.Module):
    """The network, with the tables that it reads; see the module's text.

    All that differs between data sets is in its buffers, so a state_dict is the whole model.
    """

    name: str = "widedeep"
    item_features: Tensor  # (item_count, columns)
    user_features: Tensor  # (user_count, columns), possibly none
    genre_shares: Tensor  # (item_count, genres)
    item_statistics: Tensor  # (item_count, ITEM_COLUMNS)
    popularity: Tensor  # (item_count,) likes in the training part, recent ones possibly worth more
    base: Tensor  # (2,) like rate and mean rating of the training part
    genre_rates: Tensor  # (genres,) mean share of each genre in the training part
    deep_share: Tensor  # () the deep side's share of the ranking score, 0 to 1
    factor_share: Tensor  # () the low-rank part's share of the deep share, 0 to 1
    likes_only: Tensor  # () bool: what was liked is crossed and looked for, else all of a history
    recency: Tensor  # () an entry of a history weighs place ** -recency, the latest has place 1
    calibration: Tensor  # (2,) scale and shift of the like logit

    def __init__(
        self,
        config: ModelConfig,
        item_features: Tensor,
        user_features: Tensor,
        genres: Tensor,
        warm_count: int,
        tells_apart: bool,
    ) -> None:
        """item_features (item_count, any)  user_features (user_count, any)  genres (item_count, any) bool

        tells_apart  there are entries of histories that are not likes
        """
        super().__init__()
        item_count, user_count = len(item_features), len(user_features)
        self.config = config
        self.item_count = item_count
        self.user_count = user_count
        self.warm_count = warm_count  # items 1 to warm_count have interactions, later ones only features
        self.wide = ItemWeights(item_count)
        self.factors = ItemFactors(item_count)
        self.deep = HistoryAutoencoder(
            config, item_count, item_features.shape[1], user_features.shape[1], tells_apart
        )
        columns = USER_COLUMNS + ITEM_COLUMNS + item_features.shape[1] + user_features.shape[1]
        self.like = LikeHead(config, user_count, item_count, columns)
        self.register_buffer("item_features", item_features.float())
        self.register_buffer("user_features", user_features.float())
        self.register_buffer("genre_shares", genre_shares(genres))
        self.register_buffer("item_statistics", torch.zeros(item_count, ITEM_COLUMNS))
        self.register_buffer("popularity", torch.zeros(item_count))
        self.register_buffer("base", torch.tensor([0.5, 0.0]))
        self.register_buffer("genre_rates", torch.zeros(genres.shape[1]))
        self.register_buffer("deep_share", torch.tensor(0.5))
        self.register_buffer("factor_share", torch.tensor(0.0))
        self.register_buffer("likes_only", torch.tensor(True))
        self.register_buffer("recency", torch.tensor(0.0))
        self.register_buffer("calibration", torch.tensor([1.0, 0.0]))

    @classmethod
    def for_data(cls, config: ModelConfig, processor: FeatureProcessor, train: Encoded) -> WideDeepNet:
        """A fresh network for this data, its counts and means taken from `train`, on the CPU."""
        table = processor.item_table
        net = cls(
            config,
            table.features(),
            processor.user_features,
            table.genres,
            processor.warm_count,
            tells_apart=not bool(train.liked.all()),
        )
        base = Baselines.of(train, net.genre_shares)
        net.base = torch.tensor([base.like_rate, base.mean_rating])
        net.genre_rates = base.genre_rates
        net.item_statistics = item_statistics(train, net.item_count, base)
        liked = train.item_index[train.liked & (train.item_index > 0)]
        net.popularity = torch.bincount(liked, minlength=net.item_count).float()
        with torch.no_grad():  # start from the popularity, not from a flat catalogue
            net.deep.item_bias.copy_((net.popularity + 0.5).log())
        return net

    @classmethod
    def from_state(
        cls, config: ModelConfig, warm_count: int, genres: Tensor, state: Mapping[str, Any]
    ) -> WideDeepNet:
        """The network whose state_dict `state` is, on the CPU."""
        items = state["item_features"]
        tells_apart = len(state["deep.read.weight"]) > len(items)
        net = cls(config, items, state["user_features"], genres, warm_count, tells_apart)
        net.load_state_dict(dict(state))
        return net.eval()

    @property
    def device(self) -> torch.device:
        return self.base.device

    def baselines(self) -> Baselines:
        like_rate, mean_rating = self.base.tolist()
        return Baselines(like_rate, mean_rating, self.genre_rates)

    @torch.no_grad()
    def rank_scores(self, user_index: Tensor, histories: Histories) -> Tensor:
        """(histories, item_count): the ranking score of every item.

        user_index  (histories,) int, 0 for a user who is not in the training data
        histories   theirs, in the same order; a history without likes is ranked by popularity

        Both sides are standardised over the items with interactions, then mixed by `deep_share`.
        """
        reading = self.read(histories)
        share = float(self.deep_share)
        if share == 1:
            scores = self.deep_part(user_index, reading)
        else:
            scores = self.wide.scores(reading.liked, reading.weights)
            for block in scores.split(self._block_rows):  # type: ignore[no-untyped-call]
                self.standardise(block, out=block).mul_(1 - share)
            if share > 0:
                self._add_deep_part(scores, user_index, reading)
        return self.or_popularity(scores, reading)

    def or_popularity(self, scores: Tensor, reading: Reading) -> Tensor:
        """`scores` (histories, item_count), in place, with the popularity where nothing was read."""
        scores[reading.liked.lengths == 0] = self.standardise(self.popularity[None])
        return scores

    def read(self, histories: Histories) -> Reading:
        """The latest entries and likes, and how much each counts."""
        length, recency = self.config.history_length, float(self.recency)
        entries = histories.latest(length)
        liked = histories.only_liked().latest(length) if bool(self.likes_only) else entries
        if not self.deep.tells_apart:
            entries = liked
        return Reading(liked, liked.recency_weights(recency), entries, entries.recency_weights(recency))

    @torch.no_grad()
    def deep_part(self, user_index: Tensor, reading: Reading) -> Tensor:
        """(histories, item_count): what the deep side adds to the ranking score."""
        scores = torch.zeros(len(reading.liked), self.item_count, device=self.device)
        self._add_deep_part(scores, user_index, reading)
        return scores

    def _add_deep_part(self, scores: Tensor, user_index: Tensor, reading: Reading) -> None:
        """Add the deep side's part to `scores` (histories, item_count), a few histories after the other."""
        share, factor_share = float(self.deep_share), float(self.factor_share)
        parts: list[tuple[Tensor, Tensor, Tensor | None, float]] = []
        if factor_share > 0:
            users = self.factors.user_vectors(reading.liked, reading.weights)
            parts.append((users, self.factors.vectors, None, share * factor_share))
        if factor_share < 1:
            features = self.user_features[user_index.long()]
            users = self.deep.user_vectors(reading.entries, reading.entry_weights, features)
            items = self.deep.candidate_vectors(self.item_features)
            parts.append((users, items, self.deep.item_bias, share * (1 - factor_share)))
        for start in range(0, len(scores), self._block_rows):
            rows = slice(start, start + self._block_rows)
            for users, items, bias, weight in parts:
                products = users[rows] @ items.T if bias is None else torch.addmm(bias, users[rows], items.T)
                scores[rows].add_(self.standardise(products, out=products), alpha=weight)

    def deep_logits(self, user_index: Tensor, reading: Reading) -> Tensor:
        """(histories, item_count) float32 of the deep part."""
        features = self.user_features[user_index.long()]
        logits: Tensor = self.deep(reading.entries, reading.entry_weights, features, self.item_features)
        return logits.float()

    def wide_contributions(self, liked: Histories, weights: Tensor, item_index: Tensor) -> Tensor:
        """(entries, items): what each entry adds to the wide side's part of the ranking scores, before centring.

        liked, weights  of the reading of a single history
        item_index      (items,) int
        """
        scores = self.wide.scores(liked, weights)
        scale = (1 - float(self.deep_share)) / self._spread(scores - self._mean(scores))
        return self.wide.contributions(liked, item_index, weights) * scale

    def standardise(self, scores: Tensor, out: Tensor | None = None) -> Tensor:
        """(histories, item_count) with mean 0 and standard deviation 1 over the items with interactions."""
        centred = torch.sub(scores, self._mean(scores), out=out)
        return centred.div_(self._spread(centred))

    def _mean(self, scores: Tensor) -> Tensor:
        """(histories, 1) over the items with interactions."""
        return scores[:, 1 : self.warm_count + 1].mean(1, keepdim=True)

    def _spread(self, centred: Tensor) -> Tensor:
        """(histories, 1) standard deviation over the items with interactions, of scores whose mean is 0."""
        length = torch.linalg.vector_norm(centred[:, 1 : self.warm_count + 1], dim=1, keepdim=True)
        spread: Tensor = length.div_(max(1, self.warm_count) ** 0.5).clamp_(min=1e-12)
        return spread

    @property
    def _block_rows(self) -> int:
        """Histories whose scores stay in the processor's cache from one step to the next; all of them on a GPU."""
        return max(1, CACHED_SCORES // self.item_count) if self.device.type == "cpu" else 2**31

    def totals(self, histories: Histories) -> Tensor:
        """(histories, any): sums over each history, for `pair_statistics`."""
        return user_totals(histories, self.genre_shares, self.baselines())

    def pair_statistics(self, totals: Tensor, item_index: Tensor, own: Tensor | None = None) -> Tensor:
        """(rows, USER_COLUMNS + ITEM_COLUMNS)

        totals  (rows, any) of each row's history
        own     (rows,) bool: the history holds the item itself, as a like, which has to be left out
        """
        if own is not None:
            left = without_own(totals, item_index, self.genre_shares, self.baselines())
            totals = torch.where(own[:, None], left, totals)
        of_users = user_statistics(totals, item_index, self.genre_shares, self.baselines())
        return torch.cat([of_users, self.item_statistics[item_index.long()]], 1)

    def like_features(self, user_index: Tensor, item_index: Tensor, statistics: Tensor) -> Tensor:
        """(rows, columns) of the like head; statistics (rows, USER_COLUMNS + ITEM_COLUMNS)"""
        of_items = self.item_features.index_select(0, item_index)
        of_users = self.user_features.index_select(0, user_index)
        return torch.cat([statistics, of_items, of_users], 1)

    def like_logits(self, user_index: Tensor, item_index: Tensor, rows: Tensor, totals: Tensor) -> Tensor:
        """(rows,) calibrated logits of P(like).

        user_index  (rows,) int, 0 unknown      item_index  (rows,) int, 0 unknown
        rows        (rows,) int: which of `totals`, of some histories, is the user's
        """
        statistics = self.pair_statistics(totals[rows.long()], item_index)
        known_item = torch.where(item_index <= self.warm_count, item_index, 0)  # cold items: features alone
        logits = self.like(user_index, known_item, self.like_features(user_index, item_index, statistics))
        calibrated: Tensor = logits * self.calibration[0] + self.calibration[1]
        return calibrated

    def like_loss(
        self, user_index: Tensor, item_index: Tensor, statistics: Tensor, liked: Tensor, part: Part
    ) -> Tensor:
        """() loss of the `part` of a batch; hides some users and items, so that the unknown ones are learnt."""
        features = self.like_features(user_index, item_index, statistics)
        hide = torch.rand(2, part.total, device=self.device)[:, part.rows] < UNKNOWN_SHARE
        shown_user = user_index.masked_fill(hide[0], 0)
        shown_item = item_index.masked_fill(hide[1], 0)
        return self.like.loss(shown_user, shown_item, features, liked, part)
