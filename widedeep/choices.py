"""What only held-out data can decide: recency, the parts' shares, calibration."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from widedeep.histories import Histories
from widedeep.mixture import Mixture
from widedeep.model import WideDeepNet
from widedeep.objectives import LikeObjective, validation_ndcg
from widedeep.rankings import Targets

DEEP_SHARES = tuple(step / 10 for step in range(11))
FACTOR_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
RECENCIES = (0.0, 0.2, 0.4, 0.6)
ONE_SIDED_95 = 1.645  # standard errors


def choose_recency(net: WideDeepNet, targets: Targets, histories: Histories) -> None:
    """Set the recency to what is best for the wide side alone on the validation part.

    It has to beat a recency of zero significantly (one-sided, 95%, paired over users): where order says
    nothing, nothing is read into it.
    """
    found = {}
    for recency in RECENCIES:
        net.recency.fill_(recency)
        found[recency] = validation_ndcg(net, targets, histories)
    best = 0.0
    for recency in RECENCIES[1:]:
        gain = found[recency] - found[0.0]
        gain = gain[~gain.isnan()]
        error = float(gain.std()) / max(1, len(gain)) ** 0.5
        if float(gain.mean()) > ONE_SIDED_95 * error and float(found[recency].nanmean()) > float(
            found[best].nanmean()
        ):
            best = recency
    net.recency.fill_(best)


def choose_shares(
    mixture: Mixture,
    deep_shares: Sequence[float] = DEEP_SHARES,
    factor_shares: Sequence[float] = FACTOR_SHARES,
) -> None:
    """Set the parts' shares of the network's ranking score to the best on the validation part.

    Best by the mean over a point of the grid and its neighbours, so that no single lucky value is taken.
    """
    mixture.update_deep()
    found = torch.tensor([[mixture.ndcg(deep, factor) for factor in factor_shares] for deep in deep_shares])
    smooth = F.avg_pool2d(found[None, None], 3, stride=1, padding=1, count_include_pad=False)[0, 0]
    row, column = divmod(int(smooth.argmax()), len(factor_shares))
    mixture.net.deep_share.fill_(deep_shares[row])
    mixture.net.factor_share.fill_(factor_shares[column])


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
