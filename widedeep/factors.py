"""Low-rank item vectors by alternating least squares: iALS, whose users are solved from their histories."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from widedeep.histories import Histories

INIT_SCALE = 0.1  # of an item vector's expected length before the first pass
BLOCK_ENTRIES = 2**22  # of float32, of padded item vectors: 16 MB held at once, and as much again
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

    def _solve(
        self, offsets: Tensor, index: Tensor, vectors: Tensor, weights: Tensor | None = None
    ) -> Tensor:
        """One side's vectors from the other's; zero for a row without entries.

        offsets  (rows + 1,): row r is solved from the entries offsets[r]:offsets[r + 1]
        index    (entries,) int64 into `vectors`
        vectors  (others, dim), zero where one has no entries
        weights  (entries,) of the squared errors; 1 if not given

        In the basis where the Gramian of all `vectors` is diagonal, so is all that a row does not share with
        its entries, and a row with n of them is a system of min(n, dim) equations.
        """
        unobserved, l2, exponent = self.settings.tolist()
        wide = vectors.double()
        eigenvalues, basis = torch.linalg.eigh(wide.T @ wide)
        shared = unobserved * eigenvalues.clamp(min=0).float()
        rotated = vectors @ basis.float()
        lengths = offsets.diff()
        size = lengths.float() + unobserved * int((vectors != 0).any(1).sum())
        ridge = l2 * size**exponent
        solved = vectors.new_zeros(len(lengths), vectors.shape[1])
        order = lengths.argsort(descending=True, stable=True)[: int((lengths > 0).sum())]
        for rows in _alike(order, lengths, vectors.shape[1]):
            count = lengths[rows]
            place = torch.arange(int(count[0]), device=rows.device)
            entry = (offsets[rows, None] + place).clamp(max=len(index) - 1)
            filled = (place < count[:, None]).float()
            errors = filled if weights is None else filled * weights[entry]
            root = (shared + ridge[rows, None]).sqrt()  # (rows, dim)
            block = rotated[index[entry]] / root[:, None]  # (rows, longest, dim)
            block *= errors.sqrt()[:, :, None]
            solved[rows] = _solve_block(block, errors.sqrt()) / root
        unrotated: Tensor = solved @ basis.float().T
        return unrotated

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:  # type: ignore[no-untyped-def]
        """Take the vectors' size from the file: their dimension is chosen in training."""
        stored = state_dict.get(prefix + "vectors")
        if isinstance(stored, Tensor):
            self.vectors = torch.empty_like(stored, device=self.vectors.device)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _ridge_scale(settings: FactorSettings, users: Tensor, items: Tensor) -> float:
    """users, items  entries of each"""
    counts = [count[count > 0].double() for count in (users, items)]
    sizes = [
        count + settings.unobserved_weight * len(other)
        for count, other in zip(counts, reversed(counts), strict=True)
    ]
    total = float(sum(size.sum() for size in sizes))
    return total / max(float(sum((size**settings.frequency_exponent).sum() for size in sizes)), 1e-30)


def _alike(order: Tensor, lengths: Tensor, dim: int) -> Iterator[Tensor]:
    """Blocks of rows of about equal lengths, so that little is padded.

    order  (rows,) by length, the longest first, none empty
    """
    ascending = -lengths[order]
    start = 0
    while start < len(order):
        longest = -int(ascending[start])
        room = max(1, BLOCK_ENTRIES // (longest * max(1, dim)))
        short = int(torch.searchsorted(ascending, -PADDED_SHARE * longest, right=True))
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
