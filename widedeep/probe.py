"""The probe: a few questions and the answers that a model gave when it was saved.

Whoever loads the model asks them again: other answers mean that the file, the device or a library is not what the
model was made with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from widedeep.errors import BundleError
from widedeep.queries import Query, ScoreQuery

if TYPE_CHECKING:
    from widedeep.recommender import Recommender

USERS = 4
HISTORY_LENGTH = 5
DEPTH = 20
TOLERANCE = 1e-4  # of a standardised ranking score, and of a probability: devices add in orders of their own


@dataclass(frozen=True)
class Probe:
    """Questions: the lists of some known users, and of somebody with nothing but a history. By our own indices.

    users          (users,) int32 user_index
    history        (entries,) int32 item_index
    items          (users + 1, <= DEPTH) int32: the best of the items with interactions, seen ones too, best first
    scores         (users + 1, <= DEPTH) float32: their ranking scores
    probabilities  (users + 1, <= DEPTH) float32: how probable a like of each of them is
    """

    users: Tensor
    history: Tensor
    items: Tensor
    scores: Tensor
    probabilities: Tensor

    @classmethod
    def of(cls, recommender: Recommender) -> Probe:
        """What `recommender` answers now."""
        processor = recommender.processor
        users = _spread(processor.user_count - 1, USERS)
        history = _spread(processor.warm_count, HISTORY_LENGTH)
        items, scores = _lists(recommender, users, history)
        return cls(users, history, items, scores, _probabilities(recommender, users, history, items))

    @classmethod
    def from_plain(cls, stored: Mapping[str, Tensor], user_count: int, warm_count: int) -> Probe:
        """What `to_plain` gave.  Raises  ValueError, TypeError, LookupError: it does not fit the model"""
        probe = cls(**{name: torch.as_tensor(stored[name]) for name in cls.__dataclass_fields__})
        shape = probe.items.shape
        fits = (
            probe.users.dim() == probe.history.dim() == 1
            and shape == probe.scores.shape == probe.probabilities.shape
            and probe.items.dim() == 2
            and len(probe.items) == len(probe.users) + 1
            and shape[1] > 0
            and _within(probe.users, user_count - 1)
            and _within(probe.history, warm_count)
            and _within(probe.items, warm_count)
        )
        if not fits:
            raise ValueError(f"its probe of shape {tuple(shape)} does not fit its users and items")
        return probe

    def to_plain(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def difference(self, recommender: Recommender) -> float:
        """By how much `recommender` answers otherwise: the largest difference of a score or a probability.

        Of items with equal scores any may be listed; an item that is no longer listed differs by what it would
        take to bring it back.
        """
        items, scores = _lists(recommender, self.users, self.history)
        if items.shape != self.items.shape:
            return float("inf")
        found = _probabilities(recommender, self.users, self.history, self.items)
        differences = [scores - self.scores, found - self.probabilities]
        for row, stored in enumerate(self.items.tolist()):
            now = dict(zip(items[row].tolist(), scores[row].tolist(), strict=True))
            lowest = float(scores[row, -1])
            again = torch.tensor([now.get(item, lowest) for item in stored])
            differences.append(again - self.scores[row])
        return float(torch.cat([part.flatten() for part in differences]).abs().max())  # NaN stays NaN


def check(recommender: Recommender) -> float | None:
    """Ask the questions that came with the model.

    Returns  the largest difference, None where the file has no probe
    Raises   BundleError: it is more than TOLERANCE
    """
    if recommender.probe is None:
        return None
    difference = recommender.probe.difference(recommender)
    if not difference <= TOLERANCE:  # NaN is more
        raise BundleError(
            f"The model answers otherwise on {recommender.device} than where it was saved: scores differ by up to "
            f"{difference:.3g}, allowed is {TOLERANCE:g}. The file or a library has changed: save the model again."
        )
    return difference


def _lists(recommender: Recommender, users: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
    """(users + 1, <= DEPTH) item_index int32, and the scores."""
    user_ids, history_ids = _ids(recommender, users, history)
    asked: list[dict[str, Any]] = [*({"user_id": user} for user in user_ids), {"history": history_ids}]
    answers = recommender.rank([Query(k=DEPTH, exclude_seen=False, **query) for query in asked])
    items = [recommender.processor.items.index_of(answer.item_ids) for answer in answers]
    scores = [np.asarray(answer.scores, dtype=np.float32) for answer in answers]
    return torch.from_numpy(np.stack(items)), torch.from_numpy(np.stack(scores))


def _probabilities(recommender: Recommender, users: Tensor, history: Tensor, items: Tensor) -> Tensor:
    """(users + 1, <= DEPTH) float32"""
    user_ids, history_ids = _ids(recommender, users, history)
    names = [recommender.processor.items.ids_of(row.numpy()) for row in items]
    queries = [ScoreQuery(user, row) for user, row in zip(user_ids, names, strict=False)]
    queries.append(ScoreQuery(None, names[-1], history_ids))
    return torch.from_numpy(np.stack([found.probabilities for found in recommender.score_batch(queries)]))


def _ids(recommender: Recommender, users: Tensor, history: Tensor) -> tuple[list[Any], list[Any]]:
    processor = recommender.processor
    return processor.users.ids_of(users.numpy()), processor.items.ids_of(history.numpy())


def _spread(last: int, count: int) -> Tensor:
    """(<= count,) int32 evenly from 1 to `last`."""
    return torch.from_numpy(np.unique(np.linspace(1, last, count).astype(np.int32)))


def _within(index: Tensor, last: int) -> bool:
    return index.dtype == torch.int32 and bool(((index >= 1) & (index <= last)).all())
