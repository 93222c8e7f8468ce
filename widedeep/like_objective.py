"""How the like head is trained."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from widedeep.config import Config
from widedeep.device import resolve_precision
from widedeep.dropout import take_part
from widedeep.gradients import LookedUp
from widedeep.histories import Encoded, Histories, concatenate
from widedeep.metrics import auc
from widedeep.model import WideDeepNet
from widedeep.objective import Head, adam
from widedeep.rowwise import RowwiseAdagrad
from widedeep.sampling import Negatives, PairBatch, PairBatches, PositiveBatches

MANY_ROWS = 1_000_000  # from here on a CPU trains by rows
SMALL_BATCH, LARGE_BATCH = 512, 4096
RATE, RATE_BY_ROWS = 1e-3, 2e-3


class LikeObjective(Head):
    """Tell likes from other interactions: binary cross-entropy on logits.

    Where every interaction is a like there is nothing to tell apart: then random items stand in for the rest,
    `negatives` of them for each interaction, and the probability is that of an interaction among those.

    Adam on everything, whose step costs as much as the tables are large. On much data a CPU trains by rows instead:
    row-wise Adagrad on the embeddings, larger batches, `widedeep.fused`. On little data Adam comes to the better
    model: AUC 0.795 against 0.784 on the test part of MovieLens latest-small.
    """

    head = "like"
    rate_setting = "learning_rate"
    notable = 5e-4  # of log loss; less is not worth an epoch, which on much data takes long

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
        self.module = self.learned = net.like
        self.embedding_rate = config.train.embedding_learning_rate
        self.patience = config.train.patience
        self.decay = (config.train.weight_decay, config.train.embedding_decay)
        self.histories = histories
        self.batches: PairBatches | PositiveBatches
        single = resolve_precision(config.train.precision, device) == torch.float32
        net.like.by_rows = device.type == "cpu" and single and len(train) >= MANY_ROWS
        size = batch_size(config.train.batch_size, net.like.by_rows)
        asked = config.train.learning_rate
        self.learning_rate = asked if asked is not None else RATE_BY_ROWS if net.like.by_rows else RATE
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

    def optimizers(self) -> list[torch.optim.Optimizer]:
        tables, layers = self.net.like.embeddings(), self.net.like.layers()
        rate = self.rate(0.0)
        if not self.net.like.by_rows:
            tables_group = {"params": tables, "weight_decay": self.decay[1]}
            return [adam([{"params": layers, "weight_decay": self.decay[0]}, tables_group], rate)]
        factor = self.embedding_rate / self.learning_rate
        return [
            adam([{"params": layers, "weight_decay": self.decay[0]}], rate),
            RowwiseAdagrad([{"params": tables, "factor": factor}], rate * factor, self.decay[1]),
        ]

    def rate(self, done: float) -> float:
        """Falls to nothing within each epoch, so that the last batches do not decide the level of all logits."""
        return self.learning_rate * 2.0 * (1.0 - done)  # twice, so that its mean is the learning rate

    def loss(self, batch: PairBatch) -> Tensor:
        part = batch.part
        take_part(self.module, part)
        mean = self.net.like_loss(batch.user_index, batch.item_index, batch.statistics, batch.liked, part)
        return mean * (len(batch.liked) / part.total)

    def looked_up(self, batch: PairBatch) -> list[LookedUp]:
        return self.net.like.looked_up(batch.user_index, batch.item_index)

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
        totals = self.net.totals(self.histories)
        logits = [
            self.net.like_logits(part.user_index, part.item_index, part.user_index, totals)
            for part in (rows.take(block) for block in _blocks(len(rows), self.net.device))
        ]
        return torch.cat(logits).float(), rows.liked.float()


def batch_size(asked: int | None, by_rows: bool) -> int:
    """As asked for, else what suits."""
    if asked is not None:
        return asked
    return LARGE_BATCH if by_rows else SMALL_BATCH


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
