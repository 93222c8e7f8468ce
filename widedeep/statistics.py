"""What a user did so far, as a few numbers for the like head.

For a training row they come from what the user and the item had before it, never from the row itself or from
later ones: a mean that holds the row's own label gives the label away (Prokhorenkova et al. 2018, arXiv
1706.09516, call it ordered statistics). For a query they come from the whole history.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from widedeep import ordering
from widedeep.histories import Encoded, Histories

BLOCK_ENTRIES = 2**18  # whose columns are held at once
PRIOR = 5.0  # interactions that the overall mean counts for in a mean
GENRE_PRIOR = 2.0  # the same in a mean over one genre
BLOCK = 1 << 14  # rows x genres that are worked on at once, so that they stay in the cache
USER_COLUMNS = 5  # log count, like rate, mean rating, likes and share of the history in the item's genres
ITEM_COLUMNS = 3  # log count, like rate, mean rating


@dataclass(frozen=True)
class Baselines:
    """Means over the training part, what every mean shrinks to.

    genre_rates  (genres,) float32: the mean share of each genre in an interaction
    """

    like_rate: float
    mean_rating: float
    genre_rates: Tensor

    @classmethod
    def of(cls, train: Encoded, shares: Tensor) -> Baselines:
        rated = ~train.rating.isnan()
        return cls(
            like_rate=float(train.liked.float().mean()),
            mean_rating=float(train.rating[rated].double().mean()) if bool(rated.any()) else 0.0,
            genre_rates=_mean_shares(train.item_index, shares),
        )


def _mean_shares(item_index: Tensor, shares: Tensor) -> Tensor:
    counts = torch.bincount(item_index, minlength=len(shares)).float()
    return counts @ shares / max(1, len(item_index))


def genre_shares(genres: Tensor) -> Tensor:
    """(items, genres) bool to float32 that sums to 1 for each item with a genre."""
    shares = genres.float()
    return shares / shares.sum(1, keepdim=True).clamp(min=1)


def user_totals(histories: Histories, shares: Tensor, base: Baselines) -> Tensor:
    """(histories, 4 + 2 genres): entries, likes, ratings, their sum; then by genre the entries and the likes
    above the overall rate."""
    totals = torch.zeros(len(histories), 4 + 2 * shares.shape[1], device=shares.device)
    row_index = histories.row_index
    for start in range(0, len(row_index), BLOCK_ENTRIES):
        some = slice(start, start + BLOCK_ENTRIES)
        liked, rating = histories.liked[some].float(), histories.rating[some]
        by_genre = shares[histories.item_index[some].long()]
        columns = torch.cat(
            [
                torch.stack(
                    [torch.ones_like(liked), liked, (~rating.isnan()).float(), rating.nan_to_num()], 1
                ),
                by_genre,
                by_genre * (liked - base.like_rate)[:, None],
            ],
            1,
        )
        totals.index_add_(0, row_index[some], columns)
    return totals


def user_statistics(totals: Tensor, item_index: Tensor, shares: Tensor, base: Baselines) -> Tensor:
    """(rows, USER_COLUMNS) for pairs: row r is the history behind `totals[r]` and the item `item_index[r]`."""
    genres = shares.shape[1]
    entries, likes = totals[:, 4 : 4 + genres], totals[:, 4 + genres :]
    count = totals[:, :1]
    affinity = likes / (entries + GENRE_PRIOR)
    exposure = (entries - count * base.genre_rates) / (count + PRIOR)
    of_item = shares[item_index.long()]
    columns = [_means(totals[:, :4], base), (affinity * of_item).sum(1, keepdim=True)]
    return torch.cat([*columns, (exposure * of_item).sum(1, keepdim=True)], 1)


def without_own(totals: Tensor, item_index: Tensor, shares: Tensor, base: Baselines) -> Tensor:
    """`totals` (rows, 4 + 2 genres) as they would be without the row's own entry, a like with no rating."""
    own = torch.zeros_like(totals)
    of_item = shares[item_index.long()]
    genres = shares.shape[1]
    own[:, :2] = 1
    own[:, 4 : 4 + genres] = of_item
    own[:, 4 + genres :] = of_item * (1 - base.like_rate)
    return totals - own


