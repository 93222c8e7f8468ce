"""From queries to tensors: ids to indices, a history for each query, and the items that may answer it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from widedeep.errors import UnknownItemError
from widedeep.features import FeatureProcessor
from widedeep.histories import Histories
from widedeep.queries import ColdStart, Query, ScoreQuery, check_history, check_ranking


class QueryInputs:
    """What a network is given for queries; everything that it takes to read them stays on the device."""

    def __init__(self, processor: FeatureProcessor, histories: Histories, device: torch.device) -> None:
        """histories  of all users by user_index"""
        self.processor = processor
        self.histories = histories.to(device)
        self.device = device
        table = processor.item_table
        self._genres = table.genres.to(device)
        self._years = table.years.to(device)
        self._genre_column = {name: column for column, name in enumerate(table.genre_names)}

    def check(self, query: Query) -> None:
        """Raises  InvalidQueryError, UnknownItemError: the query cannot be answered"""
        check_ranking(query, self.processor.item_table.genre_names)
        if query.candidates is not None and not self.processor.items.index_of(query.candidates).any():
            raise UnknownItemError("candidates", f"none of the {len(query.candidates)} items is known")

    def check_score(self, query: ScoreQuery) -> None:
        """Raises  InvalidQueryError, UnknownItemError: the query cannot be answered"""
        check_history(query.history, query.history_ratings)
        unknown = np.flatnonzero(self.processor.items.index_of(query.item_ids) == 0).tolist()
        if unknown:
            some = ", ".join(repr(query.item_ids[position]) for position in unknown[:5])
            more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
            raise UnknownItemError(f"item_ids[{unknown[0]}]", f"unknown items: {some}{more}")

    def users_and_histories(self, queries: Sequence[Query | ScoreQuery]) -> tuple[Tensor, Histories]:
        """(queries,) user_index, and a history each: the one in the query, else the stored one."""
        users = [self.processor.users.find(query.user_id) for query in queries]
        user_index = torch.tensor(users, dtype=torch.int64, device=self.device)
        given = [bool(query.history) for query in queries]
        if not any(given):
            return user_index, self.histories.take(user_index)
        stored_rows = [0 if own else user for own, user in zip(given, users, strict=True)]
        stored = self.histories.take(torch.tensor(stored_rows, device=self.device))
        both = Histories.concatenate([stored, self._given(queries)])
        positions = [row + len(queries) if own else row for row, own in enumerate(given)]
        return user_index, both.take(torch.tensor(positions, device=self.device))

    def _given(self, queries: Sequence[Query | ScoreQuery]) -> Histories:
        items, liked, ratings = [], [], []
        for query in queries:
            found = self.processor.items.index_of(query.history or ())
            rating = np.full(len(found), np.nan, dtype=np.float32)
            if query.history_ratings is not None and len(query.history_ratings):
                rating[:] = query.history_ratings
            like = np.isnan(rating) | (rating >= self.processor.like_threshold)
            keep = _last_of_each(found)
            items.append(found[keep].tolist())
            liked.append(like[keep].tolist())
            ratings.append(rating[keep].tolist())
        return Histories.from_lists(items, liked, ratings).to(self.device)

    def allowed(self, queries: Sequence[Query], histories: Histories) -> tuple[Tensor, list[list[Any]]]:
        """(queries, item_count) bool: the items that may answer each query; and its unknown candidates."""
        item_count = self.processor.item_count
        allowed = torch.zeros(len(queries), item_count, dtype=torch.bool, device=self.device)
        unknown = [self._allow(allowed[row], query) for row, query in enumerate(queries)]
        hide = [row for row, query in enumerate(queries) if query.exclude_seen]
        rows = torch.tensor(hide, dtype=torch.int64, device=self.device)
        seen = histories.take(rows)
        allowed[rows[seen.row_index], seen.item_index.long()] = False
        return allowed, unknown

    def _allow(self, allowed: Tensor, query: Query) -> list[Any]:
        """Mark one query's items in `allowed` (item_count,); its unknown candidates."""
        unknown: list[Any] = []
        if query.candidates is None:
            last = self.processor.item_count - 1 if query.include_cold_items else self.processor.warm_count
            allowed[1 : last + 1] = True
        else:
            found = self.processor.items.index_of(query.candidates)
            unknown = [query.candidates[position] for position in np.flatnonzero(found == 0).tolist()]
            allowed[torch.from_numpy(found).long().to(self.device)] = True
            allowed[0] = False
        if query.genres:
            allowed &= self._genres[:, [self._genre_column[name] for name in query.genres]].any(1)
        if query.year_from is not None:
            allowed &= (self._years >= query.year_from) & (self._years > 0)
        if query.year_to is not None:
            allowed &= (self._years <= query.year_to) & (self._years > 0)
        if len(query.exclude_items):
            excluded = self.processor.items.index_of(query.exclude_items)
            allowed[torch.from_numpy(excluded).long().to(self.device)] = False
        return unknown


def _last_of_each(found: np.ndarray) -> np.ndarray:
    """Positions of the known items, in order; of an item that comes again the last: no user has it twice."""
    _, from_end = np.unique(found[::-1], return_index=True)
    positions = np.sort(len(found) - 1 - from_end)
    return positions[found[positions] > 0]


def cold_start(query: Query | ScoreQuery, user_index: int, entries: int, likes: int) -> ColdStart | None:
    """Why an answer is not personal, None if it is.

    entries, likes  how many known items the query's history holds, and how many of them were liked
    """
    if likes:
        return None
    if query.history:
        return ColdStart.NO_LIKES if entries else ColdStart.UNKNOWN_HISTORY
    if query.user_id is None or query.user_id == "":
        return ColdStart.NO_USER
    return ColdStart.NO_LIKES if user_index else ColdStart.UNKNOWN_USER
