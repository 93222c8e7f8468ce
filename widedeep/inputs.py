"""From queries to our own indices: each is checked and its ids are looked up once, on the host."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from widedeep.checks import check_ranking, check_scoring, check_similar
from widedeep.errors import ColdStartError, UnknownItemError
from widedeep.features import FeatureProcessor
from widedeep.histories import Histories
from widedeep.queries import ColdStart, Query, ScoreQuery, SimilarQuery

AnyQuery = TypeVar("AnyQuery", Query, ScoreQuery, SimilarQuery)


@dataclass(frozen=True, slots=True)
class Past:
    """What a query's user did, oldest first, no item twice.

    items  (entries,) int32 item_index      liked  (entries,) bool      ratings  (entries,) float32, NaN: none
    """

    user_index: int
    items: np.ndarray
    liked: np.ndarray
    ratings: np.ndarray


@dataclass(frozen=True, slots=True)
class Asked(Generic[AnyQuery]):
    """A query that can be answered.

    past        of a Query or a ScoreQuery
    found       (ids,) int32 item_index of its candidates, 0 unknown, or of the items that it asks about
    cold_start  why the answer is not personal
    """

    query: AnyQuery
    past: Past
    found: np.ndarray | None = None
    cold_start: ColdStart | None = None


NOBODY = Past(0, np.empty(0, np.int32), np.empty(0, bool), np.empty(0, np.float32))


class QueryInputs:
    """What a network is given for queries."""

    def __init__(self, processor: FeatureProcessor, histories: Histories, device: torch.device) -> None:
        """histories  of all users by user_index"""
        self.processor = processor
        self.histories = histories.to(device)
        self.device = device
        # A few entries are picked for each query: on the host that is a slice, on a device many small steps.
        columns = (histories.offsets, histories.item_index, histories.liked, histories.rating)
        self._offsets, self._items, self._liked, self._ratings = (column.cpu().numpy() for column in columns)
        table = processor.item_table
        self._genres = table.genres.to(device)
        self._years = table.years.to(device)
        self._genre_column = {name: column for column, name in enumerate(table.genre_names)}

    def ask_ranking(self, query: Query, *, likes_only: bool) -> Asked[Query]:
        """likes_only  entries that were not liked make no personal ranking

        Raises  InvalidQueryError, UnknownItemError, ColdStartError: the query cannot be answered
        """
        check_ranking(query, self.processor.item_table.genre_names)
        found = self._candidates(query)
        past = self._past(query)
        read = past.liked.any() if likes_only else len(past.items)
        return Asked(query, past, found, _personal(query, past, bool(read)))

    def ask_scoring(self, query: ScoreQuery) -> Asked[ScoreQuery]:
        """Raises  InvalidQueryError, UnknownItemError, ColdStartError: the query cannot be answered"""
        check_scoring(query)
        found = self._all_known(query.item_ids)
        past = self._past(query)
        return Asked(query, past, found, _personal(query, past, bool(len(past.items))))

    def ask_similar(self, query: SimilarQuery) -> Asked[SimilarQuery]:
        """As if its items were a history.  Raises  InvalidQueryError, UnknownItemError: it cannot be answered"""
        check_similar(query, self.processor.item_table.genre_names)
        items = np.unique(self._all_known(query.item_ids))
        past = Past(0, items, np.ones(len(items), bool), np.full(len(items), np.nan, np.float32))
        return Asked(query, past, self._candidates(query))

    def _candidates(self, query: Query | SimilarQuery) -> np.ndarray | None:
        if query.candidates is None:
            return None
        found = self.processor.items.index_of(query.candidates)
        if not found.any():
            raise UnknownItemError("candidates", f"none of the {len(query.candidates)} items is known")
        return found

    def _all_known(self, item_ids: Sequence[Hashable]) -> np.ndarray:
        found = self.processor.items.index_of(item_ids)
        if not found.all():
            unknown = np.flatnonzero(found == 0).tolist()
            some = ", ".join(repr(item_ids[position]) for position in unknown[:5])
            more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
            raise UnknownItemError(f"item_ids[{unknown[0]}]", f"unknown items: {some}{more}")
        return found

    def _past(self, query: Query | ScoreQuery) -> Past:
        """The history in the query, else the stored one."""
        user = self.processor.users.find(query.user_id)
        if query.history is None or not len(query.history):
            rows = slice(self._offsets[user], self._offsets[user + 1])
            return Past(user, self._items[rows], self._liked[rows], self._ratings[rows])
        found = self.processor.items.index_of(query.history)
        ratings = np.full(len(found), np.nan, dtype=np.float32)
        if query.history_ratings is not None and len(query.history_ratings):
            ratings[:] = query.history_ratings
        keep = _last_of_each(found)
        ratings = ratings[keep]
        liked = np.isnan(ratings) | (ratings >= self.processor.like_threshold)
        return Past(user, found[keep], liked, ratings)

    def users_and_histories(self, queries: Sequence[Query | ScoreQuery]) -> tuple[Tensor, Histories]:
        """(queries,) user_index, and a history each: the one in the query, else the stored one."""
        return self.tensors([self._past(query) for query in queries])

    def tensors(self, pasts: Sequence[Past]) -> tuple[Tensor, Histories]:
        """(pasts,) user_index and their histories, on the device."""
        users = torch.tensor([past.user_index for past in pasts], device=self.device)
        lengths = [len(past.items) for past in pasts]
        columns = (
            np.concatenate([getattr(past, name) for past in pasts]) for name in ("items", "ratings", "liked")
        )
        offsets = torch.from_numpy(np.cumsum([0, *lengths]))
        return users, Histories(offsets, *map(torch.from_numpy, columns)).to(self.device)

    def is_filtered(self, asked: Asked[Any]) -> bool:
        """Whether not exactly the items with interactions may come, whatever it excludes."""
        query = asked.query
        return (
            asked.found is not None
            or len(query.genres) > 0
            or query.year_from is not None
            or query.year_to is not None
            or bool(query.include_cold_items)
        )

    def filtered(self, asked: Asked[Any]) -> Tensor | None:
        """(item_count,) bool: the items that its candidates and filters allow; None: all with interactions.

        Neither what it excludes nor what is in its history is looked at.
        """
        if not self.is_filtered(asked):
            return None
        query = asked.query
        allowed = torch.zeros(self.processor.item_count, dtype=torch.bool, device=self.device)
        if asked.found is None:
            last = self.processor.item_count - 1 if query.include_cold_items else self.processor.warm_count
            allowed[1 : last + 1] = True
        else:
            allowed[torch.from_numpy(asked.found).long().to(self.device)] = True
            allowed[0] = False
        if len(query.genres):
            allowed &= self._genres[:, [self._genre_column[name] for name in query.genres]].any(1)
        if query.year_from is not None:
            allowed &= (self._years >= query.year_from) & (self._years > 0)
        if query.year_to is not None:
            allowed &= (self._years <= query.year_to) & (self._years > 0)
        return allowed

    def reaches_cold(self, asked: Asked[Any]) -> bool:
        """Whether items without interactions may come."""
        if asked.found is None:
            return bool(asked.query.include_cold_items)
        return bool((asked.found > self.processor.warm_count).any())

    def left_out(self, asked: Asked[Any], *, seen: bool) -> list[np.ndarray]:
        """Arrays (any,) of item_index: what the query excludes, and what is in its history if `seen`."""
        parts = [asked.past.items] if seen else []
        if len(asked.query.exclude_items):
            parts.append(self.processor.items.index_of(asked.query.exclude_items))
        return parts

    def unknown_candidates(self, asked: Asked[Any]) -> list[Any]:
        if asked.found is None or asked.found.all():
            return []
        return [asked.query.candidates[position] for position in np.flatnonzero(asked.found == 0).tolist()]


def _last_of_each(found: np.ndarray) -> np.ndarray:
    """Positions of the known items, in order; of an item that comes again the last: no user has it twice."""
    _, from_end = np.unique(found[::-1], return_index=True)
    positions = np.sort(len(found) - 1 - from_end)
    return positions[found[positions] > 0]


def _personal(query: Query | ScoreQuery, past: Past, read: bool) -> ColdStart | None:
    """Why an answer is not personal, None if it is.  read  the history holds something to go by

    Raises  ColdStartError: it is not, and the query asks for an error then
    """
    if read:
        return None
    given = query.history is not None and len(query.history) > 0
    if given:
        reason = ColdStart.NO_LIKES if len(past.items) else ColdStart.UNKNOWN_HISTORY
    elif query.user_id is None or query.user_id == "":
        reason = ColdStart.NO_USER
    else:
        reason = ColdStart.NO_LIKES if past.user_index else ColdStart.UNKNOWN_USER
    if query.fallback == "error":
        raise ColdStartError("history" if given else "user_id", reason)
    return reason
