"""One recipe, the whole way: choose on the validation part, evaluate on the test part, refit on everything.

A recipe is a configuration with what validation has chosen for it. Recipes are what is compared: a model that
was refit on everything has seen the test part and can be judged no more.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from experiments import profiling, trust
from experiments.profiling import Examined
from experiments.progress import Console
from experiments.trust import Trust
from widedeep import datasets
from widedeep.closed_form import ClosedForm
from widedeep.config import Config, DataConfig, from_dict, to_dict
from widedeep.datasets import Dataset
from widedeep.interactions import Interactions, concatenate
from widedeep.recommender import Recommender
from widedeep.split import Split, split
from widedeep.training import Chosen, Progress, Step

SPLIT_FIELDS = ("split", "test_fraction", "validation_fraction", "like_threshold", "data_seed")


@dataclass(frozen=True)
class Recipe:
    """How to make a model again."""

    config: Config
    chosen: Chosen

    def to_dict(self) -> dict[str, Any]:
        return {"config": to_dict(self.config), "chosen": self.chosen.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        return cls(from_dict(Config, values["config"]), Chosen.from_dict(values["chosen"]))


@dataclass(frozen=True)
class Prepared:
    """A data set that was loaded and split.  config: with the data set's own name in the place of auto"""

    dataset: Dataset
    split: Split
    config: DataConfig

    @property
    def before_test(self) -> Interactions:
        """Train and validation together: what a model that is tested may have seen."""
        if not len(self.split.validation):
            return self.split.train
        return concatenate([self.split.train, self.split.validation])

    @functools.cached_property
    def examined(self) -> Examined:
        """Its profile and its ids, counted once."""
        return profiling.examine(self.dataset, self.config)

    @functools.cached_property
    def trust(self) -> Trust:
        """What was found on looking for leaks in the split."""
        return trust.look(self.split, len(self.dataset.interactions))

    @property
    def key(self) -> str:
        """Equal for two runs whose results may be compared user by user."""
        return comparison_key(self.dataset.digest, self.config)

    @property
    def tables_digest(self) -> str:
        """SHA-256 of the item and the user table, which the data set's own digest leaves out."""
        state = hashlib.sha256()
        for table in (self.dataset.items, self.dataset.users):
            state.update(json.dumps([str(name) for name in table.columns]).encode())
            state.update(pd.util.hash_pandas_object(table, index=False).to_numpy().tobytes())
        return state.hexdigest()


def comparison_key(digest: str, config: DataConfig) -> str:
    """The data set's digest and how it is labelled and split, as text."""
    return " ".join([digest[:16], *(f"{name}={getattr(config, name)}" for name in SPLIT_FIELDS)])


@dataclass(frozen=True)
class Selection:
    """A recipe with how it came about.

    curves      a row per epoch: head, epoch and its metrics
    validation  metrics on the validation part
    """

    recipe: Recipe
    curves: list[dict[str, Any]] = field(default_factory=list)
    validation: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


def prepare(config: DataConfig, console: Console) -> Prepared:
    """Load, check and split; says what it found.

    Raises  DataError, ConfigError
    """
    dataset = datasets.load(config, progress=console.say)
    if dataset.truth is not None and config.dataset == "auto":
        console.loud("\n".join(("Synthetic data, not real data.", *dataset.notes)))
    else:
        for note in dataset.notes:
            console.say(note)
    rows = dataset.interactions
    console.say(f"data: {dataset.name} ({dataset.source}), {len(rows):,} interactions")
    parts = split(rows, config)
    console.say(f"split: {parts.description}")
    return Prepared(dataset, parts, dataclasses.replace(config, dataset=dataset.name))


def select(
    config: Config,
    data: Prepared,
    progress: Progress | None = None,
    known: ClosedForm | None = None,
    measure: Callable[[Recommender], dict[str, float]] | None = None,
) -> Selection:
    """Train on the train part, and let the validation part choose the epochs and whatever else is open.

    known    of an earlier selection on the same data and with the same part of each history read
    measure  what else there is to say of the trained model, beside its metrics on the validation part
    """
    started = time.monotonic()
    validation = data.split.validation if len(data.split.validation) else None
    recommender, result = Recommender.fit(
        config, data.dataset, data.split.train, validation, known=known, progress=progress, stage="select"
    )
    found = result.validation | (measure(recommender) if measure else {})
    return Selection(Recipe(config, result.chosen), result.curves, found, time.monotonic() - started)


def fit_before_test(recipe: Recipe, data: Prepared, progress: Progress | None = None) -> Recommender:
    """The recipe's model that may be tested."""
    return fit(recipe, data, data.before_test, "evaluate", progress)


def refit(recipe: Recipe, data: Prepared, progress: Progress | None = None) -> Recommender:
    """The recipe's model that has seen everything."""
    return fit(recipe, data, data.dataset.interactions, "refit", progress)


def fit(
    recipe: Recipe, data: Prepared, rows: Interactions, stage: str, progress: Progress | None = None
) -> Recommender:
    """The recipe's model, trained on `rows`."""
    recommender, _ = Recommender.fit(
        recipe.config, data.dataset, rows, chosen=recipe.chosen, progress=progress, stage=stage
    )
    return recommender


def on_data(config: Config, data: DataConfig) -> Config:
    """The same model and training on other data."""
    return dataclasses.replace(config, data=data)


def both(*listeners: Progress | None) -> Progress:
    """One Progress that tells several."""

    def tell(step: Step) -> None:
        for listener in listeners:
            if listener is not None:
                listener(step)

    return tell
