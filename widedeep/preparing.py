"""How the whole catalogue is ranked: decided once after a model is loaded, by what was measured of it."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from widedeep.answers import RankingAnswers
from widedeep.bags import Settings
from widedeep.candidates import FETCHED, Candidates, is_installed
from widedeep.errors import ConfigError
from widedeep.halved import Halved
from widedeep.inputs import Past
from widedeep.queries import Query, RankingMethod

PRECISIONS = ("auto", "float32", "bfloat16")
SAMPLE = 32  # users whose best items are compared
DEPTH = 100  # of the best items
LEAST_AGREEMENT = 0.99  # of them that bfloat16 has to find to be taken
LEAST_RECALL = 0.99  # of them that an index has to find to be taken
BLOCK_USERS = 8  # ranked at once

logger = logging.getLogger(__name__)


def prepare(answers: RankingAnswers, exact_up_to: int, precision: str) -> RankingMethod:
    """As `Recommender.prepare`."""
    if precision not in PRECISIONS:
        raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}.")
    if exact_up_to < 0:
        raise ConfigError(f"exact_up_to must be 0 or more items, got {exact_up_to}.")
    catalogue = answers.catalogue
    answers.candidates = None
    catalogue.lay_out_by_columns()
    pasts = _sample(answers)
    settings = answers.settings()
    exact = _best(pasts, lambda some: catalogue.scores(some, settings))
    if catalogue.width - 1 > exact_up_to and catalogue.device.type == "cpu":
        recall = _with_index(answers, exact, pasts, settings)
        if recall is not None:
            return RankingMethod(approximate=True, recall=recall)
    if precision == "bfloat16" or (precision == "auto" and _has_bfloat16(catalogue.device)):
        halved = Halved(catalogue)
        agreement = _kept(exact, _best(pasts, lambda some: halved.scores(some, settings, DEPTH)))
        if precision == "bfloat16" or agreement >= LEAST_AGREEMENT:
            answers.candidates = halved
            return RankingMethod("bfloat16", agreement)
    return RankingMethod()


def _with_index(
    answers: RankingAnswers, exact: list[np.ndarray], pasts: list[Past], settings: Settings
) -> float | None:
    """Rank candidates of an index from now on. Its recall; None where every item has to be ranked."""
    catalogue = answers.catalogue
    if not is_installed():
        logger.warning(
            "The catalogue has %s items, and all of them are ranked for every query. "
            "For candidates from an index instead: pip install faiss-cpu.",
            f"{catalogue.width - 1:,}",
        )
        return None
    candidates = Candidates(catalogue)
    for candidates.fetched in FETCHED:
        recall = _kept(exact, _best(pasts, lambda some: candidates.scores(some, settings, DEPTH)))
        if recall >= LEAST_RECALL:
            answers.candidates = candidates
            return recall
    catalogue.lay_out_by_columns()
    logger.warning(
        "An index finds %.3f of the best %s items of a user, so all %s are ranked for every query. "
        "To have this said no more: --exact-up-to %s.",
        recall,
        DEPTH,
        f"{catalogue.width - 1:,}",
        catalogue.width - 1,
    )
    return None


def _sample(answers: RankingAnswers) -> list[Past]:
    """Of up to SAMPLE users with a personal ranking, from all over the vocabulary."""
    users = answers.inputs.processor.users.ids
    step = max(1, len(users) // (2 * SAMPLE))
    likes_only = answers.settings().likes_only
    asked = (
        answers.inputs.ask_ranking(Query(user), likes_only=likes_only) for user in users[::step].tolist()
    )
    return [one.past for one in asked if one.cold_start is None][:SAMPLE]


def _best(pasts: list[Past], scores: Callable[[list[Past]], Tensor]) -> list[np.ndarray]:
    """The best DEPTH items of each."""
    found: list[np.ndarray] = []
    for start in range(0, len(pasts), BLOCK_USERS):
        of_warm = scores(pasts[start : start + BLOCK_USERS])[:, 1:]
        found += [*of_warm.topk(min(DEPTH, of_warm.shape[1]), dim=1).indices.cpu().numpy()]
    return found


def _kept(exact: list[np.ndarray], found: list[np.ndarray]) -> float:
    """The mean share of the exact lists that was found, 1 where there is none."""
    shares = [
        len(np.intersect1d(ours, theirs)) / len(ours) for ours, theirs in zip(exact, found, strict=True)
    ]
    return float(np.mean(shares)) if shares else 1.0


def _has_bfloat16(device: torch.device) -> bool:
    """Whether to try it unasked.

    On a CPU that multiplies bfloat16 in hardware (AVX512_BF16) it took 1.8 times as long for one query at 10,677 items
    and 1.7 times at 100,000, where one product is bound by memory and what is found has to be gathered.
    """
    return device.type == "cuda" and bool(torch.cuda.is_bf16_supported(including_emulation=False))
