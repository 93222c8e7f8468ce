"""Every test user's list: who is asked, what is kept, what the list ought to hold.

Users are asked for in blocks, so memory does not grow with their number, and a ranker is given the users and
their histories only: nothing that it is asked depends on the test part's items or labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from widedeep import metrics
from widedeep.errors import WideDeepError
from widedeep.histories import Encoded, Histories
from widedeep.topk import first_rank, top_k

DEPTH = 20  # places of each list that are kept
BLOCK_SCORES = 2**24  # users x items scored at once: 64 MB of float32
BLOCK_USERS = 8192  # at most, however small the catalogue
CACHED_SCORES = (
    2**19
)  # ranked at once on a CPU: 2 MB of float32, which its cache holds from one step to the next

Progress = Callable[[int, int], None]  # (users done, users there are)


class Ranker(Protocol):
    """Anything that orders the catalogue for a user."""

    @property
    def name(self) -> str: ...

    def rank_scores(self, user_index: Tensor, histories: Histories) -> Tensor:
        """The higher, the earlier; -inf for what must not be recommended.

        user_index  (users,) int, 0 = unknown
        histories   row i is the history of user_index[i], empty where nothing is known
        Returns     (users, item_count) float without NaN; column 0, the unknown item, is ignored
        """
        ...


@dataclass(frozen=True)
class Targets:
    """What the lists of the test users ought to hold, on the CPU. Known to the evaluation, never to a ranker.

    key             (users,) int64, ascending: every user of the test part, with or without a relevant item
    user_index      (users,) int64
    row, item       (entries,) int64: the relevant items that have an index, sorted by user and item
    relevant_count  (users,) int64: all relevant items, those without an index too
    """

    key: Tensor
    user_index: Tensor
    row: Tensor
    item: Tensor
    relevant_count: Tensor

    @classmethod
    def of(cls, test: Encoded, test_users: Tensor) -> Targets:
        """test_users  (rows,) int: one key per distinct user, known or not (see `user_keys`)"""
        test, test_users = test.to("cpu"), test_users.cpu().long()
        key, inverse = torch.unique(test_users, return_inverse=True)
        user_index = torch.zeros_like(key).scatter_(0, inverse, test.user_index.long())
        if not torch.equal(user_index[inverse], test.user_index.long()):
            raise ValueError("test_users gives one key to users of different user_index")
        width = int(test.item_index.max()) + 1 if len(test) else 1
        row, item = inverse[test.liked], test.item_index[test.liked].long()
        pair: Tensor = torch.unique((row * width + item)[item > 0])
        count = torch.bincount(pair // width, minlength=len(key))
        count += torch.bincount(row[item == 0], minlength=len(key))
        return cls(key, user_index, pair // width, pair % width, count)


@dataclass(frozen=True)
class Rankings:
    """The first places of each user's list, and how they fared; on the CPU.

    top         (users, <= DEPTH) int64 item_index, best first, 0 where the candidates ran out
    hits        (users, <= DEPTH) bool: relevant
    first_rank  (users,) int64 rank of the best relevant item in the whole list, 0 if none is in it
    """

    top: Tensor
    hits: Tensor
    first_rank: Tensor


def user_keys(user_ids: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """One key per distinct user id, known to the model or not.

    user_ids  (rows,) int or str
    Returns   keys (rows,) int64 from 0, and the ids by key
    """
    ids, keys = np.unique(user_ids, return_inverse=True)
    return torch.from_numpy(keys.astype(np.int64)), ids


def rank_users(
    ranker: Ranker,
    targets: Targets,
    histories: Histories,
    *,
    item_count: int,
    warm_count: int,
    progress: Progress | None = None,
) -> Rankings:
    """Ask for every user's list of the items 1 to warm_count, those of the history left out.

    histories  row u is the history of user_index u
    Raises     WideDeepError: NaN scores
    """
    parts = []
    done = 0
    for scores, row, item in _scored(ranker, targets, histories, item_count, warm_count):
        top, hits = _best(scores, row, item, ranker.name, DEPTH)
        parts.append((top.cpu(), hits.cpu(), first_rank(scores, row, item).cpu()))
        done += len(scores)
        if progress:
            progress(done, len(targets.key))
    return Rankings(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def list_ndcg(
    ranker: Ranker, targets: Targets, histories: Histories, *, item_count: int, warm_count: int, k: int = 10
) -> Tensor:
    """(users,) NDCG@k alone, for choosing among models on the validation part; NaN without relevant items.

    As from `rank_users`, at a part of its cost.
    """
    hits = list_hits(ranker, targets, histories, item_count=item_count, warm_count=warm_count, depth=k)
    return metrics.ndcg_at_k(hits, targets.relevant_count.cpu(), k)


def list_hits(
    ranker: Ranker,
    targets: Targets,
    histories: Histories,
    *,
    item_count: int,
    warm_count: int,
    depth: int,
) -> Tensor:
    """(users, <= depth) bool on the CPU: which places of each user's list are relevant."""
    blocks = _scored(ranker, targets, histories, item_count, warm_count)
    return torch.cat([_best(scores, row, item, ranker.name, depth)[1].cpu() for scores, row, item in blocks])


