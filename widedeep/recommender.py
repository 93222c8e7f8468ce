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
from widedeep.answers import RankingAnswers
from widedeep.closed_form import ClosedForm
from widedeep.config import Config
from widedeep.device import resolve_device
from widedeep.features import FeatureProcessor
from widedeep.histories import Histories
from widedeep.inputs import QueryInputs, cold_start
from widedeep.interactions import Interactions
from widedeep.model import WideDeepNet
from widedeep.queries import Query, Ranking, ScoreQuery, Scores
from widedeep.training import Chosen, FitResult, Progress, fit

if TYPE_CHECKING:
    from widedeep.datasets import Dataset

BLOCK_SCORES = 2**24  # queries x items scored at once: 64 MB of float32


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
        self._rankings = RankingAnswers(self.net, self.inputs)
        self.config = config
        self.chosen = chosen
        self.about = about

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

    def check(self, query: Query) -> None:
        """Raises  InvalidQueryError, UnknownItemError, as `rank` would"""
        self.inputs.check(query)

    def check_score(self, query: ScoreQuery) -> None:
        """Raises  InvalidQueryError, UnknownItemError, as `score_batch` would"""
        self.inputs.check_score(query)

    def rank(self, queries: Sequence[Query]) -> list[Ranking]:
        """Answer many queries in one go; the answers are those of one at a time."""
        for query in queries:
            self.check(query)
        block = max(1, BLOCK_SCORES // self.net.item_count)
        return [
            ranking
            for start in range(0, len(queries), block)
            for ranking in self._rankings.of(queries[start : start + block])
        ]

    @torch.inference_mode()
    def score_batch(self, queries: Sequence[ScoreQuery]) -> list[Scores]:
        """Answer many score queries in one go."""
        for query in queries:
            self.check_score(query)
        user_index, histories = self.inputs.users_and_histories(queries)
        counts = torch.tensor([len(query.item_ids) for query in queries], device=self.device)
        rows = torch.arange(len(queries), device=self.device).repeat_interleave(counts)
        items = np.concatenate([self.processor.items.index_of(query.item_ids) for query in queries])
        item_index = torch.from_numpy(items).to(self.device)
        logits = self.net.like_logits(user_index[rows], item_index, rows, self.net.totals(histories))
        parts = np.split(logits.float().sigmoid().cpu().numpy(), np.cumsum(counts.cpu().numpy())[:-1])
        users, entries = user_index.tolist(), histories.lengths.tolist()
        return [
            Scores(part, cold_start(query, users[row], entries[row], entries[row]))
            for row, (query, part) in enumerate(zip(queries, parts, strict=True))
        ]

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
        return cls(parts.net, parts.processor, parts.histories, parts.config, parts.chosen, parts.about)
