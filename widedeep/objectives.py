"""What each head is trained for: its batches, its loss, and how it is judged on the validation part."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from widedeep.config import Config
from widedeep.histories import Encoded, Histories, concatenate
from widedeep.metrics import auc, ndcg_at_k
from widedeep.mixture import Mixture
from widedeep.model import WideDeepNet
from widedeep.rankings import BLOCK_SCORES, Targets, rank_users
from widedeep.sampling import (
    Negatives,
    PairBatch,
    PairBatches,
    PositiveBatches,
    UserBatch,
    UserBatches,
)


class Batches(Protocol):
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...


class Objective(Protocol):
    """One head's training: fit() needs no more than this."""

    head: str
    patience: int  # epochs without a better quality before it stops

    @property
    def batches(self) -> Batches: ...
    def parameter_groups(self) -> list[dict[str, Any]]:
        """For the optimizer."""
        ...

    def loss(self, batch: Any) -> Tensor:
        """() the mean loss of one of `batches`."""
        ...

    def rate(self, done: float) -> float:
        """The learning rate's factor when `done`, 0 to 1, of an epoch is behind."""
        ...

    def validate(self) -> dict[str, float]:
        """Validation metrics; empty without a validation part."""
        ...

    def quality(self, metrics: dict[str, float]) -> float | None:
        """The one number to stop by, higher is better; None without a validation part."""
        ...

    def snapshot(self) -> dict[str, Tensor]:
        """A copy of the head's weights."""
        ...

    def restore(self, weights: dict[str, Tensor]) -> None: ...


class _Head:
    """The part that both objectives share: the weights of one submodule."""

    module: nn.Module

    def rate(self, done: float) -> float:  # noqa: ARG002
        """The learning rate as it is."""
        return 1.0

    def snapshot(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.module.state_dict().items()}

    def restore(self, weights: dict[str, Tensor]) -> None:
        self.module.load_state_dict(weights)


