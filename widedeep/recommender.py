"""Recommender: ids in, ids out.

recommender = Recommender.load("model.pth")
recommender.recommend(user_id=1, k=10)
recommender.recommend_for_history([1, 50, 260], k=10)
recommender.score(user_id=1, item_ids=[1, 2, 3])
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from widedeep import bundle
from widedeep.answers import RankingAnswers, ScoreAnswers
from widedeep.closed_form import ClosedForm
from widedeep.cold import ColdItems
from widedeep.config import Config
from widedeep.device import resolve_device
from widedeep.each import or_raise
from widedeep.errors import RequestError
from widedeep.features import FeatureProcessor
from widedeep.histories import Histories
from widedeep.inputs import QueryInputs
from widedeep.interactions import Interactions
from widedeep.lists import Lists
from widedeep.model import WideDeepNet
from widedeep.preparing import prepare
from widedeep.probe import Probe
from widedeep.queries import Query, Ranking, RankingMethod, ScoreQuery, Scores, Similar, SimilarQuery
from widedeep.similar import SimilarAnswers
from widedeep.training import Chosen, FitResult, Progress, fit

if TYPE_CHECKING:
    from widedeep.datasets import Dataset


class Recommender:
    """A trained network with all that it takes to answer: vocabularies, item table, histories."""

    name = "widedeep"

    def __init__(
        self,
        net: WideDeepNet,
        processor: FeatureProcessor,
        histories: Histories,
        config: Config,
        chosen: Chosen,
        about: dict[str, Any],
    ) -> None:
        """histories  of all users by user_index; about  plain facts for people, kept in the bundle"""
        self.net = net.eval()
        self.processor = processor
        self.inputs = QueryInputs(processor, histories, net.device)
        lists = Lists(self.inputs, ColdItems(net.item_features, processor.warm_count))
        self._rankings = RankingAnswers(self.net, self.inputs, lists)
        self._scores = ScoreAnswers(self.net, self.inputs)
        self._similar = SimilarAnswers(self.inputs, lists, self._rankings)
        self.config = config
        self.chosen = chosen
        self.about = about
        self.probe: Probe | None = None  # what the file says that it answers

    @classmethod
    def fit(
        cls,
        config: Config,
        dataset: Dataset,
        train: Interactions,
        validation: Interactions | None = None,
        *,
        chosen: Chosen | None = None,
        known: ClosedForm | None = None,
        progress: Progress | None = None,
        stage: str = "fit",
    ) -> tuple[Recommender, FitResult]:
        """Train on `train`; see `widedeep.training.fit` for the rest."""
        processor = FeatureProcessor.fit(train, dataset.items, dataset.users, config.data.like_threshold)
        encoded = processor.encode(train)
        result = fit(
            config,
            processor,
            encoded,
            None if validation is None else processor.encode(validation),
            chosen=chosen,
            known=known,
            progress=progress,
            stage=stage,
        )
        about = {
            "dataset": dataset.name,
            "source": dataset.source,
            "digest": dataset.digest,
            "interactions": len(train),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "torch": str(torch.__version__),
        }
        histories = Histories.from_encoded(encoded, processor.user_count)
        return cls(result.net, processor, histories, config, result.chosen, about), result

    @classmethod
    def build_and_train(
        cls,
        train_data: pd.DataFrame,
        user_stats: pd.DataFrame | None = None,
        movie_features: pd.DataFrame | None = None,
        all_genres: Sequence[str] | None = None,
        *,
        progress: Progress | None = None,
        **settings: Any,
    ) -> Recommender:
        """Train on data frames, without files and without MLflow.

        train_data      columns user_id, item_id, and if there are any rating and timestamp
                        (userId and movieId will do; 0/1 in liked or label stands in for a rating)
        user_stats      user_id and any columns about the users
        movie_features  item_id, and if there are any title, year and genres: "A|B" in one column, or a 0/1
                        column for each of `all_genres`
        settings        any field of the configuration, such as epochs=20, batch_size=1024, device="cpu"

        A tenth of each user's interactions validates the choices; the result is trained on everything.
        Raises          ConfigError, DataError
        """
        from widedeep import frames  # frames builds on datasets, which most users of a saved model never need

        config, dataset, parts = frames.prepare(train_data, user_stats, movie_features, all_genres, settings)
        _, result = cls.fit(config, dataset, parts.train, parts.validation, progress=progress, stage="select")
        recommender, _ = cls.fit(
            config, dataset, dataset.interactions, chosen=result.chosen, progress=progress, stage="refit"
        )
        recommender.about["validation"] = result.validation
        return recommender

    @property
    def device(self) -> torch.device:
        return self.net.device

    @property
    def histories(self) -> Histories:
        """Of all users by user_index, on the device."""
        return self.inputs.histories

    def recommend(self, user_id: Hashable | None, k: int = 10, **options: Any) -> Ranking:
        """The k best items for a user.

        options  the other fields of Query: exclude_seen, exclude_items, candidates, history, explain, diversity …
        Raises   InvalidQueryError, UnknownItemError
        """
        return self.rank([Query(user_id=user_id, k=k, **options)])[0]

    def recommend_for_history(self, history: Sequence[Hashable], k: int = 10, **options: Any) -> Ranking:
        """The k best items for someone who is not in the training data, from what they did, oldest first."""
        return self.rank([Query(history=history, k=k, **options)])[0]

    def score(
        self,
        user_id: Hashable | None,
        item_ids: Sequence[Hashable],
        *,
        history: Sequence[Hashable] | None = None,
        history_ratings: Sequence[float] | None = None,
    ) -> np.ndarray:
        """(items,) float32: how probable it is that the user likes each item.

        Raises  UnknownItemError: items that the model does not know
        """
        return self.score_batch([ScoreQuery(user_id, item_ids, history, history_ratings)])[0].probabilities

    def similar(self, item_ids: Sequence[Hashable], k: int = 10, **options: Any) -> Similar:
        """The k items that are most like the given ones.

        options  the other fields of SimilarQuery: exclude_items, candidates, genres …
        Raises   InvalidQueryError, UnknownItemError
        """
        return self.similar_batch([SimilarQuery(item_ids, k, **options)])[0]

    def prepare(self, exact_up_to: int = 200_000, precision: str = "auto") -> RankingMethod:
        """Compute the item halves now, and decide how the whole catalogue is ranked; without it: exactly, in float32.

        exact_up_to  items with interactions. Above, on a CPU and where faiss is installed, queries without filters
                     are answered from candidates, which takes seconds to build for a million items
        precision    in which the best items are found, to be ranked in float32: float32, bfloat16, or auto: bfloat16
                     on a GPU that has it, if it keeps 0.99 of the best 100 items of a sample of users
        Returns      what was decided, and what was measured of it over that sample
        Raises       ConfigError
        """
        self._scores.prepare()
        return prepare(self._rankings, exact_up_to, precision)

    def check(self, query: Query) -> None:
        """Raises  InvalidQueryError, UnknownItemError, ColdStartError, as `rank` would"""
        self._rankings.check(query)

    def check_score(self, query: ScoreQuery) -> None:
        """Raises  InvalidQueryError, UnknownItemError, ColdStartError, as `score_batch` would"""
        self.inputs.ask_scoring(query)

    def rank(self, queries: Sequence[Query]) -> list[Ranking]:
        """Answer many queries in one go. The answers are those of one at a time, scores to a millionth.

        Raises  RequestError: the first of those of `rank_each`
        """
        return or_raise(self.rank_each(queries))

    def rank_each(self, queries: Sequence[Query]) -> list[Ranking | RequestError]:
        """As `rank`, but a query that cannot be answered gets its error and the others their rankings.

        The errors are InvalidQueryError, UnknownItemError and ColdStartError.
        """
        return self._rankings.each(queries)

    def score_batch(self, queries: Sequence[ScoreQuery]) -> list[Scores]:
        """Answer many score queries in one go. The answers are those of one at a time, to a millionth.

        Raises  RequestError: the first of those of `score_each`
        """
        return or_raise(self.score_each(queries))

    def score_each(self, queries: Sequence[ScoreQuery]) -> list[Scores | RequestError]:
        """As `score_batch`, with errors in place as in `rank_each`."""
        return self._scores.each(queries)

    def similar_batch(self, queries: Sequence[SimilarQuery]) -> list[Similar]:
        """Raises  RequestError: the first of those of `similar_each`"""
        return or_raise(self.similar_each(queries))

    def similar_each(self, queries: Sequence[SimilarQuery]) -> list[Similar | RequestError]:
        """As `rank_each`, for items like others."""
        return self._similar.each(queries)

    @torch.inference_mode()
    def rank_scores(self, user_index: Tensor, histories: Histories) -> Tensor:
        """As `widedeep.evaluation.Ranker`: (histories, item_count) by our own indices."""
        return self.net.rank_scores(user_index.to(self.device), histories.to(self.device)).cpu()

    @torch.inference_mode()
    def probability(self, user_index: Tensor, item_index: Tensor, histories: Histories) -> Tensor:
        """As `widedeep.evaluation.LikeModel`: (rows,) by our own indices."""
        users, items = user_index.to(self.device), item_index.to(self.device)
        asked, rows = torch.unique(users, return_inverse=True)
        totals = self.net.totals(histories.to(self.device).take(asked))
        return self.net.like_logits(users, items, rows, totals).float().sigmoid().cpu()

    def item_titles(self, item_ids: Sequence[Hashable]) -> list[str]:
        return [self.processor.item_table.titles[index] for index in self._indices(item_ids)]

    def item_genres(self, item_ids: Sequence[Hashable]) -> list[str]:
        """ "A|B" for each item."""
        return [self.processor.item_table.genre_texts[index] for index in self._indices(item_ids)]

    def item_years(self, item_ids: Sequence[Hashable]) -> list[int]:
        """0 where the year is unknown."""
        return [int(self.processor.item_table.years[index]) for index in self._indices(item_ids)]

    def _indices(self, item_ids: Sequence[Hashable]) -> list[int]:
        found: list[int] = self.processor.items.index_of(item_ids).tolist()
        return found

    def describe(self) -> dict[str, Any]:
        """Plain facts about the model."""
        return {
            **self.about,
            "users": self.processor.user_count - 1,
            "items": self.processor.warm_count,
            "like_threshold": self.processor.like_threshold,
            "device": str(self.device),
            "parameters": sum(parameter.numel() for parameter in self.net.parameters()),
        }

    def save(self, path: str | Path, processor_path: str | Path | None = None) -> None:
        """Write one file that holds everything or, with `processor_path`, weights and processor apart.

        The file is whole or not there.
        Raises  BundleError: not writable, or the disk is full
        """
        bundle.save(self, Path(path), None if processor_path is None else Path(processor_path))

    @classmethod
    def load(
        cls, path: str | Path, processor_path: str | Path | None = None, *, device: str = "auto"
    ) -> Recommender:
        """Read what `save` wrote, onto a device.

        Raises  BundleError: missing, damaged, foreign or pickled; DeviceError
        """
        where = resolve_device(device)
        parts = bundle.load(Path(path), None if processor_path is None else Path(processor_path))
        parts.net.to(where)
        loaded = cls(parts.net, parts.processor, parts.histories, parts.config, parts.chosen, parts.about)
        loaded.probe = parts.probe
        return loaded
