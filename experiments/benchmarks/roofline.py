"""The least time that a training step can take on a device, from what the device was measured to do.

Source  Williams, Waterman & Patterson 2009, "Roofline: an insightful visual performance model for multicore
        architectures", doi 10.1145/1498765.1498785
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from experiments.speed import median_seconds

SIDE = {"cuda": 8192, "cpu": 1024}  # of the matrices that are multiplied
COPIED = {"cuda": 2**30, "cpu": 2**26}  # bytes
FLOAT = 4  # bytes
ADAM = 8  # floats a parameter: itself, gradient and two moments are read and written
AVERAGE = 3  # floats a parameter: the average and the weight are read, the average is written
LOGITS = 4  # floats a logit: written, read for the softmax; its gradient written, read for the products


@dataclass(frozen=True)
class Peaks:
    """What the device was seen to do in a second: floating-point operations of a product, bytes of a copy."""

    operations: float
    bytes: float

    @classmethod
    def measured(cls, device: torch.device, dtype: torch.dtype) -> Peaks:
        """dtype  of the matrices"""
        side, size = SIDE.get(device.type, 1024), COPIED.get(device.type, 2**26)
        left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        product = torch.empty_like(left)
        source = torch.zeros(size, dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        return cls(
            2 * side**3 / median_seconds(lambda: torch.mm(left, right, out=product), device),
            2 * size / median_seconds(lambda: target.copy_(source), device),
        )


@dataclass(frozen=True)
class Work:
    """What a step has to do at least: floating-point operations of its products, bytes that it has to move."""

    operations: float
    bytes: float

    def least_seconds(self, peaks: Peaks) -> float:
        return max(self.operations / peaks.operations, self.bytes / peaks.bytes)


def operations(step: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products in `step`, forward and backward, counted as it runs."""
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def ranking_bytes(parameters: int, users: int, items: int) -> int:
    """What a step of the ranking moves at least: Adam on all parameters, their moving average, and the logits."""
    return FLOAT * ((ADAM + AVERAGE) * parameters + LOGITS * users * items)


def like_bytes(parameters: int, rows: int, inputs: int) -> int:
    """What a step of the like head moves at least: Adam on all parameters, and each row's inputs once.

    What the layers between give could stay within the processors.
    """
    return FLOAT * (ADAM * parameters + rows * inputs)
