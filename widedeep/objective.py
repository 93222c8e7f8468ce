"""What fit() needs to know of a head's training: its batches, its loss, and how it is judged on the validation part."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from widedeep.distributed import World
from widedeep.gradients import LookedUp


class Batches(Protocol):
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...


class Objective(Protocol):
    """One head's training: fit() needs no more than this."""

    head: str
    rate_setting: str  # that holds the learning rate
    learning_rate: float
    patience: int  # epochs without a better quality before it stops
    notable: float  # by so much has a quality to be higher to be a better one

    @property
    def batches(self) -> Batches: ...
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Fresh ones, each for parameters of its own."""
        ...

    def loss(self, batch: Any) -> Tensor:
        """() the mean loss of one of `batches`; of a part of it, the part's share of the mean."""
        ...

    def looked_up(self, batch: Any) -> list[LookedUp]:
        """The rows of embedding tables that the batch reads, for all tables with few of them."""
        ...

    @property
    def learned(self) -> nn.Module:
        """What the optimizer changes; what is judged and kept may be an average of it."""
        ...

    def rate(self, done: float) -> float:
        """The learning rate when `done`, 0 to 1, of an epoch is behind."""
        ...

    def after_step(self, step: int) -> None:
        """Called after every step of the optimizer, the first being 1."""
        ...

    def validate(self) -> dict[str, float]:
        """Validation metrics; empty without a validation part."""
        ...

    def validate_once(self, world: World) -> dict[str, float]:
        """The same validation metrics in all processes, which call it together."""
        ...

    def quality(self, metrics: dict[str, float]) -> float | None:
        """The one number to stop by, higher is better; None without a validation part."""
        ...

    def snapshot(self) -> dict[str, Tensor]:
        """A copy of the head's weights."""
        ...

    def restore(self, weights: dict[str, Tensor]) -> None: ...


def adam(groups: list[dict[str, Any]], rate: float) -> torch.optim.Optimizer:
    """Adam, in one pass over the parameters where the device has that."""
    device = groups[0]["params"][0].device
    return torch.optim.Adam(groups, lr=rate, fused=device.type in ("cpu", "cuda"))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The rate of each group: `rate`, times the group's own "factor" if it has one."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("factor", 1.0)


class Head:
    """The part that both objectives share: the weights of one submodule."""

    module: nn.Module

    def validate_once(self: Objective, world: World) -> dict[str, float]:
        """By the first process, which has all weights, as the others have."""
        return world.first(self.validate)

    def after_step(self, step: int) -> None:
        """What the optimizer changes is what is kept."""

    def snapshot(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.module.state_dict().items()}

    def restore(self, weights: dict[str, Tensor]) -> None:
        self.module.load_state_dict(weights)
