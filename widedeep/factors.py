"""Low-rank item vectors by alternating least squares: iALS, whose users are solved from their histories."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from widedeep.histories import Histories

INIT_SCALE = 0.1  # of an item vector's expected length before the first pass
BLOCK_ENTRIES = 2**22  # of float32, of padded item vectors: 16 MB held at once, and as much again
BLOCK_VECTORS = 2**18  # summed in float64 at once
PADDED_SHARE = 0.8  # rows solved together are at least this share of the longest


@dataclass(frozen=True)
class FactorSettings:
    """What `ItemFactors.fit` minimises; see there."""

    dim: int = 64
    unobserved_weight: float = 0.3
    l2: float = 0.01
    frequency_exponent: float = 1.0
    epochs: int = 16


class ItemFactors(nn.Module):
    """User and item vectors by alternating least squares, each solved exactly.

    Minimises, over user vectors w and item vectors h,

        sum over observed (w.h - 1)² + a sum over all pairs (w.h)² + sum over vectors l_v |v|²

    with a = unobserved_weight and l_v = l2 c (n_v + a m) ** frequency_exponent, n_v the entries that a vector
    is solved from and m the other side's vectors. c makes the sum of all l_v what it is at exponent 1, so that
    l2 means the same at every exponent. A history's vector is solved when it is asked for, so a user needs no
    training. Source: Hu, Koren & Volinsky 2008; the form and the regularisation from Rendle, Krichene, Zhang &
    Koren 2022, arXiv 2110.14037.
    """

    vectors: Tensor  # (item_count, dim), zero where an item has no entries
    settings: Tensor  # (3,) float64: unobserved_weight, l2 times c, frequency_exponent

    def __init__(self, item_count: int, dim: int = 0) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(item_count, dim))
        self.register_buffer("settings", torch.zeros(3, dtype=torch.float64))

    @classmethod
    def fit(cls, entries: Histories, item_count: int, settings: FactorSettings, seed: int = 0) -> ItemFactors:
        """Fit on all entries of the histories."""
        device = entries.offsets.device
        factors = cls(item_count, settings.dim).to(device)
        counts = torch.bincount(entries.item_index, minlength=item_count)
        offsets = torch.cat([entries.offsets.new_zeros(1), counts.cumsum(0)])
        item_index = entries.item_index.long()
        users_of_item = entries.row_index[item_index.argsort(stable=True)]
        scale = _ridge_scale(settings, entries.lengths, counts)
        factors.settings = torch.tensor(
            [settings.unobserved_weight, settings.l2 * scale, settings.frequency_exponent],
            dtype=torch.float64,
            device=device,
        )
        generator = torch.Generator().manual_seed(seed)
        start = torch.randn(item_count, settings.dim, generator=generator) * (INIT_SCALE / settings.dim**0.5)
        factors.vectors = start.to(device) * (counts > 0)[:, None]
        for _ in range(settings.epochs):
            users = factors._solve(entries.offsets, item_index, factors.vectors)
            factors.vectors = factors._solve(offsets, users_of_item, users)
        return factors

    def scores(self, histories: Histories, weights: Tensor | None = None) -> Tensor:
        """(histories, item_count)

        weights  (entries,) how much each entry counts, scaled to a mean of 1 within its history
        """
        return self.user_vectors(histories, weights) @ self.vectors.T

    def user_vectors(self, histories: Histories, weights: Tensor | None = None) -> Tensor:
        """(histories, dim): what `scores` multiplies with the item vectors.  weights  as there"""
        if weights is not None:
            total = weights.new_zeros(len(histories)).index_add_(0, histories.row_index, weights)
            mean = total / histories.lengths.clamp(min=1)
            weights = weights / mean.clamp(min=1e-12)[histories.row_index]
        return self._solve(histories.offsets, histories.item_index.long(), self.vectors, weights)

    def solver(self) -> RowSolver:
        """What solves histories' vectors from the item vectors as they are now."""
        return RowSolver(self.vectors, *self.settings.tolist())

    def _solve(
        self, offsets: Tensor, index: Tensor, vectors: Tensor, weights: Tensor | None = None
    ) -> Tensor:
        """One side's vectors from the other's; zero for a row without entries.  As `RowSolver.solve`"""
        solver = RowSolver(vectors, *self.settings.tolist())
        return solver.solve(offsets, index, weights) @ solver.basis.T

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:  # type: ignore[no-untyped-def]
        """Take the vectors' size from the file: their dimension is chosen in training."""
        stored = state_dict.get(prefix + "vectors")
        if isinstance(stored, Tensor):
            self.vectors = torch.empty_like(stored, device=self.vectors.device)
        super()._load_from_state_dict(state_dict, prefix, *args)


