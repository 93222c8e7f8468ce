"""Versions of one model in a real registry, good ones and damaged ones, for `reload`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np

from experiments.benchmarks import serving_models
from widedeep.queries import Query, ScoreQuery
from widedeep.recommender import Recommender

NAME, ALIAS = "reloaded", "champion"
K, ITEMS = 10, 64


@dataclass(frozen=True)
class Question:
    """What is asked, of every version."""

    user: str
    items: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What a version says to a question, asked without a server.  probabilities  (ITEMS,)   scores  (K,)"""

    probabilities: np.ndarray
    ranked: tuple[str, ...]
    scores: np.ndarray


Answers = dict[str, list[Answer]]  # by version, question by question


class Versions:
    """A registry in `folder`.  good  numbers of the versions whose answers are known"""

    def __init__(self, folder: Path) -> None:
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        self.folder = folder
        self.client = mlflow.MlflowClient(self.uri, self.uri)
        self.client.create_registered_model(NAME)
        self._damaged = ("ends-early", "no-model")
        self.questions: list[Question] = []
        self.answers: Answers = {}

    @property
    def good(self) -> list[str]:
        return list(self.answers)

    def add_good(self, recommender: Recommender, questions: int) -> None:
        place = self._place(f"good-{len(self.answers)}")
        recommender.save(place / "model.pth")
        if not self.questions:
            self.questions = _questions(recommender, questions)
        self.answers[self._registered(place)] = _answers(recommender, self.questions)

    def damage(self) -> None:
        """Make the files of bad versions: one that ends too early, and one that is something else."""
        whole = (self.folder / "good-0" / "model.pth").read_bytes()
        for place, damaged in zip(self._damaged, (whole[: len(whole) // 2], b"no model at all"), strict=True):
            (self._place(place) / "model.pth").write_bytes(damaged)

    def add_bad(self, number: int) -> str:
        """A new version with one of the damaged files."""
        return self._registered(self.folder / self._damaged[number % len(self._damaged)])

    def move(self, version: str) -> None:
        self.client.set_registered_model_alias(NAME, ALIAS, version)

    def _place(self, name: str) -> Path:
        place = self.folder / name
        place.mkdir()
        return place

    def _registered(self, place: Path) -> str:
        return str(self.client.create_model_version(NAME, place.as_uri()).version)


def make(folder: Path, shape: tuple[int, int, int], good: int, questions: int) -> Versions:
    """good  versions of the same data, each trained from another seed, so that their answers differ"""
    versions = Versions(folder)
    for seed in range(good):
        versions.add_good(serving_models.trained(*shape, seed=seed), questions)
    versions.damage()
    return versions


def _questions(recommender: Recommender, count: int) -> list[Question]:
    rng, processor = np.random.default_rng(0), recommender.processor
    users = rng.choice(np.flatnonzero(recommender.histories.only_liked().lengths.numpy()), count)
    return [
        Question(
            str(user),
            tuple(
                str(item)
                for item in processor.items.ids_of(rng.choice(processor.warm_count, ITEMS, replace=False) + 1)
            ),
        )
        for user in processor.users.ids_of(users)
    ]


def _answers(recommender: Recommender, questions: list[Question]) -> list[Answer]:
    rankings = recommender.rank([Query(question.user, k=K) for question in questions])
    scores = recommender.score_batch([ScoreQuery(question.user, question.items) for question in questions])
    return [
        Answer(score.probabilities, tuple(map(str, ranking.item_ids)), np.array(ranking.scores))
        for ranking, score in zip(rankings, scores, strict=True)
    ]
