"""Train the like head with user and item tables that lie in parts in several processes, by TorchRec.

    torchrun --nproc-per-node 2 examples/sharded_tables.py --dataset ml-25m --epochs 5 --out model.pth
    torchrun --nproc-per-node 2 examples/sharded_tables.py --dataset synthetic --out model.pth --check

For tables that outgrow a device: each process keeps a block of the rows of every table and of the optimizer's state,
and fetches what its rows of a batch read from the others. The ranking is trained first, as always. At the end rank 0
collects the tables in its memory, not on its device, and writes the usual bundle. The flags are those of
`python -m experiments train`. --check trains whole tables, too, in one process and from the same start, and compares
the losses.

Differs from `widedeep.training.fit`: the tables are trained by rows on any amount of data, a row that a step reads
several times moves once, by the sum; they have no weight decay (--embedding-decay), and there is no checkpoint. Tried
on the CPU, over gloo; CUDA needs FBGEMM's build for it in place of fbgemm-gpu-cpu.
"""

from __future__ import annotations

import sys
from argparse import RawDescriptionHelpFormatter as RawText
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from sharded_table import INSTALL, LANES, MISSING, ShardedTable, keep_gradients
from torch import Tensor

from experiments.flags import SECTIONS, Parser, add_fields, check_known, config_from, says
from widedeep import Config, Recommender, distributed
from widedeep.checkpoint import Checkpoint
from widedeep.choices import choose_calibration, level
from widedeep.datasets import load
from widedeep.device import resolve_device, resolve_precision
from widedeep.distributed import World
from widedeep.errors import ConfigError, TrainingError, WideDeepError
from widedeep.histories import Encoded
from widedeep.like_head import LikeHead
from widedeep.like_objective import LikeObjective
from widedeep.model import WideDeepNet
from widedeep.objective import adam
from widedeep.rowwise import RowwiseAdagrad
from widedeep.split import split
from widedeep.training import Chosen, train_head

TABLES = ("user", "item", "user_bias", "item_bias")
TOLERANCE = 1e-3  # of a loss, relative: what other orders of additions come to
Curve = list[dict[str, Any]]  # a row per epoch


def sharded_head(config: Config, net: WideDeepNet, world: World, device: torch.device) -> LikeHead:
    """A fresh like head on the device, with this process's blocks of the tables."""
    torch.manual_seed(config.train.seed)  # the layers are the same in all processes
    head = LikeHead(config.model, 1, 1, net.like.linear.in_features).to(device)
    torch.manual_seed(config.train.seed + 1 + world.rank)  # the blocks are not
    for name in TABLES:
        rows = net.user_count if name.startswith("user") else net.item_count
        table = ShardedTable(rows, getattr(head, name).embedding_dim, world, device)
        setattr(head, name, table)
        with torch.no_grad():
            table.weight.zero_() if table.columns == 1 else table.weight.normal_(std=0.05)
    return head


def whole_head(config: Config, net: WideDeepNet, head: LikeHead, world: World) -> LikeHead | None:
    """The head with whole tables, on the CPU of rank 0; None in the others."""
    tables = {f"{name}.weight": getattr(head, name).collect(world) for name in TABLES}
    if world.rank:
        return None
    layers = {name: value for name, value in head.state_dict().items() if name.split(".")[0] not in TABLES}
    whole = LikeHead(config.model, net.user_count, net.item_count, head.linear.in_features)
    whole.load_state_dict(layers | tables)
    return whole


