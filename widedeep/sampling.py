"""Training batches, made on the device that trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from widedeep.distributed import Part, World
from widedeep.histories import Encoded, Histories
from widedeep.statistics import Baselines, ordered_statistics

EDGE = 0.05  # of a history, at its start and its end, where it is not cut


@dataclass(frozen=True)
class PairBatch:
    """Rows for the like head: user_index, item_index, statistics (rows, columns), liked (rows,) float32.

    part  which of the batch's rows they are: one process has not all of them
    """

    user_index: Tensor
    item_index: Tensor
    statistics: Tensor
    liked: Tensor
    part: Part


class PairBatches:
    """The training interactions in random order, each with the statistics of what came before it."""

    def __init__(
        self, train: Encoded, shares: Tensor, base: Baselines, batch_size: int, device: torch.device
    ) -> None:
        self.train = train.to(device)
        on_cpu = replace(base, genre_rates=base.genre_rates.cpu())  # as `train` is
        self.statistics = ordered_statistics(train, shares.cpu(), on_cpu).to(device)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.train) / self.batch_size)

    def __iter__(self) -> Iterator[PairBatch]:
        return map(self.take, self.rows())

    def rows(self) -> Sequence[Tensor]:
        """Which interactions each batch holds, (rows,) int64 in an order drawn anew, all of batch_size but the last."""
        return torch.split(self.order(), self.batch_size)

    def order(self) -> Tensor:
        """(interactions,) int64"""
        return torch.randperm(len(self.train), device=self.train.liked.device)

    def take(self, rows: Tensor) -> PairBatch:
        """This process's part of the batch of the interactions `rows`."""
        part = World.current().part(len(rows))
        rows = rows[part.rows]
        return PairBatch(
            self.train.user_index.index_select(0, rows),
            self.train.item_index.index_select(0, rows),
            self.statistics.index_select(0, rows),
            self.train.liked.index_select(0, rows).float(),
            part,
        )


class PositiveBatches:
    """The training interactions, all of them likes, each batch with random items that the users do not have.

    statistics  (user_index, item_index, own) -> (rows, columns); own (rows,) bool: the user has the item
    """

    def __init__(
        self,
        train: Encoded,
        statistics: Callable[[Tensor, Tensor, Tensor], Tensor],
        negatives: Negatives,
        batch_size: int,
        device: torch.device,
    ) -> None:
        self.train = train.to(device)
        self.statistics = statistics
        self.negatives = negatives
        self.batch_size = batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.train) / self.batch_size)

    def __iter__(self) -> Iterator[PairBatch]:
        world = World.current()
        order = torch.randperm(len(self.train), device=self.train.liked.device)
        for rows in torch.split(order, self.batch_size):
            users, items = self.train.user_index[rows], self.train.item_index[rows]
            other_users, other_items = self.negatives.draw(users)
            own = torch.arange(len(users) + len(other_users), device=users.device) < len(users)
            users, items = torch.cat([users, other_users]), torch.cat([items, other_items])
            part = world.part(len(users))
            users, items, own = users[part.rows], items[part.rows], own[part.rows]
            yield PairBatch(users, items, self.statistics(users, items, own), own.float(), part)


class Negatives:
    """Random items for users who do not have them."""

    def __init__(self, taken: Encoded, warm_count: int, per_positive: int) -> None:
        """taken  pairs never to be drawn, on the device"""
        self.warm_count = warm_count
        self.per_positive = per_positive
        self.codes = torch.unique(self._code(taken.user_index, taken.item_index))

    def draw(self, users: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """users (rows,) -> user_index, item_index of about rows * per_positive pairs."""
        users = users.repeat_interleave(self.per_positive)
        items = torch.randint(
            1, self.warm_count + 1, (len(users),), device=users.device, dtype=torch.int32, generator=generator
        )
        codes = self._code(users, items)
        place = torch.searchsorted(self.codes, codes).clamp(max=len(self.codes) - 1)
        free = self.codes[place] != codes
        return users[free], items[free]

    def _code(self, users: Tensor, items: Tensor) -> Tensor:
        return users.long() * (self.warm_count + 1) + items.long()


@dataclass(frozen=True)
class UserBatch:
    """Users for the ranking head: the part of their histories that it reads, and what of the rest it must find.

    part  which of the batch's users they are: one process has not all of them
    """

    user_index: Tensor
    visible: Histories
    hidden: Histories
    part: Part


class UserBatches:
    """The users with something to find in random order, each history cut in two at a random place.

    likes_only  what is to be found is what was liked, else all
    ordered     cut the history as it is, so that what came later is found from what came before; otherwise what
                is hidden is a random part
    """

    def __init__(
        self, entries: Histories, batch_size: int, likes_only: bool, ordered: bool, device: torch.device
    ) -> None:
        self.entries = entries.to(device)
        wanted = (self.entries.only_liked() if likes_only else self.entries).lengths
        self.users = (wanted > 0).nonzero().squeeze(1)
        self.mean_hidden = max(1.0, int(wanted.sum()) / max(1, len(self.users)) / 2)
        self.batch_size = batch_size
        self.likes_only = likes_only
        self.ordered = ordered

    def __len__(self) -> int:
        return math.ceil(len(self.users) / self.batch_size)

    def __iter__(self) -> Iterator[UserBatch]:
        world = World.current()
        order = self.users[torch.randperm(len(self.users), device=self.users.device)]
        for users, total in zip(torch.split(order, self.batch_size), self._totals(order), strict=True):
            entries = self.entries.take(users, total)
            visible = self._visible(entries)
            wanted = ~visible & entries.liked if self.likes_only else ~visible
            read, hidden, part = entries.where(visible), entries.where(wanted), world.part(len(users))
            if world.size > 1:
                own = torch.arange(part.start, part.stop, device=users.device)
                read, hidden = read.take(own), hidden.take(own)
            yield UserBatch(users[part.rows], read, hidden, part)

    def _totals(self, order: Tensor) -> list[int]:
        """How many entries the histories of each batch have."""
        counts = self.entries.lengths[order]
        missing = -len(counts) % self.batch_size
        found: list[int] = F.pad(counts, (0, missing)).view(-1, self.batch_size).sum(1).tolist()
        return found

    def _visible(self, entries: Histories) -> Tensor:
        """(entries,) bool: the entries before a place drawn for each history; one at least is after it."""
        share = torch.rand(len(entries), device=entries.offsets.device) * (1 - 2 * EDGE) + EDGE
        cut = (share * entries.lengths).floor()[entries.row_index]
        if self.ordered:
            position = (
                torch.arange(len(entries.item_index), device=cut.device)
                - entries.offsets[:-1][entries.row_index]
            )
        else:
            position = _random_positions(entries)
        return position < cut


def _random_positions(histories: Histories) -> Tensor:
    """(entries,) a random order within each history, from 0."""
    rows = histories.row_index
    order = torch.rand(len(rows), device=rows.device).argsort()
    order = order[rows[order].argsort(stable=True)]
    position = torch.empty_like(order)
    position[order] = torch.arange(len(rows), device=rows.device) - histories.offsets[:-1][rows]
    return position
