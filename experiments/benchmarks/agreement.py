"""The same small training on two devices: what the CPU comes to, the other has to come to as well.

Nothing is drawn on the device: weights, order of rows and histories' parts are made on the CPU, without dropout and
without hidden users, in single precision without TF32. What is left is the order of additions, which Adam's division
by the size of a gradient makes larger.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from widedeep.checkpoint import Checkpoint
from widedeep.config import Config, ModelConfig, TrainConfig
from widedeep.datasets import synthetic
from widedeep.features import FeatureProcessor
from widedeep.histories import Encoded, Histories
from widedeep.like_objective import LikeObjective
from widedeep.model import WideDeepNet
from widedeep.ranking_objective import RankingObjective
from widedeep.sampling import PairBatch, PairBatches, UserBatch, UserBatches
from widedeep.training import train_head

CPU = torch.device("cpu")
USERS, ITEMS, ROWS, BATCH, EPOCHS = 300, 200, 6000, 512, 3
LOSS_TOLERANCE = 1e-4  # relative; weights that are off by a millionth make 2e-6
LOGIT_TOLERANCE = 5e-3  # absolute; the same weights make 2e-3, item vectors that are off by 5 % make 3e-2


@dataclass(frozen=True)
class Outcome:
    """losses  by epoch;  logits  (any,) after the last one, on the CPU"""

    losses: list[float]
    logits: Tensor

    def loss_difference(self, other: Outcome) -> float:
        """The largest of an epoch's, relative."""
        one, two = torch.tensor(self.losses), torch.tensor(other.losses)
        return float(((one - two).abs() / one.abs()).max())  # NaN, if there is one

    def logit_difference(self, other: Outcome) -> float:
        """The largest."""
        return float((self.logits - other.logits).abs().max())


class SameOrder(PairBatches):
    """Orders that hang on how many there were, not on the device."""

    drawn = 0

    def order(self) -> Tensor:
        self.drawn += 1
        generator = torch.Generator().manual_seed(self.drawn)
        return torch.randperm(len(self.train), generator=generator).to(self.train.liked.device)


class Undrawn(LikeObjective):
    """As it is trained, but that no users and items are hidden at random."""

    def loss(self, batch: PairBatch) -> Tensor:
        features = self.net.like_features(batch.user_index, batch.item_index, batch.statistics)
        return self.net.like.loss(batch.user_index, batch.item_index, features, batch.liked, batch.part)


class Given:
    """The batches that were made on the CPU, again and again."""

    def __init__(self, batches: UserBatches, device: torch.device) -> None:
        torch.manual_seed(1)
        self.mean_hidden = batches.mean_hidden
        self.made = [
            UserBatch(
                batch.user_index.to(device), batch.visible.to(device), batch.hidden.to(device), batch.part
            )
            for batch in batches
        ]

    def __len__(self) -> int:
        return len(self.made)

    def __iter__(self) -> Iterator[UserBatch]:
        return iter(self.made)


def config_of(graphs: bool) -> Config:
    return Config(
        model=ModelConfig(dropout=0.0, ranking_dropout=0.0),
        train=TrainConfig(precision="fp32", batch_size=BATCH, cuda_graphs=graphs),
    )


def data() -> tuple[FeatureProcessor, Encoded]:
    interactions, items, users, _ = synthetic.generate(USERS, ITEMS, ROWS, seed=0)
    processor = FeatureProcessor.fit(interactions, items, users, Config().data.like_threshold)
    return processor, processor.encode(interactions)


def start(config: Config, processor: FeatureProcessor, train: Encoded, device: torch.device) -> WideDeepNet:
    """The same weights at every call, on the device."""
    torch.manual_seed(0)
    return WideDeepNet.for_data(config.model, processor, train).to(device)


def like_head(device: torch.device, graphs: bool) -> Outcome:
    """Its losses and the logits of the training rows."""
    config, (processor, train) = config_of(graphs), data()
    net = start(config, processor, train, device)
    histories = Histories.from_encoded(train, processor.user_count).to(device)
    objective = Undrawn(config, net, train, histories, None, device)
    objective.batches = SameOrder(train, net.genre_shares, net.baselines(), BATCH, device)
    nothing = Checkpoint(None, False, "")
    curves, _ = train_head(config, net, objective, EPOCHS, device, lambda _step: None, nothing)
    return Outcome([row["train_loss"] for row in curves], objective.training_logits()[0].cpu())


def ranking(device: torch.device) -> Outcome:
    """Its losses and the logits of the whole catalogue for all users."""
    config, (processor, train) = config_of(False), data()
    net = start(config, processor, train, device)
    histories = Histories.from_encoded(train, processor.user_count).to(device)
    objective = RankingObjective(config, net, histories, None, device)
    on_cpu = UserBatches(
        net.read(histories).entries.to("cpu"), config.train.user_batch_size, True, False, CPU
    )
    objective.batches = Given(on_cpu, device)  # type: ignore[assignment]
    nothing = Checkpoint(None, False, "")
    curves, _ = train_head(config, net, objective, EPOCHS, device, lambda _step: None, nothing)
    with torch.no_grad():
        users = torch.arange(len(histories), device=device)
        logits = net.deep_logits(users, net.read(histories))
    return Outcome([row["train_loss"] for row in curves], logits.flatten().cpu())


@dataclass(frozen=True)
class Comparison:
    """How far a training on the device is from the CPU's."""

    name: str
    losses: float
    logits: float

    @property
    def agrees(self) -> bool:
        return self.losses <= LOSS_TOLERANCE and self.logits <= LOGIT_TOLERANCE  # NaN does not

    def __str__(self) -> str:
        return (
            f"{self.name}: losses differ by {self.losses:.2g} of their size (allowed {LOSS_TOLERANCE:g}), logits by "
            f"{self.logits:.2g} (allowed {LOGIT_TOLERANCE:g})"
        )


def compare(device: torch.device) -> list[Comparison]:
    """The like head step by step and captured, and the ranking, each against the CPU."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        expected = {"like head": like_head(CPU, graphs=False), "ranking": ranking(CPU)}
        found = {
            "like head, plain": like_head(device, graphs=False),
            "like head, graphs": like_head(device, graphs=True),
            "ranking": ranking(device),
        }
    finally:
        torch.set_float32_matmul_precision(before)
    comparisons = []
    for name, outcome in found.items():
        right = expected[name.split(",", maxsplit=1)[0]]
        comparisons.append(Comparison(name, right.loss_difference(outcome), right.logit_difference(outcome)))
    return comparisons
