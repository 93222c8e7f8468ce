"""Training data as data frames, in the column names that people have, for Recommender.build_and_train."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pandas as pd

from widedeep.config import Config, DataConfig, ModelConfig, TrainConfig, from_dict
from widedeep.datasets import Dataset
from widedeep.datasets.titles import item_frame, words, year_of, years_in
from widedeep.errors import ConfigError, DataNotFoundError
from widedeep.interactions import Interactions
from widedeep.split import Split, split

USER = ("user_id", "userId", "user")
ITEM = ("item_id", "movieId", "itemId", "movie_id", "item")
RATING = ("rating", "liked", "label")
TIMESTAMP = ("timestamp",)
GENRES = ("genres", "genre")


def prepare(
    train_data: pd.DataFrame,
    user_stats: pd.DataFrame | None,
    movie_features: pd.DataFrame | None,
    all_genres: Sequence[str] | None,
    settings: dict[str, Any],
) -> tuple[Config, Dataset, Split]:
    """The config, the data and a validation part cut from it.

    Raises  ConfigError: a setting that is no field; DataError: rows that are no interactions
    """
    user, item = _require(train_data, USER, "train_data"), _require(train_data, ITEM, "train_data")
    rating, timestamp = _find(train_data, RATING), _find(train_data, TIMESTAMP)
    if rating in ("liked", "label"):
        settings = {"like_threshold": 0.5, **settings}
    config = _config({"dataset": "files", "split": "none", **settings})
    interactions, notes = Interactions.from_frame(
        train_data,
        user_col=user,
        item_col=item,
        rating_col=rating or "none",
        timestamp_col=timestamp or "none",
        source="train_data",
        on_bad_rows=config.data.on_bad_rows,
        place=lambda row: f"row {row}",
    )
    users = pd.DataFrame({"user_id": interactions.user_id[:0]})
    if user_stats is not None:
        users = user_stats.rename(columns={_require(user_stats, USER, "user_stats"): "user_id"})
    items = pd.DataFrame({"item_id": interactions.item_id[:0]})
    if movie_features is not None:
        items = _items(movie_features, all_genres)
    data = Dataset(
        "frames", interactions, item_frame(items), users, "data frames", interactions.digest(), tuple(notes)
    )
    return config, data, split(interactions, config.data)


def _config(settings: dict[str, Any]) -> Config:
    parts: dict[str, dict[str, Any]] = {"data": {}, "model": {}, "train": {}}
    fields = {"data": DataConfig, "model": ModelConfig, "train": TrainConfig}
    for name, value in settings.items():
        for part, cls in fields.items():
            if name in {field.name for field in dataclasses.fields(cls)}:
                parts[part][name] = value
                break
        else:
            raise ConfigError(f"There is no setting {name!r}. See widedeep.config for all of them.")
    return from_dict(Config, parts)


def _items(features: pd.DataFrame, all_genres: Sequence[str] | None) -> pd.DataFrame:
    items = features.rename(columns={_require(features, ITEM, "movie_features"): "item_id"}).reset_index(
        drop=True
    )
    genres = _find(items, GENRES)
    if genres is not None:
        items["genres"] = words(items[genres], between="|")
    elif all_genres is not None:
        missing = [name for name in all_genres if name not in items.columns]
        if missing:
            raise DataNotFoundError(
                f"movie_features has no column {missing[0]!r} of all_genres (found: "
                f"{', '.join(map(str, items.columns))}). Give a 0/1 column for each genre, or one column genres."
            )
        flags = (
            items[list(all_genres)].apply(pd.to_numeric, errors="coerce").fillna(0).to_numpy().astype(bool)
        )
        items["genres"] = [
            "|".join(name for name, flag in zip(all_genres, row, strict=True) if flag) for row in flags
        ]
    if "year" in items:
        items["year"] = years_in(items["year"])
    elif "title" in items:
        items["year"] = year_of(items["title"])
    return items


def _find(frame: pd.DataFrame, names: Sequence[str]) -> str | None:
    return next((name for name in names if name in frame.columns), None)


def _require(frame: pd.DataFrame, names: Sequence[str], what: str) -> str:
    found = _find(frame, names)
    if found is None:
        raise DataNotFoundError(
            f"{what} has none of the columns {', '.join(names)} (found: {', '.join(map(str, frame.columns))}). "
            f"Rename yours to {names[0]}."
        )
    return found