class RowSolver:
    """One side's vectors from the other's, each by least squares.

    In the basis where the Gramian of all `vectors` is diagonal, so is all that a row does not share with its
    entries, and a row with n of them is a system of min(n, dim) equations.
    """

    basis: Tensor  # (dim, dim): vectors @ basis are the vectors in that basis
    rotated: Tensor  # (others, dim) in that basis
    gram: Tensor  # (dim, dim) float64: the sum of their products, diagonal to rounding

    def __init__(self, vectors: Tensor, unobserved: float, l2: float, exponent: float) -> None:
        """vectors  (others, dim), zero where one has no entries;  the rest as in `ItemFactors.settings`"""
        gram, _ = sums_of_products(vectors)
        there = int((vectors != 0).any(1).sum())
        eigenvalues, basis = torch.linalg.eigh(gram)
        self.basis = basis.float()
        self.rotated = vectors @ self.basis
        self.gram = basis.T @ gram @ basis
        self._shared = unobserved * eigenvalues.clamp(min=0).float()
        self._unobserved = unobserved * there
        self._l2, self._exponent = l2, exponent
        self._of_length: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        self._eye, self._ones = (
            torch.eye(len(basis), device=basis.device),
            basis.new_ones(len(basis), 1).float(),
        )

    def solve(
        self,
        offsets: Tensor,
        index: Tensor,
        weights: Tensor | None = None,
        lengths: np.ndarray | None = None,
    ) -> Tensor:
        """(rows, dim) in the basis: row r is solved from the entries offsets[r]:offsets[r + 1]; zero without entries.

        index    (entries,) int64 into the vectors
        weights  (entries,) of the squared errors; 1 if not given
        lengths  (rows,) int64, the differences of `offsets`, if they are at hand: else a GPU is waited for
        """
        if lengths is None:
            lengths = offsets.diff().cpu().numpy()
        if len(lengths) == 1 and 0 < lengths[0] <= len(self.basis):
            return self._solve_one(index, int(lengths[0]), weights)
        size = offsets.diff().float() + self._unobserved
        ridge = self._l2 * size**self._exponent
        solved = self.rotated.new_zeros(len(lengths), len(self.basis))
        order = np.argsort(-lengths, kind="stable")[: int((lengths > 0).sum())]
        for group in _alike(order, lengths, len(self.basis)):
            rows = torch.from_numpy(group).to(offsets.device)
            count = offsets[rows + 1] - offsets[rows]
            place = torch.arange(int(lengths[group[0]]), device=rows.device)
            entry = (offsets[rows, None] + place).clamp(max=len(index) - 1)
            filled = (place < count[:, None]).float()
            errors = filled if weights is None else filled * weights[entry]
            root = (self._shared + ridge[rows, None]).sqrt()  # (rows, dim)
            block = self.rotated[index[entry]] / root[:, None]  # (rows, longest, dim)
            block *= errors.sqrt()[:, :, None]
            solved[rows] = _solve_block(block, errors.sqrt()) / root
        return solved

    def _solve_one(self, index: Tensor, length: int, weights: Tensor | None) -> Tensor:
        """(1, dim) for one row of no more entries than dimensions: the same in a third of the steps."""
        kept = self._of_length.get(length)
        if kept is None:
            ridge = self._l2 * (length + self._unobserved) ** self._exponent
            kept = (self._shared + ridge).rsqrt(), self._eye[:length, :length], self._ones[:length]
            self._of_length[length] = kept  # of as many lengths as there are dimensions, at most
        scale, identity, errors = kept
        block = self.rotated.index_select(0, index).mul_(scale)
        if weights is not None:
            errors = weights.sqrt()[:, None]
            block.mul_(errors)
        factor = torch.linalg.cholesky_ex(torch.addmm(identity, block, block.T)).L
        return (torch.cholesky_solve(errors, factor).T @ block).mul_(scale)


def sums_of_products(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """(dim, dim) of the outer products of vectors (any, dim), and (dim,) of themselves; float64"""
    gram = torch.zeros(vectors.shape[1], vectors.shape[1], dtype=torch.float64, device=vectors.device)
    total = gram.new_zeros(vectors.shape[1])
    for block in vectors.split(BLOCK_VECTORS):  # type: ignore[no-untyped-call]
        wide = block.double()
        gram += wide.T @ wide
        total += wide.sum(0)
    return gram, total


def _ridge_scale(settings: FactorSettings, users: Tensor, items: Tensor) -> float:
    """users, items  entries of each"""
    counts = [count[count > 0].double() for count in (users, items)]
    sizes = [
        count + settings.unobserved_weight * len(other)
        for count, other in zip(counts, reversed(counts), strict=True)
    ]
    total = float(sum(size.sum() for size in sizes))
    return total / max(float(sum((size**settings.frequency_exponent).sum() for size in sizes)), 1e-30)


def _alike(order: np.ndarray, lengths: np.ndarray, dim: int) -> Iterator[np.ndarray]:
    """Blocks of rows of about equal lengths, so that little is padded.

    order  (rows,) by length, the longest first, none empty
    """
    ascending = -lengths[order]
    start = 0
    while start < len(order):
        longest = -int(ascending[start])
        room = max(1, BLOCK_ENTRIES // (longest * max(1, dim)))
        short = int(np.searchsorted(ascending, -PADDED_SHARE * longest, side="right"))
        stop = min(start + room, max(short, start + 1))
        yield order[start:stop]
        start = stop


def _solve_block(block: Tensor, right: Tensor) -> Tensor:
    """(rows, dim): (I + B'B)^-1 B'r for each B of `block` (rows, longest, dim), whichever way is smaller.

    right  (rows, longest), zero where B is padded
    """
    wide = block.shape[1] <= block.shape[2]
    system = block @ block.mT if wide else block.mT @ block
    system.diagonal(dim1=1, dim2=2).add_(1)
    sides = right[:, :, None] if wide else block.mT @ right[:, :, None]
    solution = torch.cholesky_solve(sides, torch.linalg.cholesky(system))
    return (block.mT @ solution if wide else solution).squeeze(2)
