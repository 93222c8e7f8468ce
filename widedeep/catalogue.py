"""The item half of the ranking: what is the same for every query, computed once for a loaded network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from widedeep.bags import Bags, Settings, entry_bags, liked_bags
from widedeep.factors import sums_of_products
from widedeep.inputs import Past
from widedeep.model import WideDeepNet
from widedeep.wide import ItemWeights

LEAST_VARIANCE = 0.1  # of the mean square, for the variance to be taken from that and the mean
BLOCK_COLUMNS = 1024  # of the item vectors, multiplied at once on a CPU: they stay in its cache for all rows
FEW_ROWS = 4  # up to so many, the blocks' overhead is more than they save


class Moments:
    """Mean and standard deviation over the items of the product of a user's vector with theirs, plus their bias.

    From the items' mean and covariance, summed in float64, in time that does not grow with their number. As a
    root of the covariance R has |u R|² = u C u', a sum of squares, nothing is lost by cancellation.
    """

    def __init__(self, gram: Tensor, total: Tensor, count: int) -> None:
        """gram  (dim + 1, dim + 1) float64 sum of the products of [vector, bias]; total (dim + 1,) of themselves"""
        mean = total / count
        values, basis = torch.linalg.eigh(gram / count - torch.outer(mean, mean))
        root = basis * values.clamp(min=0).sqrt()
        matrix = torch.cat([root, mean[:, None]], 1).float()
        self._matrix, self._of_bias = matrix[:-1].contiguous(), matrix[-1]

    @classmethod
    def over(cls, vectors: Tensor, bias: Tensor) -> Moments:
        """vectors  (items, dim);  bias  (items,)"""
        both = torch.cat([vectors, bias[:, None]], 1)
        return cls(*sums_of_products(both), len(vectors))

    def of(self, users: Tensor) -> list[Tensor]:
        """Deviations and means, (users, 1) each, of users (users, dim)."""
        moments = torch.addmm(self._of_bias, users, self._matrix)
        return [torch.linalg.vector_norm(moments[:, :-1], dim=1, keepdim=True), moments[:, -1:]]


class Catalogue:
    """Ranking scores of the items with interactions, as `WideDeepNet.rank_scores` gives them, at the cost of the
    products alone.

    Standardising the deep side needs no pass over its scores, and both of its parts are one product: a user's
    low-rank and deep vector, each divided by the deviation of its scores, times those of the items side by side.
    The network's weights are taken as they are when this is made; the `Settings` are given with every batch.
    A single query's time is as much the number of steps as their sizes, so what is a number for each history is
    worked out on the host.
    """

    def __init__(self, net: WideDeepNet) -> None:
        self.device = net.device
        self._on_host = net.device.type == "cpu"
        self.width = net.warm_count + 1
        self._solver = net.factors.solver()
        with torch.no_grad():
            factors = self._solver.rotated[: self.width]
            deep = net.deep.candidate_vectors(net.item_features)[: self.width]
            bias = net.deep.item_bias[: self.width]
            gram = F.pad(self._solver.gram, (0, 1, 0, 1))  # items without vectors add nothing to the sums
            total = F.pad(self._solver.rotated.double().sum(0), (0, 1))
            self._moments = Moments(gram, total, net.warm_count), Moments.over(deep[1:], bias[1:])
            # By columns: a product with one user's vector then runs along whole rows, at the memory's speed.
            self.vectors = torch.empty(factors.shape[1] + deep.shape[1] + 2, self.width, device=self.device)
            torch.cat([factors.T, deep.T, bias[None], bias.new_ones(1, self.width)], out=self.vectors)
            self._popularity = net.standardise(net.popularity[None])[0, : self.width]
        self._dims = [factors.shape[1], deep.shape[1], 1, 1]  # of `vectors`: low-rank, deep, bias, one
        # A module looks its attributes up by name, which takes as long as a small step of the calculation.
        self._crosses = net.wide if len(net.wide.items) else None
        self._ones = torch.ones(1, 2, device=self.device)
        self._part = np.repeat(np.arange(4), self._dims)  # of `vectors`, of each of their rows
        self._positions = net.wide.positions().cpu().numpy()
        self._active = _span(net.wide.items)
        self._item_count = net.item_count
        self._read = net.deep.read.weight.detach()
        self._project = net.deep.project.weight.detach(), net.deep.project.bias.detach()
        self._user_features, self._read_user = net.user_features, net.deep.read_user.detach()

    def item_parts(self) -> tuple[Tensor, Tensor]:
        """(dims, width) each: the low-rank and the deep item vectors."""
        factors, deep, *_ = self.vectors.split(self._dims)  # type: ignore[no-untyped-call]
        return factors, deep

    def lay_out_by_items(self) -> None:
        """Keep each item's vector together, so that some of them are picked quickly; all of them take longer."""
        self.vectors = self.vectors.T.contiguous().T

    def lay_out_by_columns(self) -> None:
        """As it was made: one column of all items after the other."""
        self.vectors = self.vectors.contiguous()

    def crossed_items(self) -> Tensor:
        """(active,) int64 item_index of those with crosses."""
        if isinstance(self._active, slice):
            return torch.arange(self._active.start, self._active.stop, device=self.device)
        return self._active

    @torch.inference_mode()
    def scores(self, pasts: Sequence[Past], settings: Settings) -> Tensor:
        """(pasts, warm_count + 1): the ranking score of every item with interactions, by item_index.

        Column 0, the unknown item, has any value.
        """
        users, wide = self.halves(pasts, settings)
        scores = users[:, -1:].repeat(1, self.width) if settings.wide == 1 else self._product(users)
        if wide is not None:
            self.add_wide(scores, *wide)
        return scores

    @torch.inference_mode()
    def add_wide(self, scores: Tensor, sums: Tensor, weight: Tensor) -> None:
        """Add what `halves` gave of the wide side to `scores` (pasts, width), in place."""
        if isinstance(self._active, slice):
            scores[:, self._active].addcmul_(sums, weight)
        else:
            scores.index_add_(1, self._active, sums * weight)

    @torch.inference_mode()
    def halves(
        self, pasts: Sequence[Past], settings: Settings
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """The user half of the scores.

        Returns  (pasts, dims), to be multiplied with `vectors`; and of the wide side (pasts, active) sums of the
                 crosses and (pasts, 1) their weight, None where there is nothing to add
        """
        liked = liked_bags(pasts, settings)
        offsets = self._tensor(liked.offsets)
        found: list[
            Tensor
        ] = []  # of each part that counts, in this order, what its mean and deviation come from
        sums = solved = read = None
        if settings.wide > 0 and self._crosses is not None:
            sums = self._wide(self._crosses, liked, offsets)
            found += [torch.linalg.vector_norm(sums, dim=1, keepdim=True), sums.sum(1, keepdim=True)]
        if settings.factor > 0:
            index, weights = self._tensor(liked.index), self._tensor(liked.of_mean_one())
            solved = self._solver.solve(offsets, index, weights, liked.lengths)
            found += self._moments[0].of(solved)
        if settings.deep > 0:
            entries = entry_bags(pasts, settings, self._item_count) if settings.tells_apart else liked
            read = self._deep(pasts, entries)
            found += self._moments[1].of(read)
        numbers = (
            torch.cat(found, 1).cpu().numpy().astype(np.float64).T if found else np.zeros((0, len(pasts)))
        )
        scales = np.zeros((len(pasts), 4))  # of the parts of `vectors`
        of_wide, place = None, 0
        if sums is not None:
            spread, mean = self._spread(sums, numbers[0], numbers[1])
            of_wide = settings.wide / np.maximum(spread, 1e-12)
            scales[:, 3] -= of_wide * mean
            place = 2
        for part, share, column in ((solved, settings.factor, 0), (read, settings.deep, 1)):
            if part is not None:
                scales[:, column] = share / np.maximum(numbers[place], 1e-12)
                scales[:, 3] -= scales[:, column] * numbers[place + 1]
                place += 2
        scales[:, 2] = scales[:, 1]
        ones = self._ones.expand(len(pasts), 2)
        solved = ones.new_zeros(len(pasts), self._dims[0]) if solved is None else solved
        read = ones.new_zeros(len(pasts), self._dims[1]) if read is None else read
        each = scales.astype(np.float32)[:, self._part]
        users = torch.cat([solved, read, ones], 1).mul_(self._tensor(each))
        if sums is None or of_wide is None:
            return users, None
        return users, (sums, self._tensor(of_wide[:, None].astype(np.float32)))

    @torch.inference_mode()
    def popular(self, scores: Tensor, rows: Sequence[int]) -> None:
        """Put the popularity into the `rows` of `scores`, whose histories hold nothing to go by."""
        if rows:
            scores[list(rows)] = self._popularity

    def _product(self, users: Tensor) -> Tensor:
        """(users, width)"""
        if self.device.type != "cpu" or len(users) <= FEW_ROWS:
            return users @ self.vectors
        out = torch.empty(len(users), self.width)
        for start in range(0, self.width, BLOCK_COLUMNS):
            columns = slice(start, start + BLOCK_COLUMNS)
            torch.mm(users, self.vectors[:, columns], out=out[:, columns])
        return out

    def _wide(self, crosses: ItemWeights, liked: Bags, offsets: Tensor) -> Tensor:
        """(histories, active) sums of the crosses"""
        bags = liked.at(self._positions[liked.index])
        if bags.lengths is not liked.lengths:
            offsets = self._tensor(bags.offsets)
        return crosses.active_scores(self._tensor(bags.index), offsets, self._tensor(bags.weights))

    def _spread(self, sums: Tensor, lengths: np.ndarray, totals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(histories,) deviations and means over all items; those that are not active have no crosses and score 0.

        sums  (histories, active), of which lengths (histories,) is the norm and totals (histories,) the sum
        """
        count = self.width - 1
        mean, square = totals / count, lengths**2 / count
        variance = square - mean**2
        if (
            variance < LEAST_VARIANCE * square
        ).any():  # where little is left of the difference, go the long way
            centred = sums - self._tensor(mean[:, None].astype(np.float32))
            squares = torch.linalg.vector_norm(centred, dim=1).cpu().numpy().astype(np.float64) ** 2
            variance = (squares + (count - sums.shape[1]) * mean**2) / count
        return np.sqrt(variance), mean

    def _deep(self, pasts: Sequence[Past], entries: Bags) -> Tensor:
        """(pasts, ranking_dim)"""
        hidden = torch.embedding_bag(
            self._read,
            self._tensor(entries.index),
            self._tensor(entries.offsets),
            mode=0,
            per_sample_weights=self._tensor(entries.weights),
            include_last_offset=True,
        )[0]
        hidden.mul_(self._tensor(entries.inverse_lengths()))
        if self._user_features.shape[1]:
            rows = self._tensor(np.array([past.user_index for past in pasts]))
            hidden.addmm_(self._user_features[rows], self._read_user)
        return F.linear(hidden.tanh_(), *self._project)

    @overload
    def _tensor(self, array: np.ndarray) -> Tensor: ...

    @overload
    def _tensor(self, array: np.ndarray | None) -> Tensor | None: ...

    def _tensor(self, array: np.ndarray | None) -> Tensor | None:
        if array is None:
            return None
        tensor = torch.from_numpy(array)
        return tensor if self._on_host else tensor.to(self.device)


def _span(items: Tensor) -> Tensor | slice:
    """`items` (n,), ascending, as a slice if they follow one another: several times as fast to write to."""
    if not len(items):
        return slice(0, 0)
    first, last = int(items[0]), int(items[-1])
    return slice(first, last + 1) if last - first + 1 == len(items) else items
