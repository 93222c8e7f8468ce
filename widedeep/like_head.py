"""The like head: one logit for a pair of user and item."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from widedeep.config import ModelConfig
from widedeep.distributed import Part
from widedeep.dropout import Dropout
from widedeep.fused import PerceptronLoss
from widedeep.gradients import LookedUp
from widedeep.table import Table

BLOCK = (
    2048  # rows scored at once on a CPU: their activations stay in its cache, which takes a fifth less time
)


class LikeHead(nn.Module):
    """Wide & Deep on a pair: linear features beside a multilayer perceptron, one logit out."""

    def __init__(self, config: ModelConfig, user_count: int, item_count: int, columns: int) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.user = Table(user_count, config.embedding_dim)
        self.item = Table(item_count, config.embedding_dim)
        self.user_bias = Table(user_count, 1)
        self.item_bias = Table(item_count, 1)
        self.linear = nn.Linear(columns, 1)
        widths = (2 * config.embedding_dim + columns, *config.hidden)
        layers: list[nn.Module] = []
        for width, following in pairwise(widths):
            layers += [nn.Linear(width, following), nn.ReLU(inplace=True), Dropout(config.dropout)]
        self.perceptron = nn.Sequential(*layers, nn.Linear(widths[-1], 1))
        for embedding in (self.user, self.item):
            nn.init.normal_(embedding.weight, std=0.05)
        for bias in (self.user_bias, self.item_bias):
            nn.init.zeros_(bias.weight)

    def embeddings(self) -> list[Tensor]:
        """The parameters that belong to single users and items."""
        return [table.weight for table in self._tables]

    def layers(self) -> list[nn.Parameter]:
        """The parameters that belong to all."""
        tables = {id(table) for table in self.embeddings()}
        return [parameter for parameter in self.parameters() if id(parameter) not in tables]

    @property
    def by_rows(self) -> bool:
        """Whether a step costs what its rows cost: sparse gradients of the embeddings, and `widedeep.fused`.

        For single precision on the CPU. Dropout is then of whole units for all rows of a batch.
        """
        return self.user.sparse

    @by_rows.setter
    def by_rows(self, by_rows: bool) -> None:
        for table in self._tables:
            table.sparse = by_rows

    @property
    def _tables(self) -> tuple[nn.Embedding, ...]:
        return self.user, self.item, self.user_bias, self.item_bias

    def looked_up(self, user_index: Tensor, item_index: Tensor) -> list[LookedUp]:
        """The rows of the tables that a batch reads, with the unknown ones that stand in for some."""
        unknown = torch.zeros(1, dtype=user_index.dtype, device=user_index.device)
        return [
            LookedUp([self.user.weight, self.user_bias.weight], torch.cat([unknown, user_index])),
            LookedUp([self.item.weight, self.item_bias.weight], torch.cat([unknown, item_index])),
        ]

    def forward(self, user_index: Tensor, item_index: Tensor, features: Tensor) -> Tensor:
        """(rows,) logits.  user_index, item_index (rows,) int;  features (rows, columns)"""
        if len(user_index) > BLOCK and not self.training and user_index.device.type == "cpu":
            blocks = (torch.split(column, BLOCK) for column in (user_index, item_index, features))
            return torch.cat([self(*rows) for rows in zip(*blocks, strict=True)])
        deep = self.perceptron(torch.cat([self.user(user_index), self.item(item_index), features], 1))
        logits: Tensor = (self._wide(user_index, item_index, features) + deep).squeeze(1)
        return logits

    def loss(
        self, user_index: Tensor, item_index: Tensor, features: Tensor, liked: Tensor, part: Part
    ) -> Tensor:
        """() mean binary cross-entropy of the rows `part` of a batch, as `forward` takes them; liked (rows,) float32"""
        if not self.by_rows:
            logits = self(user_index, item_index, features)
            return F.binary_cross_entropy_with_logits(logits.float(), liked)
        wide = self._wide(user_index, item_index, features).squeeze(1)
        loss: Tensor = PerceptronLoss.apply(  # type: ignore[no-untyped-call]
            self.dropout,
            part,
            liked,
            wide,
            features,
            self.user(user_index),
            self.item(item_index),
            *self.perceptron.parameters(),
        )
        return loss

    def _wide(self, user_index: Tensor, item_index: Tensor, features: Tensor) -> Tensor:
        """(rows, 1)"""
        wide: Tensor = self.linear(features) + self.user_bias(user_index) + self.item_bias(item_index)
        return wide