def item_statistics(train: Encoded, item_count: int, base: Baselines) -> Tensor:
    """(item_count, ITEM_COLUMNS) from the whole training part."""
    rated = ~train.rating.isnan()
    columns = torch.stack(
        [torch.ones_like(train.rating), train.liked.float(), rated.float(), train.rating.nan_to_num()], 1
    )
    totals = torch.zeros(item_count, 4, device=columns.device)
    totals.index_add_(0, train.item_index.long(), columns)
    return _means(totals, base)


def ordered_statistics(train: Encoded, shares: Tensor, base: Baselines) -> Tensor:
    """(rows, USER_COLUMNS + ITEM_COLUMNS) for the training rows, each from what came before it."""
    columns = []
    for key in (train.user_index, train.item_index):
        order = _by_time(key, train.timestamp)
        before = _Before(key[order].long())
        rated = ~train.rating[order].isnan()
        totals = [
            before.count,
            before(train.liked[order].double()),
            before(rated.double()),
            before(train.rating[order].nan_to_num().double()),
        ]
        means = _means(torch.stack(totals, 1), base)
        if key is train.user_index:
            means = torch.cat([means, _genres_before(before, train, order, shares, base)], 1)
        columns.append(torch.empty_like(means).index_copy_(0, order, means))
    return torch.cat(columns, 1)


def _by_time(key: Tensor, timestamp: Tensor) -> Tensor:
    """(rows,) int64: the rows by key, then time; equal ones in the order that they come in."""
    keys, times = key.cpu().numpy(), timestamp.cpu().numpy()
    same = np.zeros(len(keys), dtype=np.uint8)
    order, _ = ordering.by_user(keys, int(keys.max(initial=0)) + 1, times, same)
    return torch.from_numpy(order).to(key.device)


def _genres_before(before: _Before, train: Encoded, order: Tensor, shares: Tensor, base: Baselines) -> Tensor:
    """(rows, 2) for the rows in their order: by blocks of whole users, as rows x genres would not fit for 100M rows."""
    found = torch.empty(len(order), 2, device=shares.device)
    by_genre, rates = shares.T.contiguous(), base.genre_rates[:, None]
    for start, end in before.blocks(BLOCK):
        rows = order[start:end]
        share = by_genre.index_select(1, train.item_index[rows])
        first, count = before.first[start:end] - start, before.count[start:end]
        entries = _sums_before(share.double(), first)
        likes = _sums_before((train.liked[rows].double() - base.like_rate) * share, first)
        found[start:end, 0] = (share * likes / (entries + GENRE_PRIOR)).sum(0)
        found[start:end, 1] = (share * (entries - count * rates) / (count + PRIOR)).sum(0)
    return found


def _sums_before(values: Tensor, first: Tensor) -> Tensor:
    """float32 sums along the last dimension, from the position `first` of each value's group up to before it."""
    total = values.cumsum(-1) - values
    return (total - total.index_select(-1, first)).float()


class _Before:
    """Sums over the earlier rows of the same group; rows are sorted by group."""

    def __init__(self, group: Tensor) -> None:
        positions = torch.arange(len(group), device=group.device)
        starts = torch.ones_like(group, dtype=torch.bool)
        starts[1:] = group[1:] != group[:-1]
        self.first = torch.where(starts, positions, 0).cummax(0).values
        self.count = (positions - self.first).float()

    def __call__(self, values: Tensor) -> Tensor:
        return _sums_before(values, self.first)

    def blocks(self, size: int) -> Iterator[tuple[int, int]]:
        """(start, end) of consecutive rows: whole groups, of about `size` rows together where they are small."""
        starts = (self.count == 0).nonzero().flatten()
        wanted = torch.arange(0, len(self.first), size, device=starts.device)
        chosen = torch.searchsorted(starts, wanted).unique_consecutive()  # type: ignore[no-untyped-call]
        edges = [*starts[chosen[chosen < len(starts)]].tolist(), len(self.first)]
        return itertools.pairwise(edges)


def _means(totals: Tensor, base: Baselines) -> Tensor:
    """(rows, 3) from (rows, 4): entries, likes, ratings, their sum."""
    count, likes, ratings, rating_sum = totals.unbind(1)
    like_rate = (likes - base.like_rate * count) / (count + PRIOR)
    mean_rating = (rating_sum - base.mean_rating * ratings) / (ratings + PRIOR)
    return torch.stack([count.log1p() / 5, like_rate, mean_rating], 1)