class RankingObjective(_Head):
    """Find one part of a user's likes from the other: multinomial likelihood over the catalogue.

    Where recent entries count more (the network's recency is above zero) the parts are earlier and later ones,
    else random ones.
    """

    head = "ranking"

    def __init__(
        self,
        config: Config,
        net: WideDeepNet,
        histories: Histories,
        mixture: Mixture | None,
        device: torch.device,
    ) -> None:
        """histories  of all users by user_index, on the device;  mixture  of the validation part's users"""
        self.net = net
        self.module = net.deep
        self.patience = config.train.ranking_patience
        self.weight_decay = config.train.weight_decay
        self.histories = histories
        self.batches: UserBatches = UserBatches(
            net.read(histories)[0],
            config.train.user_batch_size,
            float(net.recency) > 0,
            device,
        )
        self.mixture = mixture

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.module.parameters()), "weight_decay": self.weight_decay}]

    def loss(self, batch: UserBatch) -> Tensor:
        """Per hidden like, so that the scale does not depend on how long histories are."""
        net, visible, hidden = self.net, batch.visible, batch.hidden
        weights = visible.recency_weights(float(net.recency))
        logits = net.deep(visible, weights, net.user_features[batch.user_index], net.item_features).float()
        read = (visible.row_index, visible.item_index.long())
        logits = logits.index_put(read, logits.new_tensor(-torch.inf))  # what was read is not to be found
        catalogue = logits[:, 1 : net.warm_count + 1].log_softmax(1)
        found = catalogue[hidden.row_index, hidden.item_index.long() - 1]
        loss: Tensor = -found.sum() / (len(hidden) * self.batches.mean_hidden)
        return loss

    @torch.no_grad()
    def _item_log_loss(self, targets: Targets) -> float:
        """The deep side's mean -log probability of each validation like, among the items not in the history."""
        net = self.net
        total, count = 0.0, 0
        known = targets.item <= net.warm_count
        row, item = targets.row[known], targets.item[known]
        block = max(1, BLOCK_SCORES // net.item_count)
        for start in range(0, len(targets.key), block):
            users = targets.user_index[start : start + block]
            seen = self.histories.take(users)
            read, weights = net.read(seen)
            logits = net.deep(read, weights, net.user_features[users], net.item_features).float()
            logits[seen.row_index, seen.item_index.long()] = -torch.inf
            catalogue = logits[:, 1 : net.warm_count + 1].log_softmax(1)
            here = (row >= start) & (row < start + block)
            total -= float(catalogue[row[here] - start, item[here] - 1].double().sum())
            count += int(here.sum())
        return total / max(1, count)

    def validate(self) -> dict[str, float]:
        if self.mixture is None:
            return {}
        self.mixture.update_deep()
        shares = (float(self.net.deep_share), float(self.net.factor_share))
        return {
            "item_log_loss": self._item_log_loss(self.mixture.targets),
            "ndcg_at_10": float(self.mixture.ndcg(*shares).nanmean()),
        }

    def quality(self, metrics: dict[str, float]) -> float | None:
        """By the likelihood and not by NDCG, which is noisy: its maximum over many epochs is luck."""
        return -metrics["item_log_loss"] if "item_log_loss" in metrics else None


@torch.no_grad()
def validation_ndcg(net: WideDeepNet, targets: Targets, histories: Histories) -> Tensor:
    """(users,) NDCG@10, NaN where none of a user's likes counts."""
    found = rank_users(net, targets, histories, item_count=net.item_count, warm_count=net.warm_count)
    return ndcg_at_k(found.hits, targets.relevant_count.cpu(), 10)


class LikeObjective(_Head):
    """Tell likes from other interactions: binary cross-entropy on logits.

    Where every interaction is a like there is nothing to tell apart: then random items stand in for the rest,
    `negatives` of them for each interaction, and the probability is that of an interaction among those.
    """

    head = "like"

    def __init__(
        self,
        config: Config,
        net: WideDeepNet,
        train: Encoded,
        histories: Histories,
        validation: Encoded | None,
        device: torch.device,
    ) -> None:
        """histories  of all users by user_index, on the device"""
        self.net = net
        self.module = net.like
        self.patience = config.train.patience
        self.decay = (config.train.weight_decay, config.train.embedding_decay)
        self.histories = histories
        self.batches: PairBatches | PositiveBatches
        size = config.train.batch_size
        if not bool(train.liked.all()):
            self.batches = PairBatches(train, net.genre_shares, net.baselines(), size, device)
            self.rows = validation
        else:
            totals = net.totals(histories)
            taken = train.to(device) if validation is None else concatenate([train.to(device), validation])
            negatives = Negatives(taken, net.warm_count, config.train.negatives)
            self.batches = PositiveBatches(
                train,
                lambda users, items, own: net.pair_statistics(totals[users.long()], items, own),
                negatives,
                size,
                device,
            )
            self.rows = (
                None if validation is None else _with_negatives(validation, negatives, config.train.seed)
            )
        self.judged = self.rows is not None and bool(self.rows.liked.any()) and bool((~self.rows.liked).any())

    def parameter_groups(self) -> list[dict[str, Any]]:
        tables = self.net.like.embeddings()
        ids = {id(table) for table in tables}
        others = [parameter for parameter in self.module.parameters() if id(parameter) not in ids]
        return [
            {"params": others, "weight_decay": self.decay[0]},
            {"params": tables, "weight_decay": self.decay[1]},
        ]

    def rate(self, done: float) -> float:
        """Falls to nothing within each epoch, so that the last batches do not decide the level of all logits."""
        return 2.0 * (1.0 - done)  # twice, so that its mean is the learning rate

    def loss(self, batch: PairBatch) -> Tensor:
        logits = self.net.training_like_logits(batch.user_index, batch.item_index, batch.statistics)
        return F.binary_cross_entropy_with_logits(logits.float(), batch.liked)

    def validate(self) -> dict[str, float]:
        if not self.judged:
            return {}
        logits, liked = self.validation_logits()
        probability = logits.sigmoid()
        return {
            "log_loss": float(F.binary_cross_entropy_with_logits(logits, liked)),
            "auc": float(auc(probability, liked.bool())),
        }

    def quality(self, metrics: dict[str, float]) -> float | None:
        return -metrics["log_loss"] if "log_loss" in metrics else None

    @torch.no_grad()
    def training_logits(self) -> tuple[Tensor, Tensor]:
        """(rows,) logits of the training rows, each from what came before it, and (rows,) 0 or 1.

        Empty where the other class are random items, which have no rate of their own.
        """
        if isinstance(self.batches, PositiveBatches):
            return torch.zeros(0), torch.zeros(0)
        rows, statistics = self.batches.train, self.batches.statistics
        logits = []
        for block in _blocks(len(rows), self.net.device):
            users, items = rows.user_index[block], rows.item_index[block]
            logits.append(
                self.net.like(users, items, self.net.like_features(users, items, statistics[block]))
            )
        return torch.cat(logits).float(), rows.liked.float()

    @torch.no_grad()
    def validation_logits(self) -> tuple[Tensor, Tensor]:
        """(rows,) logits and (rows,) 0 or 1."""
        rows = self.rows
        assert rows is not None
        logits = [
            self.net.like_logits(part.user_index, part.item_index, part.user_index, self.histories)
            for part in (rows.take(block) for block in _blocks(len(rows), self.net.device))
        ]
        return torch.cat(logits).float(), rows.liked.float()


def _with_negatives(positives: Encoded, negatives: Negatives, seed: int) -> Encoded:
    generator = torch.Generator(positives.liked.device).manual_seed(seed)
    users, items = negatives.draw(positives.user_index, generator)
    none = torch.full((len(users),), float("nan"), device=users.device)
    drawn = Encoded(
        users, items, none, torch.zeros_like(none, dtype=torch.bool), torch.zeros_like(users).long()
    )
    return concatenate([positives, drawn])


def _blocks(rows: int, device: torch.device) -> tuple[Tensor, ...]:
    return torch.split(torch.arange(rows, device=device), 2**17)
