"""The parts of the ranking that are solved and not trained: the wide crosses and the low-rank vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from widedeep.choices import least_within_an_error, surpasses
from widedeep.config import ModelConfig
from widedeep.crossed import Crossed
from widedeep.factors import FactorSettings, ItemFactors
from widedeep.histories import Histories
from widedeep.metrics import ndcg_at_k
from widedeep.model import WideDeepNet
from widedeep.rankings import Targets, list_hits
from widedeep.wide import ItemWeights

DEFAULT_L2 = 250.0
DEFAULT_DROPOUT = 0.25
WIDE_L2S = (30.0, 60.0, 125.0, 250.0, 500.0, 1000.0, 2000.0)
JUDGED_DEPTH = 100  # of the validation lists: what is read of them is less noisy the deeper they are
RECENCIES = (0.0, 0.2, 0.4, 0.6)
RECENCY_L2S = (0.5, 1.0, 2.0)  # times the ridge that is best without recency
WIDE_NOISES = ((0.3, 0.0), (0.3, 0.25), (0.5, 0.25))  # dropout and user exponent, beside none
WIDE_COST = 5 * 10**11  # flops of fitting the crosses once, about 10 s; above it nothing of them is searched
UNOBSERVED_WEIGHTS = (1.0, 0.32, 0.1, 0.03)
FACTOR_L2S = (0.1, 0.03, 0.01, 0.003)
COARSE_DIM, COARSE_EPOCHS = 32, 4
DIMS, EPOCHS = (16, 64, 128, 256), 12
FACTOR_COST = 10**12  # flops of fitting the vectors once, above which no larger dimension is tried


@dataclass(frozen=True)
class CrossSettings:
    """What `ItemWeights.fit` minimises; see there."""

    l2: float = DEFAULT_L2
    dropout: float = 0.0
    user_exponent: float = 0.0


@dataclass(frozen=True)
class ClosedForm:
    """What the closed-form parts are fitted with.  factors: None for no low-rank part"""

    likes_only: bool
    crosses: CrossSettings
    recency: float
    factors: FactorSettings | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ClosedForm:
        factors = values["factors"]
        return cls(
            bool(values["likes_only"]),
            CrossSettings(**values["crosses"]),
            float(values["recency"]),
            None if factors is None else FactorSettings(**factors),
        )


def default(config: ModelConfig) -> ClosedForm:
    """What stands in for a choice where there is no validation part."""
    return ClosedForm(
        config.learn_from != "all",
        _default_crosses(config, DEFAULT_DROPOUT),
        config.recency or 0.0,
        FactorSettings(dim=min(64, config.factor_dim)),
    )


def solve(
    net: WideDeepNet,
    histories: Histories,
    targets: Targets | None,
    config: ModelConfig,
    settled: ClosedForm | None,
    seed: int,
) -> ClosedForm:
    """Fit both parts: with `settled` if it is given, else with what is best for the targets if there are any."""
    if settled is None and targets is not None:
        return fit_and_choose(net, histories, targets, config, seed)
    settings = settled or default(config)
    fit_with(net, histories, settings, seed)
    return settings


def fit_with(net: WideDeepNet, histories: Histories, settings: ClosedForm, seed: int) -> None:
    """Fit both parts with known settings."""
    net.likes_only.fill_(settings.likes_only)
    net.recency.fill_(settings.recency)
    net.wide = _crosses(net, histories, settings.crosses)
    if settings.factors is not None:
        net.factors = ItemFactors.fit(net.read(histories).liked, net.item_count, settings.factors, seed)


@torch.no_grad()
def fit_and_choose(
    net: WideDeepNet,
    histories: Histories,
    targets: Targets,
    config: ModelConfig,
    seed: int,
) -> ClosedForm:
    """Fit both parts with what is best for each alone on the validation part.

    The best is by NDCG@100, whose maximum over several settings is less of an accident than that of NDCG@10. But
    all is read, not likes alone, only where NDCG@10 is better, too: on some data reading all is better far down the
    list and worse at its top.
    """
    net.deep_share.fill_(0.0)
    mixed = bool((~histories.liked).any())
    reads = {"likes": [True], "all": [False], "auto": [True, False] if mixed else [True]}[config.learn_from]
    likes_only, plain = _choose_plain(net, histories, targets, config, reads)
    net.likes_only.fill_(likes_only)
    recency, plain = choose_recency(net, histories, targets, config, plain)
    crosses = _choose_noise(net, histories, targets, config, plain)
    if config.factor_share == 0:
        return ClosedForm(likes_only, crosses, recency, None)
    factors = _choose_factors(net, histories, targets, config, seed)
    return ClosedForm(likes_only, crosses, recency, factors)


def _crosses(net: WideDeepNet, histories: Histories, settings: CrossSettings) -> ItemWeights:
    read = net.read(histories).liked
    return ItemWeights.fit(read, net.item_count, settings.l2, settings.dropout, settings.user_exponent)


def _default_crosses(config: ModelConfig, dropout: float) -> CrossSettings:
    return CrossSettings(
        DEFAULT_L2 if config.wide_l2 is None else config.wide_l2,
        dropout if config.wide_dropout is None else config.wide_dropout,
        config.wide_user_exponent or 0.0,
    )


def _choose_plain(
    net: WideDeepNet, histories: Histories, targets: Targets, config: ModelConfig, reads: Sequence[bool]
) -> tuple[bool, CrossSettings]:
    """What is crossed, and the ridge.  reads  values of `likes_only` to try"""
    found: dict[bool, tuple[CrossSettings, Tensor, Tensor]] = {}
    for likes_only in reads:
        net.likes_only.fill_(likes_only)
        searched = _affordable(net, histories)
        plain = _default_crosses(config, 0.0 if searched else DEFAULT_DROPOUT)
        crossed = Crossed.of(net.read(histories).liked, net.item_count, plain.user_exponent)
        for l2 in WIDE_L2S if searched and config.wide_l2 is None else (plain.l2,):
            settings = replace(plain, l2=l2)
            net.wide = ItemWeights.solve(crossed, l2, plain.dropout)
            deep, top = _values(net, histories, targets, (JUDGED_DEPTH, 10))
            if likes_only not in found or deep.nanmean() > found[likes_only][1].nanmean():
                found[likes_only] = (settings, deep, top)
    if len(found) == 1:
        return likes_only, found[likes_only][0]
    (_, deep, top), (_, deep_of_likes, top_of_likes) = found[False], found[True]
    all_is_better = bool(top.nanmean() > top_of_likes.nanmean())
    likes_only = not (all_is_better and surpasses(deep, deep_of_likes, errors=1.0))
    return likes_only, found[likes_only][0]


def choose_recency(
    net: WideDeepNet, histories: Histories, targets: Targets, config: ModelConfig, plain: CrossSettings
) -> tuple[float, CrossSettings]:
    """The recency, and the ridge that goes with it; the network has both then.

    The more the latest entries count, the more ridge is best. Of the recencies within a standard error of the
    best, each with the best of a few ridges, the smallest: where order says nothing, nothing is read into it.
    plain  the best settings without recency
    """
    ridges = RECENCY_L2S if config.wide_l2 is None and _affordable(net, histories) else (1.0,)
    recencies = RECENCIES if config.recency is None else (config.recency,)
    crossed = Crossed.of(net.read(histories).liked, net.item_count, plain.user_exponent)
    found: dict[float, tuple[CrossSettings, Tensor]] = {}
    for factor in ridges:
        settings = replace(plain, l2=plain.l2 * factor)
        net.wide = ItemWeights.solve(crossed, settings.l2, settings.dropout)
        for recency in recencies:
            net.recency.fill_(recency)
            (values,) = _values(net, histories, targets)
            if recency not in found or values.nanmean() > found[recency][1].nanmean():
                found[recency] = (settings, values)
    recency = least_within_an_error({recency: values for recency, (_, values) in found.items()})
    settings, _ = found[recency]
    net.recency.fill_(recency)
    net.wide = ItemWeights.solve(crossed, settings.l2, settings.dropout)
    return recency, settings


def _choose_noise(
    net: WideDeepNet, histories: Histories, targets: Targets, config: ModelConfig, plain: CrossSettings
) -> CrossSettings:
    """Dropout and user exponent, with the ridge that they want; the network's wide part is that of the best."""
    best = (_value(net, histories, targets), plain, net.wide)
    read = net.read(histories).liked
    crossed: dict[float, Crossed] = {}
    for settings in _noisy(config, plain, read) if _affordable(net, histories) else ():
        exponent = settings.user_exponent
        if exponent not in crossed:
            crossed[exponent] = Crossed.of(read, net.item_count, exponent)
        net.wide = ItemWeights.solve(crossed[exponent], settings.l2, settings.dropout)
        value = _value(net, histories, targets)
        if value > best[0]:
            best = (value, settings, net.wide)
    _, settings, net.wide = best
    return settings


