"""The deep side of the ranking: an autoencoder of the history."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from widedeep.config import ModelConfig
from widedeep.dropout import Dropout
from widedeep.histories import Histories


class HistoryAutoencoder(nn.Module):
    """history -> tanh layer -> user vector . item vectors

    Liang et al. 2018, arXiv 1802.05814, without the sampling. An item that was liked and the same item when it
    was not are read by vectors of their own, so what a user turned down tells something, too; with data of
    likes alone (`tells_apart` False) there is one vector for each item. What is scored reads genres and year
    beside its own vector.
    """

    def __init__(
        self, config: ModelConfig, item_count: int, item_columns: int, user_columns: int, tells_apart: bool
    ) -> None:
        super().__init__()
        self.item_count = item_count
        self.tells_apart = tells_apart
        rows = 2 * item_count if tells_apart else item_count
        self.read = nn.EmbeddingBag(rows, config.ranking_hidden, mode="sum", include_last_offset=True)
        self.read_user = nn.Parameter(torch.zeros(user_columns, config.ranking_hidden))
        self.dropout = Dropout(config.ranking_dropout)
        self.project = nn.Linear(config.ranking_hidden, config.ranking_dim)
        self.item_vectors = nn.Parameter(torch.empty(item_count, config.ranking_dim))
        self.item_features = nn.Linear(item_columns, config.ranking_dim, bias=False)
        self.item_bias = nn.Parameter(torch.zeros(item_count))
        bound = (6 / (item_count + config.ranking_hidden)) ** 0.5
        nn.init.uniform_(self.read.weight, -bound, bound)
        nn.init.normal_(self.item_vectors, std=0.02)

    def user_vectors(self, entries: Histories, weights: Tensor, user_features: Tensor) -> Tensor:
        """(histories, ranking_dim)

        weights  (entries,) how much each counts; scaled to unit length within a history
        """
        squares = weights.new_zeros(len(entries)).index_add_(0, entries.row_index, weights.square())
        scale = weights * squares.clamp(min=1e-12).rsqrt()[entries.row_index]
        read = self.read(self.rows(entries), entries.offsets, per_sample_weights=scale)
        hidden = self.dropout(torch.tanh(read + user_features @ self.read_user))
        projected: Tensor = self.project(hidden)
        return projected

    def rows(self, entries: Histories) -> Tensor:
        """(entries,) int64: the vector that each is read by."""
        rows = entries.item_index.long()
        if self.tells_apart:
            rows = rows + self.item_count * (~entries.liked).long()
        return rows

    def candidate_vectors(self, item_features: Tensor) -> Tensor:
        """(item_count, ranking_dim); the same for every user, so a server computes them once."""
        vectors: Tensor = self.item_vectors + self.item_features(item_features)
        return vectors

    def forward(
        self, entries: Histories, weights: Tensor, user_features: Tensor, item_features: Tensor
    ) -> Tensor:
        """(histories, item_count) logits of a softmax over the catalogue."""
        users = self.user_vectors(entries, weights, user_features)
        return torch.addmm(self.item_bias, users, self.candidate_vectors(item_features).T)
