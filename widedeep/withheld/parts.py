"""Leaving users or items out of everything that a model learns from."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from widedeep.config import Config
from widedeep.datasets import Dataset
from widedeep.errors import EmptyDataError
from widedeep.interactions import Interactions, concatenate
from widedeep.recommender import Recommender
from widedeep.split import Split

Tell = Callable[[str], None]


def quiet(_line: str) -> None:
    """Told of every step, and says nothing."""


def draw(ids: np.ndarray, share: float, rounds: int, seed: int, what: str) -> list[np.ndarray]:
    """A share of the ids for each round, none of them twice, each sorted; fewer rounds where they run out.

    Raises  EmptyDataError: none can be withheld so that two stay
    """
    count = math.ceil(share * len(ids))
    if not 0 < count <= len(ids) - 2:
        raise EmptyDataError(
            f"There are {len(ids)} {what}, of which {count} cannot be withheld: 2 must stay. Use more data, or "
            "another share."
        )
    order = np.random.default_rng(seed).permutation(ids)
    starts = range(0, len(ids) - count + 1, count)[:rounds]
    return [np.sort(order[start : start + count]) for start in starts]


def without(parts: Split, column: str, ids: np.ndarray) -> Split:
    """The same split, its train and validation without the rows of these users or items."""

    def left(rows: Interactions) -> Interactions:
        return rows.take(~np.isin(getattr(rows, column), ids))

    return Split(left(parts.train), left(parts.validation), parts.test, parts.method, parts.description)


def fitted(config: Config, dataset: Dataset, parts: Split, tell: Tell) -> Recommender:
    """Chosen on the validation part, then fitted on all that comes before the test part."""
    tell("fit to choose the recipe")
    judged = parts.validation.liked(config.data.like_threshold).any()
    _, selected = Recommender.fit(config, dataset, parts.train, parts.validation if judged else None)
    tell("fit without what is withheld")
    before = concatenate([parts.train, parts.validation])
    return Recommender.fit(config, dataset, before, chosen=selected.chosen)[0]