def _noisy(config: ModelConfig, plain: CrossSettings, read: Histories) -> list[CrossSettings]:
    """The settings beside `plain` that are worth a try, none twice."""
    mean = float(read.lengths[read.lengths > 0].float().mean())
    found = []
    for noise in WIDE_NOISES:
        dropout = noise[0] if config.wide_dropout is None else config.wide_dropout
        exponent = noise[1] if config.wide_user_exponent is None else config.wide_user_exponent
        scale = mean ** (plain.user_exponent - exponent)  # as much as users weigh less
        for factor in (1.0, 0.5):
            l2 = float(f"{plain.l2 * scale * factor:.3g}") if config.wide_l2 is None else config.wide_l2
            if (dropout, exponent) != (plain.dropout, plain.user_exponent):
                found.append(CrossSettings(l2, dropout, exponent))
    return list(dict.fromkeys(found))


def _value(net: WideDeepNet, histories: Histories, targets: Targets) -> float:
    (values,) = _values(net, histories, targets)
    return float(values.nanmean())


def _values(
    net: WideDeepNet, histories: Histories, targets: Targets, depths: Sequence[int] = (JUDGED_DEPTH,)
) -> list[Tensor]:
    """(users,) NDCG at each of the depths, NaN where none of a user's likes counts."""
    hits = list_hits(
        net, targets, histories, item_count=net.item_count, warm_count=net.warm_count, depth=max(depths)
    )
    return [ndcg_at_k(hits, targets.relevant_count.cpu(), depth) for depth in depths]


def _affordable(net: WideDeepNet, histories: Histories) -> bool:
    read = net.read(histories).liked
    items = int(torch.bincount(read.item_index, minlength=1).count_nonzero())
    users = int((read.lengths > 0).sum())
    return items * min(items, users) * (items + users) < WIDE_COST


def _choose_factors(
    net: WideDeepNet, histories: Histories, targets: Targets, config: ModelConfig, seed: int
) -> FactorSettings:
    """Weight and ridge in a small dimension, then the dimension."""
    read = net.read(histories).liked
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
        value = _value(net, histories, targets)
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
