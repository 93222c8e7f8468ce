"""The two heads of a model on made-up data, trained by the loop that `fit` runs, epoch by epoch."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from experiments.benchmarks import roofline
from experiments.speed import synchronize
from widedeep.checkpoint import Checkpoint
from widedeep.config import Config, DataConfig
from widedeep.datasets import synthetic
from widedeep.features import FeatureProcessor
from widedeep.histories import Encoded, Histories
from widedeep.like_objective import LikeObjective
from widedeep.metrics import auc
from widedeep.model import WideDeepNet
from widedeep.objective import Objective
from widedeep.ranking_objective import RankingObjective
from widedeep.split import split
from widedeep.steps import Steps
from widedeep.training import Step, train_head


@dataclass(frozen=True)
class Data:
    """train, validation  on the CPU: a tenth of each user's interactions, the last ones, validates"""

    processor: FeatureProcessor
    train: Encoded
    validation: Encoded

    def part(self, rows: int) -> Data:
        """With at most so many of the training rows, random ones in their order."""
        if len(self.train) <= rows:
            return self
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(0))
        return dataclasses.replace(self, train=self.train.take(order[:rows].sort().values))


def made(users: int, items: int, rows: int) -> Data:
    interactions, item_frame, user_frame, _ = synthetic.generate(users, items, rows, seed=0)
    config = DataConfig(split="none")
    parts = split(interactions, config)
    processor = FeatureProcessor.fit(parts.train, item_frame, user_frame, config.like_threshold)
    return Data(processor, processor.encode(parts.train), processor.encode(parts.validation))


@dataclass(frozen=True)
class Epochs:
    """seconds  median of an epoch, without the first;  auc  after the first;  memory  bytes of a GPU at the peak"""

    seconds: float
    auc: float
    memory: int | None


def trained(
    config: Config,
    net: WideDeepNet,
    objective: Objective,
    epochs: int,
    device: torch.device,
    after_first: Callable[[], float] = lambda: float("nan"),
) -> Epochs:
    """after_first  is called after the first epoch; no epoch's time has it"""
    seconds: list[float] = []
    found = float("nan")
    started = time.perf_counter()

    def watch(step: Step) -> None:
        nonlocal found, started
        if not step.metrics:
            return
        synchronize(device)
        seconds.append(time.perf_counter() - started)
        if step.epoch == 1:
            found = after_first()
            synchronize(device)
        started = time.perf_counter()

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    train_head(config, net, objective, epochs, device, watch, Checkpoint(None, False, ""))
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return Epochs(statistics.median(seconds[1:]), found, memory)


class LikeHead:
    """Begins every training from the same weights."""

    def __init__(self, data: Data, config: Config, device: torch.device) -> None:
        torch.manual_seed(0)
        self.device = device
        self.net = WideDeepNet.for_data(config.model, data.processor, data.train).to(device)
        self.histories = Histories.from_encoded(data.train, data.processor.user_count).to(device)
        validation = data.validation.to(device)
        self.objective = LikeObjective(config, self.net, data.train, self.histories, validation, device)
        self.objective.judged = False  # validating is no part of an epoch here
        self.start = self.objective.snapshot()
        self.parameters = sum(parameter.numel() for parameter in self.objective.learned.parameters())

    def train(self, config: Config, epochs: int) -> Epochs:
        """config  whose batch size and way to take a step it is"""
        if config.train.batch_size is not None:
            self.objective.batches.batch_size = config.train.batch_size
        self.objective.restore(self.start)
        return trained(config, self.net, self.objective, epochs, self.device, self.auc)

    def auc(self) -> float:
        logits, liked = self.objective.validation_logits()
        return float(auc(logits, liked.bool()))

    def operations(self, rows: int) -> int:
        """Floating-point operations of a step of so many rows."""
        self.objective.batches.batch_size = rows
        return operations_of(self.objective, self.device)

    def scorer(self, rows: Encoded) -> Callable[[], object]:
        """What scores `rows`, which lie on the device, from the histories' sums."""
        rows, totals = rows.to(self.device), self.net.totals(self.histories)
        self.net.eval()

        @torch.inference_mode()
        def score() -> torch.Tensor:
            return self.net.like_logits(rows.user_index, rows.item_index, rows.user_index, totals).sigmoid_()

        return score


class Ranking:
    """The deep side of the ranking, without a closed-form part to be mixed with.

    rows, users, steps  that an epoch goes through
    """

    def __init__(self, data: Data, config: Config, device: torch.device) -> None:
        torch.manual_seed(0)
        self.config = config
        self.device = device
        self.net = WideDeepNet.for_data(config.model, data.processor, data.train).to(device)
        histories = Histories.from_encoded(data.train, data.processor.user_count).to(device)
        self.objective = RankingObjective(config, self.net, histories, None, device)
        batches = self.objective.batches
        self.rows = int(batches.entries.lengths[batches.users].sum())
        self.users, self.steps = len(batches.users), len(batches)
        self.parameters = sum(parameter.numel() for parameter in self.objective.learned.parameters())

    def train(self, epochs: int) -> Epochs:
        return trained(self.config, self.net, self.objective, epochs, self.device)

    def operations(self) -> int:
        """Floating-point operations of a step."""
        return operations_of(self.objective, self.device)


def operations_of(objective: Objective, device: torch.device) -> int:
    """Of a step on the first of the batches, which leaves the weights as they are."""
    scaler = torch.amp.GradScaler(device.type, enabled=False)
    steps = Steps(objective, objective.optimizers(), scaler, device, torch.float32)
    objective.learned.train()
    batch = next(iter(objective.batches))
    return roofline.operations(lambda: steps.take(batch, 0.0))
