"""Model and baselines side by side on the test part of one split."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from experiments.progress import Console
from experiments.recipe import Prepared
from widedeep.baselines import BASELINES, Tuned, tune_baselines
from widedeep.bootstrap import PairedDifference, paired_difference
from widedeep.datasets import Truth
from widedeep.errors import DataError
from widedeep.evaluation import LikeModel, Progress, Ranker, evaluate, user_keys
from widedeep.features import FeatureProcessor
from widedeep.histories import Histories
from widedeep.recommender import Recommender
from widedeep.report import Report

REACHABLE = "best reachable"


class Oracle:
    """Ranks synthetic data by what it was made from: no model can be better but by luck.

    For users and items that the processor knows: it is asked by index and has to find the id again.
    """

    name = REACHABLE

    def __init__(self, truth: Truth, processor: FeatureProcessor) -> None:
        self.truth = truth
        self.processor = processor
        self.columns = processor.items.ids[: processor.warm_count] - 1

    def rank_scores(self, user_index: Tensor, histories: Histories) -> Tensor:  # noqa: ARG002
        scores = torch.zeros(len(user_index), self.processor.item_count)
        users = np.asarray(self.processor.users.ids_of(user_index.cpu().numpy()))
        found = self.truth.ranking_scores(users)[:, self.columns]
        scores[:, 1 : self.processor.warm_count + 1] = torch.from_numpy(found).float()
        return scores

    def probability(self, user_index: Tensor, item_index: Tensor, histories: Histories) -> Tensor:  # noqa: ARG002
        users = np.asarray(self.processor.users.ids_of(user_index.cpu().numpy()))
        items = np.asarray(self.processor.items.ids_of(item_index.cpu().numpy()))
        return torch.from_numpy(self.truth.like_probability(users, items)).float()


@dataclass(frozen=True)
class Results:
    """The model's report, those of the baselines, and how the baselines were tuned.

    bootstrap  resamples of the users for the intervals
    """

    model: Report
    others: list[Report]
    tuned: list[Tuned]
    bootstrap: int = 1000

    @property
    def all(self) -> list[Report]:
        return [self.model, *self.others]

    @property
    def baselines(self) -> list[Report]:
        """Without what only the maker of the data can know."""
        return [report for report in self.others if report.model != REACHABLE]

    @functools.cached_property
    def gains(self) -> dict[str, PairedDifference]:
        """By how much the model's NDCG@10 is above each baseline's, user by user; the best baseline comes first."""
        ordered = sorted(self.baselines, key=lambda report: -report.metrics["ndcg_at_10"].value)
        return {
            report.model: paired_difference(
                self.model.per_user["ndcg_at_10"], report.per_user["ndcg_at_10"], samples=self.bootstrap
            )
            for report in ordered
        }


class Bench:
    """The test part, ready to judge any model that was trained on what comes before it."""

    def __init__(self, data: Prepared, bootstrap: int, console: Console) -> None:
        """bootstrap  resamples of the users for the intervals"""
        if not len(data.split.test):
            raise DataError(
                "split=none has no test part, so there is nothing to evaluate on. Choose another split."
            )
        self.data = data
        self.bootstrap = bootstrap
        self.console = console
        self.test_users, self.user_ids = user_keys(data.split.test.user_id)

    def model(self, recommender: Recommender) -> Report:
        """Judge a model that was trained on the rows before the test part, and on no others."""
        return self._judge(recommender, recommender.processor, recommender.histories.to("cpu"), recommender)

    def against_baselines(self, recommender: Recommender) -> Results:
        """The model's figures beside those of baselines tuned on the validation part of the same split."""
        report = self.model(recommender)
        processor = recommender.processor
        histories = recommender.histories.to("cpu")
        tuned = self._tune(processor, histories)
        others = [self._judge(found.baseline, processor, histories) for found in tuned]
        truth = self.data.dataset.truth
        if truth is not None and self._knows_all(processor):
            oracle = Oracle(truth, processor)
            others.append(self._judge(oracle, processor, histories, oracle))
        return Results(report, others, tuned, self.bootstrap)

    def _knows_all(self, processor: FeatureProcessor) -> bool:
        """Every user and item of the test part has an index, by which the oracle finds its id again."""
        test = processor.encode(self.data.split.test)
        return bool((test.user_index > 0).all() and (test.item_index > 0).all())

    def _tune(self, processor: FeatureProcessor, refit_on: Histories) -> list[Tuned]:
        split = self.data.split
        if not len(split.validation):
            return [Tuned(kind().fit(refit_on, processor.item_count), []) for kind in BASELINES]
        keys, _ = user_keys(split.validation.user_id)
        return tune_baselines(
            Histories.from_encoded(processor.encode(split.train), processor.user_count),
            processor.encode(split.validation),
            validation_users=keys,
            item_count=processor.item_count,
            warm_count=processor.warm_count,
            refit_on=refit_on,
            progress=lambda line: self.console.say(f"baseline {line}"),
        )

    def _judge(
        self,
        ranker: Ranker,
        processor: FeatureProcessor,
        histories: Histories,
        like_model: LikeModel | None = None,
    ) -> Report:
        with self.console.counting(f"evaluate {ranker.name}", "users") as counter:
            progress: Progress = counter
            return evaluate(
                ranker,
                train=histories,
                test=processor.encode(self.data.split.test),
                test_users=self.test_users,
                user_ids=self.user_ids,
                item_count=processor.item_count,
                warm_count=processor.warm_count,
                genres=processor.item_table.genres,
                like_model=like_model,
                bootstrap=self.bootstrap,
                progress=progress,
            )


def per_user_frame(reports: Sequence[Report]) -> pd.DataFrame:
    """Every model's values of every user, one row each: model, user and the metrics."""
    return pd.concat(
        [report.per_user.reset_index().assign(model=report.model) for report in reports], ignore_index=True
    )


def per_user_of(frame: pd.DataFrame, model: str, metric: str = "ndcg_at_10") -> pd.Series:
    """One metric of one model out of `per_user_frame`, indexed by user."""
    rows = frame[frame["model"] == model]
    return rows.set_index("user")[metric]
