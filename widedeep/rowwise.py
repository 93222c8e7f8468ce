"""Row-wise Adagrad: the optimizer of large tables of which a step reads few rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

EPSILON = 1e-10


class RowwiseAdagrad(Optimizer):
    """One accumulator for each row of a table; a step costs what its lookups cost, however large the table is.

    For tables (rows, columns) that are read by `F.embedding(..., sparse=True)`. Each lookup adds the mean square
    of its own gradient to its row's accumulator, then moves the row by -lr * gradient / sqrt(accumulator). A row
    that is looked up twice in a step has two such moves; nothing is sorted or merged for that on the CPU.

    weight_decay  of the rows looked up, in the loss: half of it times the mean square length of a lookup's row
    Source        Duchi, Hazan & Singer 2011; one accumulator a row: Naumov et al. 2019 (DLRM), arXiv 1906.00091
    """

    def __init__(self, params: Any, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        for group in self.param_groups:
            for table in group["params"]:
                self.state[table]["squares"] = table.new_zeros(len(table))

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None:
                    self._move(table, self.state[table]["squares"], group["lr"], group["weight_decay"])

    def _move(self, table: Tensor, squares: Tensor, rate: float, decay: float) -> None:
        gradient = table.grad
        assert gradient is not None
        lookups = gradient._nnz()
        if table.device.type != "cpu":
            gradient = gradient.coalesce()  # additions to one row come in any order there
        rows, values = gradient._indices()[0], gradient._values()
        if decay:
            values = values.add(table.index_select(0, rows), alpha=decay / lookups)
        squares.index_add_(0, rows, values.square().mean(1))
        scale = squares.index_select(0, rows).sqrt_().add_(EPSILON).reciprocal_().mul_(-rate)
        table.index_add_(0, rows, values * scale[:, None])
