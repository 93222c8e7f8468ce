"""Items that nobody had when the model was trained."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from widedeep import metrics
from widedeep.bootstrap import Interval, ratio_intervals
from widedeep.cold import ColdItems
from widedeep.config import Config
from widedeep.datasets import Dataset
from widedeep.errors import EmptyDataError
from widedeep.evaluation import evaluate, user_keys
from widedeep.histories import Encoded, Histories
from widedeep.interactions import concatenate
from widedeep.rankings import Ranker
from widedeep.recommender import Recommender
from widedeep.report import Report
from widedeep.split import split
from widedeep.withheld.parts import Tell, draw, fitted, quiet, without


@dataclass(frozen=True)
class ColdItemStudy:
    """How well items without interactions are ranked among themselves.

    withheld    items that were withheld
    candidates  items without interactions, the withheld among them
    report      over the users who liked one of them in the test part
    auc         mean over these users: how often one that was liked is before one that was not; 0.5 by chance
    gains       "ndcg_at_10", "recall_at_20": how many times what a random order scores
    """

    withheld: int
    candidates: int
    report: Report
    auc: Interval
    gains: Mapping[str, Interval]


class ColdColumns:
    """A recommender over the items without interactions alone: item number i is item warm_count + i of its own."""

    def __init__(self, recommender: Recommender) -> None:
        self.recommender = recommender
        self.cold_items = ColdItems(recommender.net.item_features, recommender.processor.warm_count)
        self.name = recommender.name

    def rank_scores(self, user_index: Tensor, histories: Histories) -> Tensor:  # noqa: ARG002
        recommender = self.recommender
        known = recommender.histories.take(user_index.to(recommender.device))
        scores = recommender.rank_scores(user_index, known).to(recommender.device).clone()
        self.cold_items.fill(scores)
        return scores[:, recommender.processor.warm_count :].cpu()


def cold_item_study(
    config: Config,
    dataset: Dataset,
    *,
    share: float = 0.05,
    seed: int = 0,
    bootstrap: int = 1000,
    tell: Tell = quiet,
) -> ColdItemStudy:
    """Withhold items with all their interactions, and rank all items without interactions by their features.

    Judged by the liked rows of the test part whose item is such a one, for users with a history.
    share   of the items that have rows before the test part
    tell    is told one line per step
    Raises  EmptyDataError: the item table knows none of the items, or nobody liked a withheld one
    """
    parts = split(dataset.interactions, config.data)
    before = concatenate([parts.train, parts.validation])
    described = np.unique(before.item_id)
    described = described[np.isin(described, dataset.items["item_id"].to_numpy())]
    (ids,) = draw(described, share, 1, seed, "items that the item table describes")
    recommender = fitted(config, dataset, without(parts, "item_id", ids), tell)
    processor = recommender.processor
    warm = processor.warm_count
    candidates = processor.item_count - 1 - warm
    test = processor.encode(parts.test)
    keys, user_ids = user_keys(parts.test.user_id)
    usable = (test.item_index > warm) & (test.user_index > 0) & test.liked
    if not usable.any():
        raise EmptyDataError(
            f"Nobody liked one of the {len(ids)} withheld items in the test part. Withhold more, or use more data."
        )
    rows = test.take(usable)
    rows = dataclasses.replace(rows, item_index=rows.item_index - warm)
    tell("evaluate cold items")
    ranker = ColdColumns(recommender)
    report = evaluate(
        ranker,
        train=Histories.from_lists(*[[[]] * processor.user_count] * 3),
        test=rows,
        test_users=keys[usable],
        user_ids=user_ids,
        item_count=candidates + 1,
        warm_count=candidates,
        bootstrap=bootstrap,
    )
    area = _auc_of_users(ranker, rows)[:, None]
    return ColdItemStudy(
        withheld=len(ids),
        candidates=candidates,
        report=report,
        auc=ratio_intervals(
            np.nan_to_num(area), (~np.isnan(area)).astype(float), samples=bootstrap, seed=seed
        )[0],
        gains=_gains(report, candidates, bootstrap, seed),
    )


def _gains(report: Report, candidates: int, bootstrap: int, seed: int) -> dict[str, Interval]:
    """Over the expectation of a random order of `candidates` items, of which none is left out."""
    values = report.per_user
    relevant = values["relevant"].to_numpy()
    gain = np.array([1 / math.log2(place + 1) for place in range(1, min(10, candidates) + 1)])
    ideal = gain.cumsum()[np.minimum(relevant, len(gain)) - 1]
    chance = {
        "ndcg_at_10": relevant / candidates * gain.sum() / ideal,
        "recall_at_20": np.full(len(values), min(20, candidates) / candidates),
    }
    found = ratio_intervals(
        values[list(chance)].to_numpy(float), np.stack(list(chance.values()), 1), samples=bootstrap, seed=seed
    )
    return dict(zip(chance, found, strict=True))


def _auc_of_users(ranker: Ranker, rows: Encoded) -> np.ndarray:
    """(users,) float64, NaN where a user liked all candidates.  rows  the liked ones"""
    users, place = torch.unique(rows.user_index.long(), return_inverse=True)
    areas = []
    for number, user in enumerate(users.tolist()):
        nobody = Histories.from_lists([[]], [[]], [[]])
        scores = ranker.rank_scores(torch.tensor([user]), nobody)[0, 1:]
        liked = torch.zeros(len(scores), dtype=torch.bool)
        liked[rows.item_index[place == number].long() - 1] = True
        areas.append(float(metrics.auc(scores, liked)))
    return np.array(areas)
