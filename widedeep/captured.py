"""The like head's step as one CUDA graph: captured once, then launched as a whole for every batch.

A step is about seventy small operations, each of which the host launches by itself; a graph of them is launched at
once.

Source  https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs, "Whole-network capture"
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from widedeep.config import Config
from widedeep.distributed import World
from widedeep.errors import ConfigError
from widedeep.objective import Objective
from widedeep.sampling import PairBatches
from widedeep.steps import Steps

WARM_UP = 3  # steps before the capture, in which libraries and the optimizer make what they keep


class CapturedSteps(Steps):
    """Steps that read rows and learning rate from fixed places on the device, so that one graph serves them all.

    The first steps of a training are launched one by one, which warms up and is training all the same, and so is the
    last batch of an epoch where it is smaller. On the CPU all of them are: it has no graphs, and comes to the same
    weights as `Steps`, bit by bit. The random numbers are those of `Steps`, too: a replay draws from where the
    generator stands, under its present seed.
    objective, optimizers  with PairBatches; Adam with one rate for all of its groups
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        objective, device = self.objective, self.device
        assert isinstance(objective.batches, PairBatches)
        self.pairs = objective.batches
        self.rows = torch.zeros(self.pairs.batch_size, dtype=torch.int64, device=device)
        # The fused kernel wants float32 on CUDA; the CPU's calculates with the double that a number would be.
        kind = torch.float32 if device.type == "cuda" else torch.float64
        self.rate = torch.zeros((), dtype=kind, device=device)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                assert "factor" not in group
                group["lr"], group["capturable"] = self.rate, True
        self.warmed_up = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.stream = (
            torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        )

    def batches(self) -> Iterable[Tensor]:
        """(rows,) int64 of the training interactions, batch by batch."""
        return self.pairs.rows()

    def take(self, batch: Tensor, rate: float) -> None:
        """Take one step.  batch (rows,) int64;  rate  the learning rate"""
        self.rate.fill_(rate)
        if len(batch) < len(self.rows):
            self._take(batch)
            return
        self.rows.copy_(batch)
        if self.stream is None:
            self._take(self.rows)
        elif self.warmed_up < WARM_UP:
            self._warm_up(self.stream)
        else:
            if self.graph is None:
                self.graph = self._capture(self.stream)
            self.graph.replay()

    def _take(self, batch: Tensor) -> None:
        super()._take(self.pairs.take(batch))

    def _warm_up(self, stream: torch.cuda.Stream) -> None:
        """One step on the stream of the capture, whose work may depend on no other stream's."""
        present = torch.cuda.current_stream(self.device)
        stream.wait_stream(present)
        with torch.cuda.stream(stream):
            self._take(self.rows)
        present.wait_stream(stream)
        self.warmed_up += 1

    def _capture(self, stream: torch.cuda.Stream) -> torch.cuda.CUDAGraph:
        """The step on `self.rows`, which capturing it does not take.

        The gradients of the last step are let go before, so that those of the graph are made in its own memory.
        """
        self.objective.learned.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            self._take(self.rows)
        return graph


def steps_of(
    config: Config,
    objective: Objective,
    optimizers: list[torch.optim.Optimizer],
    scaler: torch.amp.GradScaler,
    device: torch.device,
    dtype: torch.dtype,
) -> Steps:
    """Captured where the configuration asks for it and the batches are of one size, else one by one.

    Raises  ConfigError: a capture was asked for in one of several processes
    """
    adam_alone = all(isinstance(optimizer, torch.optim.Adam) for optimizer in optimizers)
    captured = (
        config.train.cuda_graphs
        and isinstance(objective.batches, PairBatches)
        and adam_alone
        and device.type in ("cpu", "cuda")
    )
    if captured and World.current().size > 1:
        raise ConfigError(
            f"cuda_graphs captures the step of one process, and {World.current().size} train together, which exchange "
            "gradients within a step. Use --cuda-graphs false."
        )
    kind = CapturedSteps if captured else Steps
    return kind(objective, optimizers, scaler, device, dtype)
