"""The like head: one logit for a pair of user and item."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from widedeep.config import ModelConfig
from widedeep.dropout import Dropout
from widedeep.gradients import LookedUp


class LikeHead(nn.Module):
    """Wide & Deep on a pair: linear features beside a multilayer perceptron, one logit out."""

    def __init__(self, config: ModelConfig, user_count: int, item_count: int, columns: int) -> None:
        super().__init__()
        self.user = nn.Embedding(user_count, config.embedding_dim)
        self.item = nn.Embedding(item_count, config.embedding_dim)
        self.user_bias = nn.Embedding(user_count, 1)
        self.item_bias = nn.Embedding(item_count, 1)
        self.linear = nn.Linear(columns, 1)
        widths = (2 * config.embedding_dim + columns, *config.hidden)
        layers: list[nn.Module] = []
        for width, following in pairwise(widths):
            layers += [nn.Linear(width, following), nn.ReLU(), Dropout(config.dropout)]
        self.perceptron = nn.Sequential(*layers, nn.Linear(widths[-1], 1))
        for embedding in (self.user, self.item):
            nn.init.normal_(embedding.weight, std=0.05)
        for bias in (self.user_bias, self.item_bias):
            nn.init.zeros_(bias.weight)

    def embeddings(self) -> list[Tensor]:
        """The parameters that belong to single users and items."""
        return [table.weight for table in (self.user, self.item, self.user_bias, self.item_bias)]

    def looked_up(self, user_index: Tensor, item_index: Tensor) -> list[LookedUp]:
        """The rows of the tables that a batch reads, with the unknown ones that stand in for some."""
        unknown = torch.zeros(1, dtype=user_index.dtype, device=user_index.device)
        return [
            LookedUp([self.user.weight, self.user_bias.weight], torch.cat([unknown, user_index])),
            LookedUp([self.item.weight, self.item_bias.weight], torch.cat([unknown, item_index])),
        ]

    def forward(self, user_index: Tensor, item_index: Tensor, features: Tensor) -> Tensor:
        """(rows,) logits.  user_index, item_index (rows,) int;  features (rows, columns)"""
        deep = self.perceptron(torch.cat([self.user(user_index), self.item(item_index), features], 1))
        wide = self.linear(features) + self.user_bias(user_index) + self.item_bias(item_index)
        logits: Tensor = (wide + deep).squeeze(1)
        return logits
