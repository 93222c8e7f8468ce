"""The like head's loss and its gradients in one pass, for the CPU.

A step on the CPU is spent on matrix products and on moving activations through memory. Here a batch passes in
blocks that stay in the processor's cache, forward and backward at once, and dropout makes the products smaller
instead of masking what they gave: a batch drops whole units, the same for all of its rows.

Source  Graham, Reizenstein & Robinson 2015, "Efficient batchwise dropout training using submatrices",
        arXiv 1502.02478
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 2048  # rows: their activations fit into the cache, and a product of this size is efficient
MULTIPLE = 8  # units are kept in multiples of a vector register


class PerceptronLoss(torch.autograd.Function):
    """() mean binary cross-entropy of `offset` + a perceptron of `inputs`; the gradients come with the value.

    dropout   share of the units of every hidden layer that the batch drops; the others count for them, too
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
        liked: Tensor,
        offset: Tensor,
        features: Tensor,
        user: Tensor,
        item: Tensor,
        *layers: Tensor,
    ) -> Tensor:
        of_offset, of_user, of_item = (torch.empty_like(column) for column in (offset, user, item))
        perceptron = _Submatrices(layers, dropout)
        loss = offset.new_zeros(())
        for start in range(0, len(liked), BLOCK):
            rows = slice(start, start + BLOCK)
            logits = perceptron.forward(torch.cat([user[rows], item[rows], features[rows]], 1))
            logits += offset[rows]
            loss += F.softplus(logits).sum() - logits.dot(liked[rows])
            torch.sub(logits.sigmoid_(), liked[rows], out=of_offset[rows]).div_(len(liked))
            perceptron.backward(of_offset[rows], of_user[rows], of_item[rows])
        ctx.save_for_backward(of_offset, of_user, of_item, *perceptron.gradients(layers))
        return loss.div_(len(liked))

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> Any:
        of_offset, of_user, of_item, *of_layers = (gradient.mul_(scale) for gradient in ctx.saved_tensors)
        return None, None, of_offset, None, of_user, of_item, *of_layers


class _Submatrices:
    """The rows and columns of a perceptron's weights that belong to the units a batch keeps."""

    def __init__(self, layers: Sequence[Tensor], dropout: float) -> None:
        weights, biases = layers[::2], layers[1::2]
        kept = [_keep(len(bias), dropout) for bias in biases[:-1]]
        self.rows = [*kept, torch.arange(1)]
        self.columns = [torch.arange(weights[0].shape[1]), *kept]
        self.scales = [1.0] + [len(bias) / len(units) for bias, units in zip(biases, kept, strict=False)]
        self.weights = [
            weight.index_select(0, rows).index_select(1, columns).mul_(scale)
            for weight, rows, columns, scale in zip(
                weights, self.rows, self.columns, self.scales, strict=True
            )
        ]
        self.biases = [bias.index_select(0, rows) for bias, rows in zip(biases, self.rows, strict=True)]
        self.of_weights = [torch.zeros_like(weight) for weight in self.weights]
        self.of_biases = [torch.zeros_like(bias) for bias in self.biases]
        self.activations: list[Tensor] = []

    def forward(self, inputs: Tensor) -> Tensor:
        """(rows,) logits of inputs (rows, columns)"""
        self.activations = [inputs]
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            self.activations.append(torch.addmm(bias, self.activations[-1], weight.T).relu_())
        return torch.addmv(self.biases[-1], self.activations[-1], self.weights[-1][0])

    def backward(self, of_logits: Tensor, of_user: Tensor, of_item: Tensor) -> None:
        """Adds to the layers' gradients; writes the inputs' into of_user and of_item (rows, dim)."""
        delta = of_logits[:, None]
        for number in reversed(range(len(self.weights))):
            self.of_weights[number].addmm_(delta.T, self.activations[number])
            self.of_biases[number] += delta.sum(0)
            if number:
                delta = delta @ self.weights[number]
                torch.ops.aten.threshold_backward.grad_input(
                    delta, self.activations[number], 0, grad_input=delta
                )
        width = of_user.shape[1]
        torch.mm(delta, self.weights[0][:, :width], out=of_user)
        torch.mm(delta, self.weights[0][:, width : 2 * width], out=of_item)

    def gradients(self, layers: Sequence[Tensor]) -> list[Tensor]:
        """In the layers' order and shapes: nothing for the units that were dropped."""
        found = [torch.zeros_like(parameter) for parameter in layers]
        for number, (rows, columns) in enumerate(zip(self.rows, self.columns, strict=True)):
            of_weight = self.of_weights[number].mul_(self.scales[number])
            found[2 * number][rows[:, None], columns] = of_weight
            found[2 * number + 1][rows] = self.of_biases[number]
        return found


def _keep(units: int, dropout: float) -> Tensor:
    """The units that are kept, in order: all without dropout, else a whole number of vector registers."""
    if dropout == 0:
        return torch.arange(units)
    kept = round(units * (1 - dropout))
    if kept > MULTIPLE:
        kept = round(kept / MULTIPLE) * MULTIPLE
    return torch.randperm(units)[: max(1, kept)].sort().values