class MergedAdagrad(RowwiseAdagrad):
    """RowwiseAdagrad that merges the lookups of a row, as FBGEMM's does."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for table in group["params"]:
                table.grad = table.grad.coalesce() if table.grad.is_sparse else table.grad.to_sparse(1)
        super().step(closure)


class RowsObjective(LikeObjective):
    """LikeObjective for tables that are trained by rows, be they whole or not."""

    def optimizers(self) -> list[torch.optim.Optimizer]:
        tables, layers = self.net.like.embeddings(), self.net.like.layers()
        optimizers = [adam([{"params": layers, "weight_decay": self.decay[0]}], self.rate(0.0))]
        if not self.tables:
            factor = self.embedding_rate / self.learning_rate
            optimizers.append(MergedAdagrad([{"params": tables, "factor": factor}], 0.0))
        return optimizers

    @property
    def tables(self) -> list[ShardedTable]:
        return [table for table in self.module.children() if isinstance(table, ShardedTable)]

    def rate(self, done: float) -> float:
        rate = super().rate(done)
        for table in self.tables:
            table.set_rate(rate * self.embedding_rate / self.learning_rate)
        return rate

    def looked_up(self, batch: Any) -> list[Any]:  # noqa: ARG002
        return []  # the gradients of tables are where their rows are

    def validate_once(self, world: World) -> dict[str, float]:
        found = self.validate()  # by all together: none has all rows
        return world.first(lambda: found)

    def snapshot(self) -> dict[str, Tensor]:
        return {name: value.detach().cpu().clone() for name, value in self.module.named_parameters()}

    @torch.no_grad()
    def restore(self, weights: dict[str, Tensor]) -> None:
        for name, value in self.module.named_parameters():
            value.copy_(weights[name])


@dataclass(frozen=True)
class Trainer:
    """Trains like heads in one network on one data set, be their tables whole or not."""

    config: Config
    made: Recommender
    train: Encoded
    validation: Encoded
    device: torch.device

    def fit(self, head: LikeHead) -> tuple[RowsObjective, Curve, int]:
        """How it was trained, a row per epoch, and the epochs that the kept weights saw."""
        config, net, device = self.config, self.made.net, self.device
        net.like = head
        histories, validation = self.made.histories, self.validation.to(device)
        objective = RowsObjective(config, net, self.train, histories, validation, device)
        head.by_rows = (
            device.type == "cpu" and resolve_precision(config.train.precision, device) == torch.float32
        )
        none = Checkpoint(None, False, "")
        curve, epochs = train_head(config, net, objective, config.train.epochs, device, lambda _: None, none)
        return objective, curve, epochs


def prepare(config: Config, world: World) -> tuple[Trainer, Chosen]:
    """All but the like head is trained; one with tables of one column stands in for it."""
    if world.rank:
        world.first(lambda: "")  # the first may have to download
    dataset = load(config.data)
    if world.rank == 0:
        world.first(lambda: "")
    parts = split(dataset.interactions, config.data)
    if not len(parts.validation):
        raise ConfigError("The epochs are chosen on a validation part. Give a validation_fraction above 0.")
    model, train = replace(config.model, embedding_dim=1), replace(config.train, epochs=0)
    narrow = replace(config, model=model, train=train)
    made, result = Recommender.fit(narrow, dataset, parts.train, parts.validation)
    made.net.config = config.model
    made.net.calibration.copy_(torch.tensor([1.0, 0.0]))
    rows = [made.processor.encode(part) for part in (parts.train, parts.validation)]
    return Trainer(config, made, rows[0], rows[1], resolve_device(config.train.device)), result.chosen


def run(config: Config, out: Path, check: bool, world: World) -> None:
    """Raises  WideDeepError"""
    trainer, chosen = prepare(config, world)
    made, net, device = trainer.made, trainer.made.net, trainer.device
    head = sharded_head(config, net, world, device)
    own = sum(4 * (table.numel() + len(table)) for table in head.embeddings())  # Adagrad has one number a row
    sizes = world.gather(torch.tensor(own, device=device)).tolist()
    start = whole_head(config, net, head, world) if check else None
    objective, curve, epochs = trainer.fit(head)
    if world.rank == 0:
        says("bytes of tables and optimizer in each process: " + " and ".join(f"{size:,}" for size in sizes))
        show(curve, "in parts")
    if check:
        world.first(lambda: compare(curve, start, trainer))
        net.like = head
    level(net, objective)
    choose_calibration(net, objective)
    before = objective.validate()["log_loss"]
    whole = whole_head(config, net, head, world)
    if whole is None:
        return
    net.cpu().like = whole
    scale, shift = net.calibration.tolist()
    chosen = replace(chosen, like_epochs=epochs, calibration=(scale, shift))
    Recommender(net, made.processor, made.histories.to("cpu"), config, chosen, made.about).save(out)
    model, rows = Recommender.load(out, device="cpu"), trainer.validation
    probability = model.probability(rows.user_index, rows.item_index, model.histories)
    after = F.binary_cross_entropy(probability, rows.liked.float())
    says(f"calibrated log loss {before:.5f}; of {out}, loaded back, {after:.5f}")


def compare(curve: Curve, start: LikeHead | None, trainer: Trainer) -> None:
    """Train the whole tables `start` in this process alone.

    Raises  TrainingError: the losses differ by more than TOLERANCE
    """
    assert start is not None
    with distributed.alone():
        _, expected, _ = trainer.fit(start.to(trainer.device))
    show(expected, "whole")
    found, wanted = (
        torch.tensor([(row["train_loss"], row["log_loss"]) for row in rows]) for rows in (curve, expected)
    )
    worst = float((found / wanted - 1).abs().max())
    if worst > TOLERANCE:
        raise TrainingError(f"The losses with tables in parts and whole differ by {worst:.1e}.")
    says(f"the losses are equal within {worst:.1e}")


def show(curve: Curve, tables: str) -> None:
    for row in curve:
        says(
            f"tables {tables}, epoch {row['epoch']}: train loss {row['train_loss']:.5f}, "
            f"validation log loss {row['log_loss']:.5f}"
        )


def main(words: Sequence[str] | None = None) -> int:
    parser = Parser(prog="examples/sharded_tables.py", description=__doc__, formatter_class=RawText)
    for section in SECTIONS.values():
        add_fields(parser, section)
    parser.add_argument("--out", type=Path, default=Path("model.pth"), help="the bundle to write")
    parser.add_argument("--check", action="store_true", help="compare with whole tables in one process")
    try:
        options, unknown = parser.parse_known_args(words)
        check_known(unknown, vars(options))
        given = vars(options)
        out, check = given.pop("out"), given.pop("check")
        config = config_from(given)
        if config.model.embedding_dim % LANES:
            raise ConfigError(
                f"embedding_dim must be a multiple of {LANES}, got {config.model.embedding_dim}."
            )
        if config.train.checkpoint:
            raise ConfigError("Tables in parts are trained without a checkpoint. Leave --checkpoint out.")
        if MISSING:
            raise ConfigError(f"TorchRec does not load ({MISSING}). Install it: {INSTALL}")
        keep_gradients()
        with distributed.join(config.train.device) as world:
            if world.size == 1:
                raise ConfigError(
                    "One process has nothing to share. Start it with torchrun --nproc-per-node 2."
                )
            run(config, out, check, world)
    except WideDeepError as error:
        says(f"error: {error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
