"""Users who were not there when the model was trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from widedeep.baselines import EASE, Popularity, tune_baselines
from widedeep.bootstrap import Interval, paired_difference, ratio_intervals
from widedeep.config import Config
from widedeep.datasets import Dataset
from widedeep.evaluation import evaluate, user_keys
from widedeep.features import FeatureProcessor
from widedeep.histories import Encoded, Histories
from widedeep.interactions import Interactions, concatenate
from widedeep.rankings import Ranker
from widedeep.recommender import Recommender
from widedeep.split import Split, split
from widedeep.withheld.parts import Tell, draw, fitted, quiet, without

TRAINED_ON, WHOLE_HISTORY = "trained on", "whole history"
LENGTHS = {WHOLE_HISTORY: None, "last 10 likes": 10, "last 3 likes": 3, "last like": 1, "nothing": 0}
METRICS = ["ndcg_at_10", "recall_at_20"]


@dataclass(frozen=True)
class ColdUserStudy:
    """What withheld users get.

    withheld  users that were withheld, over all rounds
    figures   by ranker, what was known of the user ("trained on", "whole history", "last 10 likes", …) and
              metric ("ndcg_at_10", "recall_at_20"): means over the withheld users with a relevant test item
    ratios    by ranker, NDCG@10 from the whole history over that when trained on
    per_user  the values behind: ranker, known, user and the metrics
    """

    withheld: int
    figures: Mapping[tuple[str, str, str], Interval]
    ratios: Mapping[str, Interval]
    per_user: pd.DataFrame


class Stranger:
    """Tells a ranker nothing of its users but their history, or the last `length` items that they liked."""

    def __init__(self, ranker: Ranker, length: int | None) -> None:
        self.ranker = ranker
        self.length = length

    @property
    def name(self) -> str:
        return self.ranker.name

    def rank_scores(self, user_index: Tensor, histories: Histories) -> Tensor:
        if self.length is not None:
            histories = histories.only_liked().latest(self.length)
        return self.ranker.rank_scores(torch.zeros_like(user_index), histories)


def cold_user_study(
    config: Config,
    dataset: Dataset,
    *,
    share: float = 0.2,
    rounds: int = 1,
    seed: int = 0,
    bootstrap: int = 1000,
    tell: Tell = quiet,
) -> ColdUserStudy:
    """Withhold users from training, and serve them from the history in the request.

    Nothing is chosen on them either. Beside the model stand EASE, tuned, and popularity. What a user did before
    the test part is left out of the user's list, also where the request does not bring it along, so that every
    list is of the same candidates but for items that only withheld users had.
    share   of the users that have rows before the test part, in each round
    rounds  others are withheld in each, as often as there are others
    tell    is told one line per step
    Raises  EmptyDataError: too few users to withhold any, or none of them liked a test item
    """
    parts = split(dataset.interactions, config.data)
    before = concatenate([parts.train, parts.validation])
    drawn = draw(np.unique(before.user_id), share, rounds, seed, "users")
    familiar = fitted(config, dataset, parts, tell)
    rankers = [familiar, *_rivals(familiar, parts, tell)]
    everyone = np.sort(np.concatenate(drawn))
    test = _rows_of(parts.test, everyone)
    frames = _judged(
        rankers, TRAINED_ON, familiar, familiar.histories.to("cpu"), test, familiar.processor.encode(test)
    )
    for number, ids in enumerate(drawn, 1):
        tell(f"round {number} of {len(drawn)}, without {len(ids)} users")
        kept = without(parts, "user_id", ids)
        stranger = fitted(config, dataset, kept, tell)
        processor = stranger.processor
        own = Histories.from_encoded(_as_rows(processor, _rows_of(before, ids), ids), len(ids) + 1)
        test = _rows_of(parts.test, ids)
        rankers = [stranger, *_rivals(stranger, kept, tell)]
        for known, length in LENGTHS.items():
            strangers = [Stranger(ranker, length) for ranker in rankers]
            frames += _judged(strangers, known, stranger, own, test, _as_rows(processor, test, ids))
    per_user = pd.concat(frames, ignore_index=True)
    withheld = sum(len(ids) for ids in drawn)
    return ColdUserStudy(withheld, *_figures(per_user, bootstrap, seed), per_user)


def _judged(
    rankers: Sequence[Ranker],
    known: str,
    recommender: Recommender,
    histories: Histories,
    test: Interactions,
    encoded: Encoded,
) -> list[pd.DataFrame]:
    """The values of the test users from each ranker; `encoded` is `test` with the rows of `histories`."""
    keys, ids = user_keys(test.user_id)
    processor = recommender.processor
    return [
        evaluate(
            ranker,
            train=histories,
            test=encoded,
            test_users=keys,
            user_ids=ids,
            item_count=processor.item_count,
            warm_count=processor.warm_count,
            bootstrap=0,
        )
        .per_user[METRICS]
        .reset_index()
        .assign(ranker=ranker.name, known=known)
        for ranker in rankers
    ]


def _figures(
    per_user: pd.DataFrame, bootstrap: int, seed: int
) -> tuple[dict[tuple[str, str, str], Interval], dict[str, Interval]]:
    figures: dict[tuple[str, str, str], Interval] = {}
    ndcg: dict[tuple[str, str], pd.Series] = {}
    for (ranker, known), rows in per_user.groupby(["ranker", "known"], sort=False):
        values = rows[METRICS].to_numpy(float)
        found = ratio_intervals(values, np.ones_like(values), samples=bootstrap, seed=seed)
        figures |= {(ranker, known, metric): value for metric, value in zip(METRICS, found, strict=True)}
        ndcg[ranker, known] = rows.set_index("user")["ndcg_at_10"]
    ratios = {}
    for ranker in per_user["ranker"].unique():
        gain = paired_difference(
            ndcg[ranker, WHOLE_HISTORY], ndcg[ranker, TRAINED_ON], samples=bootstrap, seed=seed
        ).relative
        ratios[ranker] = Interval(gain.value + 1, gain.low + 1, gain.high + 1)
    return figures, ratios


def _rivals(recommender: Recommender, parts: Split, tell: Tell) -> list[Ranker]:
    processor = recommender.processor
    tuned = tune_baselines(
        Histories.from_encoded(processor.encode(parts.train), processor.user_count),
        processor.encode(parts.validation),
        validation_users=user_keys(parts.validation.user_id)[0],
        item_count=processor.item_count,
        warm_count=processor.warm_count,
        refit_on=recommender.histories.to("cpu"),
        progress=tell,
        kinds=(EASE, Popularity),
    )
    return [found.baseline for found in tuned]


def _rows_of(rows: Interactions, ids: np.ndarray) -> Interactions:
    return rows.take(np.isin(rows.user_id, ids))


def _as_rows(processor: FeatureProcessor, rows: Interactions, ids: np.ndarray) -> Encoded:
    """Encoded with the place in `ids`, which is sorted, counted from 1, instead of the user_index."""
    place = np.searchsorted(ids, rows.user_id) + 1
    return dataclasses.replace(processor.encode(rows), user_index=torch.from_numpy(place).int())
