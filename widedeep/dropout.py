"""Dropout whose mask is cheap on the CPU."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from widedeep.distributed import Part


class Dropout(nn.Module):
    """As nn.Dropout: each element is zero with probability `p` in training, the others are scaled to keep the mean.

    On the CPU `p` is rounded to a 256th, and one draw of the generator decides on eight elements: there
    nn.Dropout draws for each of them, which takes a third of the like head's training.
    part: which rows of a batch the values are, where several processes share it. Each draws the mask of all rows, so
    that a row's is the same whoever has it.
    """

    part: Part | None = None

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, values: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return values
        part = self.part or Part(0, len(values), len(values))
        whole = (part.total, *values.shape[1:])
        if values.device.type != "cpu":
            if self.part is None:
                return nn.functional.dropout(values, self.p)
            return values * nn.functional.dropout(values.new_ones(whole), self.p)[part.rows]
        dropped = round(self.p * 256)
        elements = math.prod(whole)
        draws = torch.empty(-(-elements // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = draws.view(torch.uint8)[:elements].view(whole)[part.rows] >= dropped
        return values * kept.to(values.dtype).mul_(256 / (256 - dropped))

    def extra_repr(self) -> str:
        return f"p={self.p}"


def take_part(module: nn.Module, part: Part) -> None:
    """Tell the dropouts of `module` which rows of a batch come next."""
    whole = part.stop - part.start == part.total
    for layer in module.modules():
        if isinstance(layer, Dropout):
            layer.part = None if whole else part
