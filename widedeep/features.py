"""From ids to indices and features: everything is fitted on the training part alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from widedeep.errors import EmptyDataError
from widedeep.histories import Encoded
from widedeep.interactions import Interactions, distinct
from widedeep.vocabulary import Vocabulary, own_number

YEAR_SCALE = 20.0  # years that count as one unit of the year feature
CATEGORY_LIMIT = 50  # values of a user attribute beyond the most frequent 50 share "other"


@dataclass(frozen=True)
class ItemTable:
    """What is known of each item, by item_index; row 0 is the unknown.

    titles  item_count strings, the id's text where there is no title
    genres  (item_count, genres) bool
    years   (item_count,) int32, 0 = unknown
    """

    titles: list[str]
    genre_names: list[str]
    genres: Tensor
    years: Tensor

    def features(self) -> Tensor:
        """(item_count, genres + 2) float32: genres over their number's root, year, whether there is one."""
        genres = self.genres.float()
        genres = genres / genres.sum(1, keepdim=True).clamp(min=1).sqrt()
        dated = (self.years > 0).float()
        middle = (self.years.float() * dated).sum() / dated.sum().clamp(min=1)
        year = (self.years.float() - middle) / YEAR_SCALE * dated
        return torch.cat([genres, year.clamp(-5, 5)[:, None], dated[:, None]], 1)

    @cached_property
    def genre_texts(self) -> list[str]:
        """ "A|B" for each item, empty where it has none."""
        parts: list[list[str]] = [[] for _ in range(len(self.genres))]
        for row, column in self.genres.nonzero().tolist():
            parts[row].append(self.genre_names[column])
        return ["|".join(names) for names in parts]


@dataclass(frozen=True)
class FeatureProcessor:
    """Vocabularies and features.

    Items that occur in the training part come first (indices 1 to warm_count), by id; the items that only
    the item table knows follow. `user_features` (user_count, columns) holds the user attributes as 0/1
    columns and standardised numbers; row 0, the unknown user, is zero.
    """

    users: Vocabulary
    items: Vocabulary
    warm_count: int
    item_table: ItemTable
    user_features: Tensor
    user_feature_names: list[str]
    like_threshold: float

    @classmethod
    def fit(
        cls, train: Interactions, items: pd.DataFrame, users: pd.DataFrame, like_threshold: float
    ) -> FeatureProcessor:
        """Fit on the training interactions.

        items  columns item_id, title, genres ("A|B"), year; may know more or fewer items than `train`
        users  columns user_id and any attributes: text is a category, numbers are standardised
        Raises EmptyDataError: fewer than two users or items
        """
        warm, user_ids = distinct(train.item_id), distinct(train.user_id)
        for name, ids in (("users", user_ids), ("items", warm)):
            if len(ids) < 2:
                raise EmptyDataError(
                    f"The training part has {len(ids)} {name}; a recommender needs 2 or more. "
                    "Check the split, or bring more data."
                )
        table_ids = _same_type(items["item_id"].to_numpy(), warm)
        cold = np.setdiff1d(table_ids, warm)
        vocabulary = Vocabulary(np.concatenate([warm, cold]))
        user_vocabulary = Vocabulary(user_ids)
        features, names = _user_features(users, user_vocabulary)
        return cls(
            users=user_vocabulary,
            items=vocabulary,
            warm_count=len(warm),
            item_table=_item_table(items, table_ids, vocabulary),
            user_features=features,
            user_feature_names=names,
            like_threshold=like_threshold,
        )

    @property
    def user_count(self) -> int:
        """Rows of everything that is by user_index: the unknown user included."""
        return len(self.users)

    @property
    def item_count(self) -> int:
        """Rows of everything that is by item_index: the unknown item included."""
        return len(self.items)

    def encode(self, interactions: Interactions) -> Encoded:
        rows = len(interactions)
        rating = interactions.rating
        return Encoded(
            user_index=torch.from_numpy(self.users.index_of(interactions.user_id)),
            item_index=torch.from_numpy(self.items.index_of(interactions.item_id)),
            rating=torch.tensor(rating) if rating is not None else torch.full((rows,), float("nan")),
            liked=torch.tensor(interactions.liked(self.like_threshold)),
            timestamp=(
                torch.tensor(interactions.timestamp)
                if interactions.timestamp is not None
                else torch.arange(rows)
            ),
        )


def _same_type(ids: np.ndarray, like: np.ndarray) -> np.ndarray:
    """`ids` as the type of the interactions' ids, without those that do not convert."""
    if like.dtype.kind not in "iu":
        return np.array([str(value) for value in ids.tolist()], dtype=object)
    if ids.dtype.kind in "iu":
        return ids.astype(np.int64)
    numbers = [own_number(value) for value in ids.tolist()]
    return np.array([-(2**63) if number is None else number for number in numbers], dtype=np.int64)


def _item_table(items: pd.DataFrame, table_ids: np.ndarray, vocabulary: Vocabulary) -> ItemTable:
    count = len(vocabulary)
    titles = ["", *(str(value) for value in vocabulary.ids.tolist())]
    years = torch.zeros(count, dtype=torch.int32)
    index = vocabulary.index_of(table_ids)
    genre_lists = [_genres(text) for text in items["genres"].tolist()]
    names = sorted({name for genres in genre_lists for name in genres})
    column = {name: position for position, name in enumerate(names)}
    genres_of = torch.zeros(count, len(names), dtype=torch.bool)
    cells: list[tuple[int, int]] = []
    for row, title, genres, year in zip(
        index.tolist(), items["title"].tolist(), genre_lists, items["year"].tolist(), strict=True
    ):
        if row == 0:
            continue
        titles[row] = str(title) or titles[row]
        years[row] = int(year)
        cells += [(row, column[name]) for name in genres]
    if cells:
        genres_of[tuple(torch.tensor(cells).T)] = True
    return ItemTable(titles, names, genres_of, years)


def _genres(text: object) -> Iterable[str]:
    """The genres in "A|B"; MovieLens writes '(no genres listed)' and 'unknown' for none."""
    if not isinstance(text, str):
        return []
    return [part for part in (piece.strip() for piece in text.split("|")) if part and part not in NO_GENRE]


NO_GENRE = ("(no genres listed)", "unknown")


def _user_features(users: pd.DataFrame, vocabulary: Vocabulary) -> tuple[Tensor, list[str]]:
    attributes = [name for name in users.columns if name != "user_id"]
    if not attributes or users.empty:
        return torch.zeros(len(vocabulary), 0), []
    index = vocabulary.index_of(users["user_id"].to_numpy())
    known = index > 0
    columns: list[np.ndarray] = []
    names: list[str] = []
    for attribute in attributes:
        values = users[attribute][known]
        if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
            numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
            finite = np.isfinite(numbers)
            middle = numbers[finite].mean() if finite.any() else 0.0
            spread = numbers[finite].std() if finite.any() else 0.0
            columns.append(np.where(finite, (numbers - middle) / (spread or 1.0), 0.0))
            names.append(attribute)
            continue
        text = values.astype(str)
        for value in text.value_counts().index[:CATEGORY_LIMIT]:
            columns.append((text == value).to_numpy(dtype=np.float64))
            names.append(f"{attribute}={value}")
    features = torch.zeros(len(vocabulary), len(names))
    features[torch.from_numpy(index[known]).long()] = torch.from_numpy(np.stack(columns, 1)).float()
    return features, names
