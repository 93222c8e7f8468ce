"""Recommendations for some users of the test part, beside what they liked before and what they turned out to like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from widedeep.interactions import Interactions
from widedeep.queries import Query
from widedeep.recommender import Recommender
from widedeep.report import Report

USERS = 6
LENGTH = 10


@dataclass(frozen=True)
class Item:
    """fate  what became of it in the test part: liked, not liked, or empty: not rated there"""

    item_id: Any
    title: str
    genres: str
    fate: str = ""


@dataclass(frozen=True)
class Example:
    """A user of the test part.

    length       of the history
    likes        relevant test items
    ndcg         NDCG@10
    liked        what was liked last, the latest first
    recommended  the first LENGTH, of a model that has not seen the test part
    missed       what was liked in the test part and is not recommended, at most LENGTH
    why          the list is not personal; empty where it is
    """

    user: Any
    length: int
    likes: int
    ndcg: float
    liked: list[Item]
    recommended: list[Item]
    missed: list[Item]
    why: str = ""

    @property
    def hits(self) -> int:
        return sum(item.fate == "liked" for item in self.recommended)


def examples(model: Recommender, test: Interactions, report: Report, count: int = USERS) -> list[Example]:
    """Of users with a relevant test item, from the shortest history to the longest.

    model   that was trained on what comes before `test`, and that `report` is of
    """
    users = users_of(report, count)
    answers = model.rank([Query(user_id=user, k=LENGTH) for user in users])
    rows = pd.Series(test.user_id).isin(users).to_numpy()
    user_of, item_of = test.user_id[rows], test.item_id[rows]
    liked = test.liked(model.processor.like_threshold)[rows]
    found = []
    for user, answer in zip(users, answers, strict=True):
        own = user_of == user
        fates = {
            item: "liked" if good else "not liked"
            for item, good in zip(item_of[own].tolist(), liked[own].tolist(), strict=True)
        }
        known = report.per_user.loc[user]
        missed = [
            item for item, fate in fates.items() if fate == "liked" and item not in set(answer.item_ids)
        ]
        found.append(
            Example(
                user=user,
                length=int(known["history"]),
                likes=int(known["relevant"]),
                ndcg=float(known["ndcg_at_10"]),
                liked=_items(model, _liked_last(model, user)),
                recommended=_items(model, answer.item_ids, fates),
                missed=_items(model, missed[:LENGTH], fates),
                why="" if answer.cold_start is None else str(answer.cold_start),
            )
        )
    return found


def users_of(report: Report, count: int) -> list[Any]:
    """So many users at equal steps through all of them by the length of their history."""
    ordered = report.per_user.sort_values("history", kind="stable").index
    places = np.unique(np.linspace(0, len(ordered) - 1, min(count, len(ordered))).round().astype(int))
    found: list[Any] = ordered[places].tolist()
    return found


def _liked_last(model: Recommender, user: Any) -> list[Any]:
    index = model.processor.users.find(user)
    history = model.histories.take(torch.tensor([index], device=model.device)).only_liked()
    return model.processor.items.ids_of(history.item_index.cpu().numpy()[::-1][:LENGTH])


def _items(model: Recommender, ids: Sequence[Any], fates: dict[Any, str] | None = None) -> list[Item]:
    titles, genres = model.item_titles(ids), model.item_genres(ids)
    return [
        Item(item, title or str(item), kinds.replace("|", ", "), (fates or {}).get(item, ""))
        for item, title, kinds in zip(ids, titles, genres, strict=True)
    ]


def table(found: Sequence[Example]) -> pd.DataFrame:
    """One row an item: the user, which of the three lists, its place there, and the item.

    missed  liked in the test part and not recommended
    """
    return pd.DataFrame(
        [
            {
                "user": str(one.user),
                "list": name,
                "place": place,
                "title": item.title,
                "in the test part": item.fate,
                "genres": item.genres,
                "item": str(item.item_id),
                "history": one.length,
            }
            for one in found
            for name, items in (
                ("recommended", one.recommended),
                ("liked before", one.liked),
                ("missed", one.missed),
            )
            for place, item in enumerate(items, 1)
        ]
    )
