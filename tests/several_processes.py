"""What the processes of test_distributed run, started by torchrun: python several_processes.py WHAT FOLDER."""

from __future__ import annotations

import os
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from widedeep import Config, DataConfig, ModelConfig, Recommender, TrainConfig, distributed, like_objective
from widedeep.datasets import Dataset, load
from widedeep.distributed import Part, World
from widedeep.gradients import LookedUp, sum_gradients
from widedeep.interactions import Interactions
from widedeep.launch import restarts
from widedeep.split import Split, split
from widedeep.training import FitResult, Step

HEIGHT, COLUMNS, ROWS, MANY = 500, 8, 31, 5_000
KINDS = ("likes_and_others", "likes_alone", "by_rows")  # by_rows: as on much data
SEEN = timedelta(seconds=10)  # that a process may stand still


def config(checkpoint: str = "") -> Config:
    """Batches of 96 users and 512 rows: neither the users nor the rows are a multiple of it."""
    return Config(
        DataConfig(dataset="synthetic", users=251, items=120, interactions=6_001),
        ModelConfig(
            hidden=(16,), ranking_hidden=32, ranking_dim=16, wide_l2=100.0, factor_share=0.0, recency=0.0
        ),
        TrainConfig(
            epochs=3,
            ranking_epochs=6,
            user_batch_size=96,
            checkpoint=checkpoint,
            resume=bool(checkpoint),
            device="cpu",
        ),
    )


def data(likes_alone: bool = False) -> tuple[Dataset, Split]:
    settings = config().data
    dataset = load(settings)
    rows = dataset.interactions
    if likes_alone:
        rows = rows.take(rows.liked(settings.like_threshold))
        rows = Interactions(rows.user_id, rows.item_id, None, rows.timestamp)
    return dataset, split(rows, settings)


def train(checkpoint: str = "", kind: str = "", progress: Any = None) -> FitResult:
    """kind  one of KINDS"""
    dataset, parts = data(kind == "likes_alone")
    usual = like_objective.MANY_ROWS
    like_objective.MANY_ROWS = 1 if kind == "by_rows" else usual
    try:
        _, result = Recommender.fit(
            config(checkpoint), dataset, parts.train, parts.validation, progress=progress
        )
    finally:
        like_objective.MANY_ROWS = usual
    return result


def save(result: FitResult, path: Path) -> None:
    content = {
        "state": result.net.state_dict(),
        "curves": result.curves,
        "validation": result.validation,
        "chosen": result.chosen.to_dict(),
    }
    torch.save(content, path)


class Pair(nn.Module):
    """Two tables of one height, and a dense layer."""

    def __init__(self, sparse: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(HEIGHT, COLUMNS, sparse=sparse)
        self.bias = nn.Embedding(HEIGHT, 1, sparse=sparse)
        self.dense = nn.Linear(COLUMNS, 1)

    def gradients(self, world: World, part: Part) -> dict[str, Tensor]:
        """Of the mean loss of a batch of ROWS, where each process has a part of it."""
        generator = torch.Generator().manual_seed(1)
        index = torch.randint(HEIGHT, (part.total,), generator=generator)[part.rows]
        loss = (self.dense(self.table(index)) + self.bias(index)).square().sum() / part.total
        loss.backward()  # type: ignore[no-untyped-call]
        looked_up = [LookedUp([self.table.weight, self.bias.weight], index)]
        sum_gradients(world, self.parameters(), looked_up)
        return {name: value.grad for name, value in self.named_parameters() if value.grad is not None}


class Counted(World):
    """Counts what this process sends."""

    def __init__(self, world: World) -> None:
        vars(self).update(vars(world))
        self.sent = 0

    def sum(self, value: Tensor) -> Tensor:
        self.sent += value.numel()
        return super().sum(value)

    def gather(self, value: Tensor) -> Tensor:
        self.sent += value.numel()
        return super().gather(value)


def together(folder: Path) -> None:
    """Everything that needs two processes that live."""
    with distributed.join("cpu") as joined:
        world = Counted(joined)
        found: dict[str, Any] = {}
        for name, rows, sparse in (("few", ROWS, False), ("sparse", ROWS, True), ("many", MANY, False)):
            world.sent = 0
            found[name] = Pair(sparse).gradients(world, world.part(rows))
            found[f"{name} sent"] = world.sent
        torch.save(found, folder / f"gradients.{world.rank}.pt")
        for kind in KINDS:
            save(train(kind=kind), folder / f"{kind}.{world.rank}.pt")
    world._waiting = None  # as `joined`, of which it is a copy, has let go of it
    torch.save([name for name in threads() if "gloo" in name], folder / f"threads.{joined.rank}.pt")


def threads() -> list[str]:
    """Names of this process's threads, those of libraries, too; none where the system does not tell."""
    return [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]


def die_once(folder: Path) -> None:
    """Rank 1 is killed in the like head's second epoch, the first time."""
    with distributed.join("cpu") as world:

        def kill(step: Step) -> None:
            reached = (step.head, step.epoch, step.done) == ("like", 2, 2)
            if reached and world.rank == 1 and restarts() == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        save(train(str(folder / "state.ckpt"), progress=kill), folder / f"restarted.{world.rank}.pt")


def stand_still(_folder: Path) -> None:
    """Rank 1 is there and does nothing any more."""
    with distributed.join("cpu", timeout=SEEN) as world:

        def stop(step: Step) -> None:
            if step.head == "like" and world.rank == 1:
                os.kill(os.getpid(), signal.SIGSTOP)

        train(progress=stop)


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"together": together, "die_once": die_once, "stand_still": stand_still}[sys.argv[1]](Path(sys.argv[2]))
