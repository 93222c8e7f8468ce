"""The steps of a head's training: the loss of a batch, its gradients, the optimizers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from widedeep.device import autocast
from widedeep.distributed import World
from widedeep.gradients import sum_gradients
from widedeep.objective import Objective, set_rate


@dataclass(eq=False)
class Steps:
    """One step after the other. Nothing in it waits for the device.

    optimizers  with the state that the training goes on from
    dtype       of the mixed precision, or float32
    loss        () sum of the steps' losses since it was last set to zero, on the device
    """

    objective: Objective
    optimizers: list[torch.optim.Optimizer]
    scaler: torch.amp.GradScaler
    device: torch.device
    dtype: torch.dtype
    loss: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.loss = torch.zeros((), device=self.device)

    def batches(self) -> Iterable[Any]:
        """What `take` takes, for one epoch."""
        return self.objective.batches

    def take(self, batch: Any, rate: float) -> None:
        """Take one step.  rate  the learning rate"""
        for optimizer in self.optimizers:
            set_rate(optimizer, rate)
        self._take(batch)

    def _take(self, batch: Any) -> None:
        world, objective = World.current(), self.objective
        with autocast(self.device, self.dtype):
            loss = objective.loss(batch)
        objective.learned.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if world.size > 1:
            sum_gradients(world, objective.learned.parameters(), objective.looked_up(batch))
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()
        self.loss += loss.detach()