def _scored(
    ranker: Ranker, targets: Targets, histories: Histories, item_count: int, warm_count: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Of some users each, in order: the candidates' scores, and row and item of the relevant candidates.

    The ranker is asked for a block of users at once, and what it gives is handed on a few users at a time.
    """
    users = len(targets.key)
    block = max(1, min(BLOCK_USERS, BLOCK_SCORES // item_count))
    for start in range(0, users, block):
        user_index = targets.user_index[start : start + block].to(histories.offsets.device)
        seen = histories.take(user_index)
        given = _asked(ranker, user_index, seen, item_count)
        some = max(1, min(block, CACHED_SCORES // item_count)) if given.device.type == "cpu" else block
        starts = torch.arange(start, start + len(given) + some, some).clamp(max=start + len(given))
        edges = torch.searchsorted(targets.row, starts)
        for number, first in enumerate(range(0, len(given), some)):
            scores = given[first : first + some, : warm_count + 1].float().clone()
            scores[:, 0] = -torch.inf
            rows = torch.arange(first, first + len(scores), device=seen.offsets.device)
            known = seen.take(rows)
            known = known.where(known.item_index <= warm_count).to(scores.device)
            scores[known.row_index, known.item_index.long()] = -torch.inf
            entries = slice(int(edges[number]), int(edges[number + 1]))
            row = (targets.row[entries] - (start + first)).to(scores.device)
            item = targets.item[entries].to(scores.device)
            warm = item <= warm_count
            yield scores, row[warm], item[warm]


def _asked(ranker: Ranker, user_index: Tensor, seen: Histories, item_count: int) -> Tensor:
    """(users, item_count) as the ranker gives them"""
    with torch.no_grad():
        scores = ranker.rank_scores(user_index, seen)
    if scores.shape != (len(user_index), item_count):
        raise ValueError(
            f"{ranker.name} gave scores of shape {tuple(scores.shape)}, "
            f"expected {(len(user_index), item_count)}"
        )
    return scores


def _best(scores: Tensor, row: Tensor, item: Tensor, name: str, depth: int) -> tuple[Tensor, Tensor]:
    """The top and the hits of a block of users; row, item (entries,): their relevant candidates."""
    values, top = top_k(scores, depth)
    failed = int(values.isnan().any(1).sum())  # NaN would be the best of all
    if failed:
        raise WideDeepError(
            f"{name} scored {failed} of {len(scores)} users with NaN. "
            "Its training diverged: lower the learning rate, or look for NaN in its weights."
        )
    width = scores.shape[1]
    code = top + torch.arange(len(top), device=top.device)[:, None] * width
    listed = values > -torch.inf
    return top.where(listed, 0), torch.isin(code, row * width + item) & listed


def mean_ndcg(
    ranker: Ranker, targets: Targets, histories: Histories, *, item_count: int, warm_count: int, k: int = 10
) -> float:
    """The mean of `list_ndcg`; NaN without relevant items."""
    found = list_ndcg(ranker, targets, histories, item_count=item_count, warm_count=warm_count, k=k)
    return float(found.nanmean())
