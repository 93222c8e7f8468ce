"""The like head's loss and its gradients in one pass, for the CPU.

A step on the CPU is spent on matrix products and on moving activations through memory. Here a batch passes in
blocks that stay in the processor's cache, forward and backward at once, and dropout makes the products smaller
instead of masking what they gave: a block drops whole units, the same for all of its rows.

Source  Graham, Reizenstein & Robinson 2015, "Efficient batchwise dropout training using submatrices",
        arXiv 1502.02478; there a batch has one pattern of units, which comes to a worse model
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from widedeep.distributed import Part

BLOCK = 1024  # rows: their activations fit into the cache, and a batch has a few patterns of units
MULTIPLE = 8  # units are kept in multiples of a vector register


class PerceptronLoss(torch.autograd.Function):
    """() mean binary cross-entropy of `offset` + a perceptron of `inputs`; the gradients come with the value.

    dropout   share of the units of every hidden layer that a block drops; the others count for them, too
    part      which rows of the batch these are: all processes that share it drop the same units of the same rows
    liked     (rows,) float32, 0 or 1
    offset    (rows,) logits to add
    features  (rows, columns) inputs without a gradient
    user, item  (rows, dim) inputs before the features
    layers    weight (out, in) and bias (out,) of each linear layer, the last of which has one unit
    """

    @staticmethod
    def forward(
        ctx: Any,
        dropout: float,
        part: Part,
        liked: Tensor,
        offset: Tensor,
        features: Tensor,
        user: Tensor,
        item: Tensor,
        *layers: Tensor,
    ) -> Tensor:
        of_offset, of_user, of_item = (torch.empty_like(column) for column in (offset, user, item))
        perceptron = _Perceptron(layers, dropout)
        loss = offset.new_zeros(())
        for start in range(0, part.total, BLOCK):
            perceptron.draw()
            rows = slice(max(start - part.start, 0), start + BLOCK - part.start)
            if rows.stop <= 0 or rows.start >= len(liked):
                continue
            logits = perceptron.forward(torch.cat([user[rows], item[rows], features[rows]], 1))
            logits += offset[rows]
            loss += F.softplus(logits).sum() - logits.dot(liked[rows])
            torch.sub(logits.sigmoid_(), liked[rows], out=of_offset[rows]).div_(len(liked))
            perceptron.backward(of_offset[rows], of_user[rows], of_item[rows])
        ctx.save_for_backward(of_offset, of_user, of_item, *perceptron.gradients())
        return loss.div_(len(liked))

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> Any:
        of_offset, of_user, of_item, *of_layers = (gradient.mul_(scale) for gradient in ctx.saved_tensors)
        return None, None, None, of_offset, None, of_user, of_item, *of_layers


class _Perceptron:
    """Weights and gradients with the hidden units in an order drawn anew, so that a block keeps neighbours.

    What belongs to neighbours is a view, which a product takes as it is. The units that a block keeps begin anywhere:
    the first ones come once more behind the last.
    """

    def __init__(self, layers: Sequence[Tensor], dropout: float) -> None:
        weights, biases = layers[::2], layers[1::2]
        self.units = [weights[0].shape[1], *(len(bias) for bias in biases)]
        hidden = range(1, len(weights))
        self.kept = [
            _kept(units, dropout if number in hidden else 0) for number, units in enumerate(self.units)
        ]
        self.scales = [units / kept for units, kept in zip(self.units, self.kept, strict=True)]
        self.orders = [_order(units, kept) for units, kept in zip(self.units, self.kept, strict=True)]
        self.windows = [slice(0, units) for units in self.units]
        self.weights = [
            weight.index_select(0, rows).index_select(1, columns).mul_(scale)
            for weight, rows, columns, scale in zip(
                weights, self.orders[1:], self.orders, self.scales, strict=False
            )
        ]
        self.biases = [bias.index_select(0, rows) for bias, rows in zip(biases, self.orders[1:], strict=True)]
        self.of_weights = [torch.zeros_like(weight) for weight in self.weights]
        self.of_biases = [torch.zeros_like(bias) for bias in self.biases]
        self.activations: list[Tensor] = []

    def draw(self) -> None:
        """Choose the units that the next block keeps."""
        starts = torch.rand(len(self.units)).tolist()
        for number, (start, units, kept) in enumerate(zip(starts, self.units, self.kept, strict=True)):
            if kept < units:
                self.windows[number] = slice(int(start * units), int(start * units) + kept)

    def forward(self, inputs: Tensor) -> Tensor:
        """(rows,) logits of inputs (rows, columns)"""
        self.activations = [inputs]
        for number in range(len(self.weights) - 1):
            bias, weight = self.biases[number][self.windows[number + 1]], self._view(self.weights, number)
            self.activations.append(torch.addmm(bias, self.activations[-1], weight.T).relu_())
        return torch.addmv(self.biases[-1], self.activations[-1], self._view(self.weights, -1)[0])

    def backward(self, of_logits: Tensor, of_user: Tensor, of_item: Tensor) -> None:
        """Adds to the layers' gradients; writes the inputs' into of_user and of_item (rows, dim)."""
        delta = of_logits[:, None]
        for number in reversed(range(len(self.weights))):
            self._view(self.of_weights, number).addmm_(delta.T, self.activations[number])
            self.of_biases[number][self.windows[number + 1]] += delta.sum(0)
            if number:
                delta = delta @ self._view(self.weights, number)
                torch.ops.aten.threshold_backward.grad_input(
                    delta, self.activations[number], 0, grad_input=delta
                )
        width, weight = of_user.shape[1], self._view(self.weights, 0)
        torch.mm(delta, weight[:, :width], out=of_user)
        torch.mm(delta, weight[:, width : 2 * width], out=of_item)

    def gradients(self) -> list[Tensor]:
        """In the layers' order and shapes."""
        found = []
        for number, (of_weight, of_bias) in enumerate(zip(self.of_weights, self.of_biases, strict=True)):
            rows, columns = self.orders[number + 1], self.orders[number]
            of_rows = of_weight.new_zeros(self.units[number + 1], len(columns)).index_add_(0, rows, of_weight)
            of_all = of_weight.new_zeros(self.units[number + 1], self.units[number])
            found.append(of_all.index_add_(1, columns, of_rows, alpha=self.scales[number]))
            found.append(of_bias.new_zeros(self.units[number + 1]).index_add_(0, rows, of_bias))
        return found

    def _view(self, tensors: list[Tensor], number: int) -> Tensor:
        """Of the weights or the gradients of a layer, those that the block has."""
        number %= len(tensors)
        return tensors[number][self.windows[number + 1], self.windows[number]]


def _kept(units: int, dropout: float) -> int:
    """How many units are kept: all without dropout, else whole vector registers."""
    if dropout == 0:
        return units
    kept = round(units * (1 - dropout))
    return max(1, round(kept / MULTIPLE) * MULTIPLE if kept > MULTIPLE else kept)


def _order(units: int, kept: int) -> Tensor:
    """(units + kept,) the units as they lie, the first ones once more at the end; (units,) where all are kept."""
    if kept == units:
        return torch.arange(units)
    order = torch.randperm(units)
    return torch.cat([order, order[:kept]])
