"""iALS: matrix factorisation that takes everything unobserved for a weak dislike."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor

from widedeep.baselines.base import item_counts, liked_options, used
from widedeep.factors import FactorSettings, ItemFactors
from widedeep.histories import Histories

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
    """`ItemFactors` alone, whose text says what is minimised; a history without entries is ranked by counts.

    Source: Hu, Koren & Volinsky 2008; the form, the regularisation and the ranges of the grid from Rendle,
    Krichene, Zhang & Koren 2022, arXiv 2110.14037.
    """

    dim: int = 64
    unobserved_weight: float = 0.3
    l2: float = 0.01
    frequency_exponent: float = 1.0
    epochs: int = 16
    liked_only: bool = True
    seed: int = 0
    factors: ItemFactors = field(default_factory=lambda: ItemFactors(0), init=False, repr=False)
    counts: Tensor = field(default_factory=lambda: torch.zeros(0), init=False, repr=False)
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
        settings = FactorSettings(
            self.dim, self.unobserved_weight, self.l2, self.frequency_exponent, self.epochs
        )
        self.factors = ItemFactors.fit(entries, item_count, settings, self.seed)
        self.counts = item_counts(entries, item_count)
        return self

    def rank_scores(self, user_index: Tensor, histories: Histories) -> Tensor:  # noqa: ARG002
        entries = used(histories, self.liked_only)
        return torch.where((entries.lengths > 0)[:, None], self.factors.scores(entries), self.counts)

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
