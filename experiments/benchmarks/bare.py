"""The products that an answer cannot do without, and nothing else: the floor that `catalogue` compares with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from widedeep.recommender import Recommender

BLOCK_ROWS = 256  # of the perceptron at once, as in the library
BLOCK_COLUMNS = 1024  # of the item vectors


@dataclass(frozen=True)
class Histories:
    """What is given to the products: everything is looked up, and on the device.

    likes, places  (entries,) int64: item_index of the likes, and where they are among the crosses
    entries        (entries,) int64: the rows of the deep side that all entries are read by
    *_offsets      (histories + 1,) int64
    """

    likes: Tensor
    places: Tensor
    like_offsets: Tensor
    entries: Tensor
    entry_offsets: Tensor


class Products:
    """The matrix products of a ranking, with the item halves at hand, in the layout that suits them best."""

    def __init__(self, recommender: Recommender) -> None:
        net = recommender.net
        self.net = net
        solver = net.factors.solver()
        self.factors = solver.rotated
        self.dim = solver.rotated.shape[1]
        with torch.no_grad():
            deep = net.deep.candidate_vectors(net.item_features)
        self.vectors = torch.cat([solver.rotated, deep], 1)[: net.warm_count + 1].T.contiguous()

    def of(self, recommender: Recommender, users: Sequence[int]) -> Histories:
        """users  user_index"""
        held = recommender.histories.take(torch.tensor(users, device=recommender.device))
        likes = held.only_liked()
        return Histories(
            likes.item_index.long(),
            recommender.net.wide.positions()[likes.item_index.long()],
            likes.offsets,
            recommender.net.deep.rows(held),
            held.offsets,
        )

    @torch.inference_mode()
    def rank(self, given: Histories, k: int) -> Tensor:
        """(histories, k) columns of the product's best, which are nobody's: parts are not put on one scale."""
        wide, deep = self.net.wide, self.net.deep
        crosses = wide.active_scores(given.places, given.like_offsets)
        users = torch.cat([self._solve(given), self._read(given)], 1)
        count, width = len(users), self.vectors.shape[1]
        if self.net.device.type != "cpu" or count <= 4:
            scores = users @ self.vectors
        else:
            scores = torch.empty(count, width)
            for start in range(0, width, BLOCK_COLUMNS):
                columns = slice(start, start + BLOCK_COLUMNS)
                torch.mm(users, self.vectors[:, columns], out=scores[:, columns])
        del crosses, deep
        return scores.topk(k, dim=1).indices

    def _read(self, given: Histories) -> Tensor:
        deep = self.net.deep
        read = F.embedding_bag(
            given.entries, deep.read.weight, given.entry_offsets, mode="sum", include_last_offset=True
        )
        projected: Tensor = deep.project(read.tanh_())
        return projected

    def _solve(self, given: Histories) -> Tensor:
        """The normal equations of each history, one after the other."""
        solved = []
        for index in given.likes.tensor_split(given.like_offsets[1:-1].cpu()):
            block = self.factors.index_select(0, index)
            system = block @ block.T
            system.diagonal().add_(1)
            right = block.new_ones(len(index), 1)
            solution = torch.cholesky_solve(right, torch.linalg.cholesky_ex(system).L)
            solved.append(solution.T @ block)
        return torch.cat(solved)


class Layers:
    """The like head's layers from the second on."""

    def __init__(self, recommender: Recommender) -> None:
        linear = [layer for layer in recommender.net.like.perceptron if isinstance(layer, nn.Linear)]
        self.layers = [(layer.weight.detach(), layer.bias.detach()) for layer in linear[1:]]

    def input(self, rows: int) -> Tensor:
        """(rows, units of the first layer)"""
        generator = torch.Generator().manual_seed(0)
        weight = self.layers[0][0]
        return torch.rand(rows, weight.shape[1], generator=generator).to(weight.device)

    @torch.inference_mode()
    def score(self, hidden: Tensor) -> list[np.ndarray]:
        """hidden  (rows, units)"""
        block = BLOCK_ROWS if hidden.device.type == "cpu" else len(hidden)
        found = []
        for rows in hidden.split(block):  # type: ignore[no-untyped-call]
            values = rows
            for weight, bias in self.layers[:-1]:
                values = F.linear(values, weight, bias).relu_()
            found.append(F.linear(values, *self.layers[-1]).cpu().numpy())
        return found
