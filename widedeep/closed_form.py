"""The parts of the ranking that are solved and not trained: the wide crosses and the low-rank vectors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from widedeep.choices import choose_recency
from widedeep.config import ModelConfig
from widedeep.factors import FactorSettings, ItemFactors
from widedeep.histories import Histories
from widedeep.model import WideDeepNet
from widedeep.objectives import validation_ndcg
from widedeep.rankings import Targets
from widedeep.wide import ItemWeights

DEFAULT_L2 = 250.0
WIDE_L2S = (30.0, 60.0, 125.0, 250.0, 500.0, 1000.0, 2000.0)
WIDE_COST = 5 * 10**11  # flops of fitting the crosses once, about 10 s; above it their ridge is not searched
UNOBSERVED_WEIGHTS = (1.0, 0.32, 0.1, 0.03)
FACTOR_L2S = (0.1, 0.03, 0.01, 0.003)
COARSE_DIM, COARSE_EPOCHS = 32, 4
DIMS, EPOCHS = (16, 64, 128, 256), 12
FACTOR_COST = 10**12  # flops of fitting the vectors once, above which no larger dimension is tried


@dataclass(frozen=True)
class ClosedForm:
    """What the closed-form parts are fitted with.  factors: None for no low-rank part"""

    likes_only: bool
    wide_l2: float
    recency: float
    factors: FactorSettings | None

    def to_dict(self) -> dict[str, Any]:
        factors = None if self.factors is None else vars(self.factors)
        return {**vars(self), "factors": None if factors is None else dict(factors)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ClosedForm:
        factors = values["factors"]
        return cls(
            bool(values["likes_only"]),
            float(values["wide_l2"]),
            float(values["recency"]),
            None if factors is None else FactorSettings(**factors),
        )


def default(config: ModelConfig) -> ClosedForm:
    """What stands in for a choice where there is no validation part."""
    return ClosedForm(
        config.learn_from != "all",
        DEFAULT_L2 if config.wide_l2 is None else config.wide_l2,
        config.recency or 0.0,
        FactorSettings(dim=min(64, config.factor_dim)),
    )


def fit_with(net: WideDeepNet, histories: Histories, settings: ClosedForm, seed: int) -> None:
    """Fit both parts with known settings."""
    net.likes_only.fill_(settings.likes_only)
    net.recency.fill_(settings.recency)
    net.wide = _crosses(net, histories, settings.wide_l2)
    if settings.factors is not None:
        net.factors = ItemFactors.fit(net.read(histories)[0], net.item_count, settings.factors, seed)


@torch.no_grad()
def fit_and_choose(
    net: WideDeepNet,
    histories: Histories,
    targets: Targets,
    config: ModelConfig,
    seed: int,
    known: ClosedForm | None = None,
) -> ClosedForm:
    """Fit both parts with what is best for each alone on the validation part.

    known  choices of another fit on the same data: its low-rank part is taken over where both read the same
           of a history, as nothing else that a configuration says changes it
    """
    net.deep_share.fill_(0.0)
    mixed = bool((~histories.liked).any())
    reads = {"likes": [True], "all": [False], "auto": [True, False] if mixed else [True]}[config.learn_from]
    best = (-1.0, True, DEFAULT_L2, net.wide)
    for likes_only in reads:
        net.likes_only.fill_(likes_only)
        for l2 in _ridges(net, histories, config):
            net.wide = _crosses(net, histories, l2)
            value = float(validation_ndcg(net, targets, histories).nanmean())
            if value > best[0]:
                best = (value, likes_only, l2, net.wide)
    _, likes_only, l2, net.wide = best
    net.likes_only.fill_(likes_only)
    if config.recency is None:
        choose_recency(net, targets, histories)
    else:
        net.recency.fill_(config.recency)
    recency = round(float(net.recency), 6)
    if config.factor_share == 0:
        return ClosedForm(likes_only, l2, recency, None)
    if known and known.factors and (known.likes_only, known.recency) == (likes_only, recency):
        net.factors = ItemFactors.fit(net.read(histories)[0], net.item_count, known.factors, seed)
        return ClosedForm(likes_only, l2, recency, known.factors)
    factors = _choose_factors(net, histories, targets, config, seed)
    return ClosedForm(likes_only, l2, recency, factors)


def _crosses(net: WideDeepNet, histories: Histories, l2: float) -> ItemWeights:
    config = net.config
    read, _ = net.read(histories)
    return ItemWeights.fit(read, net.item_count, l2, config.wide_dropout, config.wide_user_exponent)


def _ridges(net: WideDeepNet, histories: Histories, config: ModelConfig) -> tuple[float, ...]:
    if config.wide_l2 is not None:
        return (config.wide_l2,)
    read, _ = net.read(histories)
    items = int(torch.bincount(read.item_index, minlength=1).count_nonzero())
    users = int((read.lengths > 0).sum())
    return WIDE_L2S if items * min(items, users) * (items + users) < WIDE_COST else (DEFAULT_L2,)


def _choose_factors(
    net: WideDeepNet, histories: Histories, targets: Targets, config: ModelConfig, seed: int
) -> FactorSettings:
    """Weight and ridge in a small dimension, then the dimension."""
    read, _ = net.read(histories)
    net.deep_share.fill_(1.0)
    net.factor_share.fill_(1.0)
    best = (-1.0, FactorSettings(), net.factors)
    tried = set()

    def attempt(settings: FactorSettings) -> None:
        nonlocal best
        if settings in tried:
            return
        tried.add(settings)
        net.factors = ItemFactors.fit(read, net.item_count, settings, seed)
        value = float(validation_ndcg(net, targets, histories).nanmean())
        if value > best[0]:
            best = (value, settings, net.factors)

    coarse = min(COARSE_DIM, config.factor_dim)
    for weight in UNOBSERVED_WEIGHTS:
        for l2 in FACTOR_L2S:
            attempt(FactorSettings(coarse, weight, l2, 1.0, COARSE_EPOCHS))
    found = replace(best[1], epochs=EPOCHS)
    for dim in sorted({coarse, *DIMS}):
        if dim <= config.factor_dim and len(read.item_index) * dim**2 * EPOCHS * 2 < FACTOR_COST:
            attempt(replace(found, dim=dim))
    _, settings, net.factors = best
    net.deep_share.fill_(0.5)
    net.factor_share.fill_(0.0)
    return settings
