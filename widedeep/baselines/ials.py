"""iALS: matrix factorisation that takes everything unobserved for a weak dislike."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor

from widedeep.baselines.base import item_counts, liked_options, used
from widedeep.histories import Histories

INIT_SCALE = 0.1  # of an item vector's expected length before the first pass
BLOCK_ENTRIES = 2**22  # of float32, of padded item vectors: 16 MB held at once, and as much again
PADDED_SHARE = 0.8  # rows solved together are at least this share of the longest

UNOBSERVED_WEIGHTS = (3.2, 1.0, 0.32, 0.1, 0.032, 0.01, 0.0032)
L2S = (0.1, 0.032, 0.01, 0.0032, 0.001, 0.00032)
EXPONENTS = (0.5, 0.0)  # beside 1
DIMS = (16, 32, 64, 128, 256)
COARSE_SETTINGS, COARSE_DIM, COARSE_EPOCHS = 24, 32, 4
CLIMB_SETTINGS, CLIMB_DIM, CLIMB_EPOCHS = 14, 64, 8
DIM_EPOCHS = 16
PASS_LIMIT = 5 * 10**11  # entries x dim² at most: about a minute for a pass over users and items on two cores


@dataclass
class IALS:
    """User and item vectors by alternating least squares, each solved exactly.

    Minimises, over user vectors w and item vectors h,

        sum over observed (w.h - 1)² + a sum over all pairs (w.h)² + sum over vectors l_v |v|²

    with a = unobserved_weight and l_v = l2 c (n_v + a m) ** frequency_exponent, n_v the entries that a vector
    is solved from and m the other side's vectors. c makes the sum of all l_v what it is at exponent 1, so that
    l2 means the same at every exponent. A history's vector is solved when it is asked for, so a user needs no
    training. Source: Hu, Koren & Volinsky 2008; the form, the regularisation and the ranges of the grid from
    Rendle, Krichene, Zhang & Koren 2022, arXiv 2110.14037.
    """

    dim: int = 64
    unobserved_weight: float = 0.3
    l2: float = 0.01
    frequency_exponent: float = 1.0
    epochs: int = 16
    liked_only: bool = True
    seed: int = 0
    items: Tensor = field(default_factory=lambda: torch.zeros(0, 0), init=False, repr=False)  # (items, dim)
    counts: Tensor = field(default_factory=lambda: torch.zeros(0), init=False, repr=False)
    scale: float = field(default=1.0, init=False, repr=False)  # l2's factor c
    name = "iALS"

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "dim": self.dim,
            "unobserved_weight": self.unobserved_weight,
            "l2": self.l2,
            "frequency_exponent": self.frequency_exponent,
            "epochs": self.epochs,
            "liked_only": self.liked_only,
        }

    def fit(self, histories: Histories, item_count: int) -> Self:
        entries = used(histories, self.liked_only)
        self.counts = item_counts(entries, item_count)
        offsets = torch.cat([entries.offsets.new_zeros(1), self.counts.long().cumsum(0)])
        item_index, user_index = entries.item_index.long(), entries.row_index
        users_of_item = user_index[item_index.argsort(stable=True)]
        self.scale = self._ridge_scale(entries.lengths, self.counts)
        generator = torch.Generator().manual_seed(self.seed)
        start = torch.randn(item_count, self.dim, generator=generator) * (INIT_SCALE / self.dim**0.5)
        self.items = start.to(self.counts.device) * (self.counts > 0)[:, None]
        for _ in range(self.epochs):
            users = self._solve(entries.offsets, item_index, self.items)
            self.items = self._solve(offsets, users_of_item, users)
        return self

    def rank_scores(self, user_index: Tensor, histories: Histories) -> Tensor:  # noqa: ARG002
        entries = used(histories, self.liked_only)
        users = self._solve(entries.offsets, entries.item_index.long(), self.items)
        return torch.where((entries.lengths > 0)[:, None], users @ self.items.T, self.counts)

    def _ridge_scale(self, *counts: Tensor) -> float:
        """counts  of the users' entries and of the items'"""
        used_counts = [count[count > 0].double() for count in counts]
        sizes = [
            count + self.unobserved_weight * len(other)
            for count, other in zip(used_counts, reversed(used_counts), strict=True)
        ]
        total = float(sum(size.sum() for size in sizes))
        return total / max(float(sum((size**self.frequency_exponent).sum() for size in sizes)), 1e-30)

    def _solve(self, offsets: Tensor, index: Tensor, vectors: Tensor) -> Tensor:
        """One side's vectors from the other's; zero for a row without entries.

        offsets  (rows + 1,): row r is solved from the entries offsets[r]:offsets[r + 1]
        index    (entries,) int64 into `vectors`
        vectors  (others, dim), zero where one has no entries

        In the basis where the Gramian of all `vectors` is diagonal, so is all that a row does not share with
        its entries, and a row with n of them is a system of min(n, dim) equations.
        """
        gram = vectors.double().T @ vectors.double()
        eigenvalues, basis = torch.linalg.eigh(gram)
        shared = self.unobserved_weight * eigenvalues.clamp(min=0).float()
        rotated = vectors @ basis.float()
        lengths = offsets.diff()
        size = lengths.float() + self.unobserved_weight * int((vectors != 0).any(1).sum())
        ridge = self.l2 * self.scale * size**self.frequency_exponent
        solved = vectors.new_zeros(len(lengths), self.dim)
        order = lengths.argsort(descending=True, stable=True)[: int((lengths > 0).sum())]
        for rows in _alike(order, lengths, self.dim):
            count = lengths[rows]
            place = torch.arange(int(count[0]), device=rows.device)
            entry = (offsets[rows, None] + place).clamp(max=len(index) - 1)
            root = (shared + ridge[rows, None]).sqrt()  # (rows, dim)
            block = rotated[index[entry]] / root[:, None]  # (rows, longest, dim)
            block *= (place < count[:, None])[:, :, None]
            solved[rows] = _solve_block(block) / root
        unrotated: Tensor = solved @ basis.float().T
        return unrotated

    @classmethod
    def grid(
        cls, histories: Histories, item_count: int, judge: Callable[[Self], float]
    ) -> Iterator[tuple[Self, float]]:
        """A random part of the grid, briefly; uphill from the best of it; then the exponent and the dim.

        Uphill means all half-decade steps of unobserved_weight and l2, and along the ridge on which one makes
        up for the other, the grid's edges being none.
        """
        values: dict[tuple[Any, ...], float] = {}

        def attempt(setting: Self) -> Iterator[tuple[Self, float]]:
            if _key(setting) not in values:
                fitted = replace(setting).fit(histories, item_count)
                values[_key(setting)] = judge(fitted)
                yield fitted, values[_key(setting)]

        def best(of: Iterable[Self]) -> Self:
            return max(of, key=lambda setting: values[_key(setting)])

        points = list(itertools.product(liked_options(histories), UNOBSERVED_WEIGHTS, L2S))
        drawn = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[:COARSE_SETTINGS]
        coarse = [
            cls(COARSE_DIM, weight, l2, 1.0, COARSE_EPOCHS, liked_only)
            for liked_only, weight, l2 in (points[number] for number in drawn.tolist())
        ]
        for setting in coarse:
            yield from attempt(setting)
        here = replace(best(coarse), dim=CLIMB_DIM, epochs=CLIMB_EPOCHS)
        yield from attempt(here)
        enough = len(values) + CLIMB_SETTINGS
        while True:
            around = [
                replace(here, unobserved_weight=_step(here.unobserved_weight, up), l2=_step(here.l2, right))
                for up, right in ((0, 0.5), (0, -0.5), (0.5, 0), (-0.5, 0), (0.5, -0.5), (-0.5, 0.5))
            ]
            for setting in around:
                yield from attempt(setting)
            before, here = here, best([here, *around])
            if here is before or len(values) >= enough:
                break
        varied = [replace(here, l2=_step(here.l2, part)) for part in (0.25, -0.25)]
        varied += [replace(here, frequency_exponent=exponent) for exponent in EXPONENTS]
        varied += [replace(here, liked_only=liked_only) for liked_only in liked_options(histories)]
        for setting in varied:
            yield from attempt(setting)
        here = best([here, *varied])
        entries = used(histories, here.liked_only)
        occurring = item_counts(entries, item_count) > 0
        room = min(int((entries.lengths > 0).sum()), int(occurring.sum()))
        for dim in DIMS:
            if dim == DIMS[0] or (dim < room and len(entries.item_index) * dim**2 <= PASS_LIMIT):
                yield from attempt(replace(here, dim=dim, epochs=DIM_EPOCHS))


def _key(setting: IALS) -> tuple[Any, ...]:
    return tuple(setting.settings.values())


def _step(value: float, decades: float) -> float:
    """`value` times a power of ten, to two digits, so that steps there and back end where they began."""
    return float(f"{value * 10**decades:.2g}")


def _alike(order: Tensor, lengths: Tensor, dim: int) -> Iterator[Tensor]:
    """Blocks of rows of about equal lengths, so that little is padded.

    order  (rows,) by length, the longest first, none empty
    """
    ascending = -lengths[order]
    start = 0
    while start < len(order):
        longest = -int(ascending[start])
        room = max(1, BLOCK_ENTRIES // (longest * dim))
        short = int(torch.searchsorted(ascending, -PADDED_SHARE * longest, right=True))
        stop = min(start + room, max(short, start + 1))
        yield order[start:stop]
        start = stop


def _solve_block(block: Tensor) -> Tensor:
    """(rows, dim): (I + B'B)^-1 B'1 for each B of `block` (rows, longest, dim), whichever way is smaller."""
    wide = block.shape[1] <= block.shape[2]
    system = block @ block.mT if wide else block.mT @ block
    system.diagonal(dim1=1, dim2=2).add_(1)
    right = block.new_ones(*block.shape[:2], 1) if wide else block.sum(1)[:, :, None]
    solution = torch.cholesky_solve(right, torch.linalg.cholesky(system))
    return (block.mT @ solution if wide else solution).squeeze(2)
