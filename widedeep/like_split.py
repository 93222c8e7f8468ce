"""The like head with its first layer split: what it takes of an item, of a user and of a pair.

The layer is linear, so W [u; i; p] = Wu u + Wi i + Wp p exactly. Wi i is the same for every query and computed once;
Wu u is computed once for a query; what is left for each pair is two columns.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from widedeep.inputs import Asked, Past
from widedeep.model import WideDeepNet
from widedeep.queries import ScoreQuery
from widedeep.statistics import GENRE_PRIOR, ITEM_COLUMNS, PRIOR, USER_COLUMNS, Baselines

BLOCK = 256  # rows scored at once on a CPU: their activations stay in its cache
BLOCK_ITEMS = 2**16  # whose halves are computed at once
MOST_VALUES = (
    2**29
)  # of the items' halves that are kept, 2 GB of float32; above, they are computed as asked for
PAIR_COLUMNS = 2  # of the user's statistics that are of the item, too, the last ones


class SplitLikeHead:
    """Probabilities as of `WideDeepNet.like_logits`, to rounding.

    The wide side is linear, too, so it is one more unit of the first layer, past which nothing changes it. The
    network's weights are taken as they are when this is made.
    """

    def __init__(self, net: WideDeepNet) -> None:
        self.net = net
        self._base = net.baselines()
        like = net.like
        first, *rest = [layer for layer in like.perceptron if isinstance(layer, nn.Linear)]
        self.units = first.out_features
        scale, shift = net.calibration.tolist()  # of the logit, so of the wide side and of the last layer
        with torch.no_grad():
            self._hidden = [(layer.weight.detach(), layer.bias.detach()) for layer in rest[:-1]]
            self._last = rest[-1].weight[0] * scale
            dim = net.config.embedding_dim
            weight = torch.cat([first.weight, F.pad(like.linear.weight * scale, (2 * dim, 0))])
            offset = (like.linear.bias + rest[-1].bias) * scale + shift
            self._bias = torch.cat([first.bias, offset])
            counts = [dim, dim, USER_COLUMNS - PAIR_COLUMNS, PAIR_COLUMNS, ITEM_COLUMNS]
            parts = weight.split([*counts, net.item_features.shape[1], net.user_features.shape[1]], 1)  # type: ignore[no-untyped-call]
            user, item, means, pair, statistics, item_features, user_features = parts
            wide_alone = torch.zeros(self.units + 1, 1, device=net.device)
            wide_alone[-1] = scale  # takes the biases of user and item
            # The user's own columns first: they are looked up in one table, the means are then put beside them.
            self._of_user = torch.cat([user, wide_alone, user_features, means], 1).T.contiguous()
            self._users = torch.cat([like.user.weight, like.user_bias.weight, net.user_features], 1)
            self._of_item = torch.cat([item, wide_alone, statistics, item_features], 1).T.contiguous()
            self._of_pair = pair.T.contiguous()
            self._table: Tensor | None = None
            if net.item_count * (self.units + 1) <= MOST_VALUES:
                items = torch.arange(net.item_count, device=net.device)
                blocks = items.split(BLOCK_ITEMS)  # type: ignore[no-untyped-call]
                self._table = torch.cat([self._item_half(some) for some in blocks])
        # What a history comes to is worked out on the host: few numbers in many small steps.
        self._shares = net.genre_shares.cpu()
        self._genre_rates = self._base.genre_rates.cpu().numpy()

    @torch.inference_mode()
    def probabilities(self, asked: Sequence[Asked[ScoreQuery]]) -> list[np.ndarray]:
        """(items,) float32 for each query"""
        found = [one.found for one in asked if one.found is not None]
        counts = [len(items) for items in found]
        device = self.net.device
        item_index = torch.from_numpy(np.concatenate(found)).to(device)
        rows = torch.from_numpy(np.repeat(np.arange(len(asked)), counts)).to(device)
        users, by_genre = self._user_half([one.past for one in asked])
        block = BLOCK if device.type == "cpu" else max(1, len(rows))
        logits = [
            self._logits(users, by_genre, rows[start : start + block], item_index[start : start + block])
            for start in range(0, len(rows), block)
        ]
        values = torch.cat(logits).sigmoid_().cpu().numpy() if logits else np.empty(0, np.float32)
        ends = np.cumsum(counts).tolist()
        return [values[end - count : end] for end, count in zip(ends, counts, strict=True)]

    def _logits(self, users: Tensor, by_genre: Tensor, rows: Tensor, item_index: Tensor) -> Tensor:
        """(rows,) calibrated

        users     (queries, units + 1) the user half
        by_genre  (queries, PAIR_COLUMNS, genres) what an item's share of a genre adds to each of the pair's columns
        rows      (rows,) int64 of the queries;  item_index  (rows,) int
        """
        shares = self.net.genre_shares.index_select(0, item_index)
        pairs = by_genre.index_select(0, rows).mul_(shares[:, None]).sum(2)
        half = self._item_half(item_index) if self._table is None else self._table.index_select(0, item_index)
        half.add_(users.index_select(0, rows)).addmm_(pairs, self._of_pair)
        hidden = half[:, :-1].relu_()
        for weight, bias in self._hidden:
            hidden = F.linear(hidden, weight, bias).relu_()
        return torch.addmv(half[:, -1], hidden, self._last)

    def _item_half(self, item_index: Tensor) -> Tensor:
        """(items, units + 1)"""
        net, like = self.net, self.net.like
        known = torch.where(item_index <= net.warm_count, item_index, 0)  # cold items: features alone
        columns = (
            like.item.weight[known],
            like.item_bias.weight[known],
            net.item_statistics[item_index],
            net.item_features[item_index],
        )
        return torch.cat(columns, 1) @ self._of_item

    def _user_half(self, pasts: Sequence[Past]) -> tuple[Tensor, Tensor]:
        """(queries, units + 1) and (queries, PAIR_COLUMNS, genres), as `_logits` takes them"""
        device = self.net.device
        means, by_genre = self._statistics(pasts)
        user_index = torch.tensor([past.user_index for past in pasts], device=device)
        own = self._users.index_select(0, user_index)
        columns = torch.cat([own, torch.from_numpy(means).to(device)], 1)
        return torch.addmm(self._bias, columns, self._of_user), torch.from_numpy(by_genre).to(device)

    def _statistics(self, pasts: Sequence[Past]) -> tuple[np.ndarray, np.ndarray]:
        """(pasts, 3) means and (pasts, PAIR_COLUMNS, genres) coefficients, as of `genre_coefficients`"""
        base = self._base
        items = [past.items for past in pasts]
        liked = [past.items[past.liked] for past in pasts]
        lengths = [len(part) for part in (*items, *liked)]
        ratings = [past.ratings[~np.isnan(past.ratings)] for past in pasts]
        rated = np.array([len(part) for part in ratings], dtype=np.float64)
        sums = np.array([part.sum(dtype=np.float64) for part in ratings])
        entries, likes = np.split(np.array(lengths, dtype=np.float64), 2)
        means = _means(entries, likes, rated, sums, base)
        offsets = np.array([0, *itertools.accumulate(lengths)], dtype=np.int32)
        by_genre = torch.embedding_bag(
            self._shares,
            torch.from_numpy(np.concatenate(items + liked)),
            torch.from_numpy(offsets),
            mode=0,
            include_last_offset=True,
        )[0].numpy()
        of_entries, of_likes = by_genre[: len(pasts)], by_genre[len(pasts) :]
        count = entries[:, None].astype(np.float32)
        affinity = (of_likes - np.float32(base.like_rate) * of_entries) / (of_entries + GENRE_PRIOR)
        exposure = (of_entries - count * self._genre_rates) / (count + PRIOR)
        return means, np.stack([affinity, exposure], 1)


def _means(
    entries: np.ndarray, likes: np.ndarray, rated: np.ndarray, sums: np.ndarray, base: Baselines
) -> np.ndarray:
    """(rows, 3) float32: log count, like rate and mean rating, as `user_statistics` has them, from counts (rows,)."""
    like_rate = (likes - base.like_rate * entries) / (entries + PRIOR)
    mean_rating = (sums - base.mean_rating * rated) / (rated + PRIOR)
    return np.stack([np.log1p(entries) / 5, like_rate, mean_rating], 1).astype(np.float32)
