"""What only held-out data can decide: the parts' shares and the calibration, and by which rules."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from widedeep.like_objective import LikeObjective
from widedeep.mixture import Mixture
from widedeep.model import WideDeepNet

DEEP_SHARES = tuple(step / 10 for step in range(11))
FACTOR_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
ONE_SIDED_95 = 1.645  # standard errors
SHARES_DEPTH = 20  # of the validation lists: 10 is noisier, and far down the list other shares are best


def surpasses(values: Tensor, reference: Tensor, errors: float = ONE_SIDED_95) -> bool:
    """Whether the mean is higher by more than so many of the difference's standard errors, paired over users.

    values, reference  (users,), NaN where a user does not count
    """
    gain = values - reference
    gain = gain[~gain.isnan()]
    if len(gain) < 2:
        return False
    mean, error = float(gain.mean()), float(gain.std()) / math.sqrt(len(gain))
    return mean > errors * error


def least_within_an_error(values: Mapping[float, Tensor]) -> float:
    """The smallest of the keys that the best one does not surpass by more than one standard error.

    values  (users,) for each key, NaN where a user does not count
    Source  the one-standard-error rule, Breiman et al. 1984, section 3.4.3
    """
    best = max(values, key=lambda key: float(values[key].nanmean()))
    return min(key for key in values if not surpasses(values[best], values[key], errors=1.0))


def choose_shares(
    mixture: Mixture,
    deep_shares: Sequence[float] = DEEP_SHARES,
    factor_shares: Sequence[float] = FACTOR_SHARES,
) -> None:
    """Set the parts' shares of the network's ranking score by the validation part, shrunk towards equal ones.

    Of the mixtures within one standard error (paired over users) of the best, the one that is nearest to a third for
    each part: the very best of many on few users is luck.
    Source  the one-standard-error rule, Breiman et al. 1984, section 3.4.3, with the equal mixture in the place of
            the smallest tree
    """
    mixture.update_deep()
    found = {
        (deep, factor): mixture.ndcg(deep, factor, SHARES_DEPTH)
        for deep in deep_shares
        for factor in (
            factor_shares if deep else factor_shares[:1]
        )  # without a deep share it is all the same
    }
    best = max(found, key=lambda shares: float(found[shares].nanmean()))
    near = [shares for shares in found if not surpasses(found[best], found[shares], errors=1.0)]
    deep, factor = min(near, key=lambda shares: (_from_equal(*shares), -float(found[shares].nanmean())))
    mixture.net.deep_share.fill_(deep)
    mixture.net.factor_share.fill_(factor)


def _from_equal(deep: float, factor: float) -> float:
    """Squared distance of the three parts' shares from a third each, rounded so that equal ones are equal."""
    shares = (1 - deep, deep * factor, deep * (1 - factor))
    return round(sum((share - 1 / 3) ** 2 for share in shares), 9)


@torch.no_grad()
def level(net: WideDeepNet, like: LikeObjective) -> None:
    """Shift the like logits so that the mean probability of the training rows is their like rate.

    The last batches leave the level of all logits a little off, differently in every training, and a
    calibration that was found for one network would then not fit the next one of the same recipe.
    """
    logits, liked = (column.double() for column in like.training_logits())
    if not len(logits):
        return
    shift = torch.zeros((), dtype=torch.float64, device=logits.device)
    for _ in range(20):  # Newton's method on a convex function of one variable
        probability = (logits + shift).sigmoid()
        slope = (probability * (1 - probability)).mean().clamp(min=1e-6)
        shift = shift + (liked - probability).mean() / slope
    net.like.linear.bias.add_(shift.float())


def choose_calibration(net: WideDeepNet, like: LikeObjective) -> None:
    """Platt scaling (Platt 1999): the scale and shift of the like logit that fit the validation part best."""
    if not like.judged:
        return
    logits, liked = (column.double().cpu() for column in like.validation_logits())
    scale_shift = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([scale_shift], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(logits * scale_shift[0] + scale_shift[1], liked)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    found = scale_shift.detach()
    if bool(found.isfinite().all()) and float(found[0]) > 0:
        net.calibration.copy_(found)
