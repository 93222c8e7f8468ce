"""The wide part: item x item crosses of the history, fitted in closed form."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from widedeep.crossed import TILE, Crossed
from widedeep.histories import Histories
from widedeep.layout import product, transposed

NEIGHBOURS = 256  # crosses of each candidate that are kept, where there are more items than ITEM_LIMIT


class ItemWeights(nn.Module):
    """A weight for every pair (item in the history, candidate item), zero on the diagonal.

    With X the (users, items) matrix of the histories, D = diag(n_u ** -user_exponent) over the users'
    history lengths, G = X'DX and P = (G + l2 I + dropout / (1 - dropout) diag G)^-1, the weights are
    B = -P / diag(P) with the diagonal set to zero. `dropout = user_exponent = 0` is EASE (Steck 2019,
    arXiv 1905.03375); `dropout` is EDLAE's (Steck 2020, NeurIPS).

    Only items that occur in a history have weights. Where those are more than ITEM_LIMIT, only the most frequent
    of them do, and of the weights of each candidate the NEIGHBOURS of the largest size are kept. With fewer users
    than such items the same weights are solved as the product of a sparse (items, users) and a dense (users,
    items) matrix, by the Woodbury identity: exact, and smaller by users / items.
    """

    items: Tensor  # (active,) int64: item_index of each active item
    weights: Tensor  # (active, active) by rows, (users, active) by columns in the product form, or (crosses,)
    offsets: Tensor  # (active + 1,) the sparse form: crosses offsets[i]:offsets[i + 1] are of the item in the history
    candidates: Tensor  # (crosses,) int32 in the sparse form: position of the candidate of each weight
    diagonal: Tensor  # (active,) what the product form has to take off for an item's own presence
    left_offsets: Tensor  # (users + 1,) the product form's sparse factor, by user
    left_items: Tensor  # (entries,) int32: position among the active items
    left_values: Tensor  # (entries,)

    def __init__(self, item_count: int) -> None:
        super().__init__()
        self.item_count = item_count
        self.register_buffer("items", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("weights", torch.zeros(0, 0))
        self.register_buffer("offsets", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("candidates", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("diagonal", torch.zeros(0))
        self.register_buffer("left_offsets", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("left_items", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("left_values", torch.zeros(0))
        self._tiled: tuple[Tensor, list[Tensor]] | None = None  # weights, and the tiles made of them

    @property
    def is_product(self) -> bool:
        return len(self.left_offsets) > 1

    @property
    def is_sparse(self) -> bool:
        return len(self.offsets) > 1

    @classmethod
    def fit(
        cls,
        histories: Histories,
        item_count: int,
        l2: float,
        dropout: float = 0.0,
        user_exponent: float = 0.0,
    ) -> ItemWeights:
        """Fit on all entries of `histories` (pass `only_liked()` to fit on likes).

        l2  ridge, in interactions
        """
        return cls.solve(Crossed.of(histories, item_count, user_exponent), l2, dropout)

    @classmethod
    def solve(cls, crossed: Crossed, l2: float, dropout: float = 0.0) -> ItemWeights:
        """As `fit`, from what the same histories and exponent gave before."""
        wide = cls(crossed.item_count).to(crossed.items.device)
        wide.items = crossed.items
        if len(crossed.local) == 0:
            return wide
        noise = dropout / (1 - dropout)
        if crossed.gram is None:
            wide._solve_product(crossed, l2, noise)
        else:
            wide._solve_dense(crossed.gram.clone(), l2, noise)
        if crossed.left_out:
            wide._keep_largest()
        return wide

    def _solve_dense(self, gram: Tensor, l2: float, noise: float) -> None:
        diagonal = gram.diagonal()
        diagonal += l2 + noise * diagonal
        inverse = torch.cholesky_inverse(
            torch.linalg.cholesky(gram)
        ).T  # symmetric; the solver's is by columns
        weights = inverse / -inverse.diagonal()
        weights.fill_diagonal_(0)
        self.weights = weights

    def _solve_product(self, crossed: Crossed, l2: float, noise: float) -> None:
        local, user_weight = crossed.local, crossed.user_weight
        scaled = local.multi_hot(len(self.items)) * user_weight[:, None].sqrt()  # X~ = D^1/2 X
        ridge = l2 + noise * scaled.square().sum(0)  # (active,)
        inner = (scaled / ridge) @ scaled.T
        inner.diagonal().add_(1)
        right = torch.cholesky_solve(scaled, torch.linalg.cholesky(inner))  # M X~
        own = (scaled * right).sum(0) / ridge
        right /= 1 - own
        self.weights = right
        self.diagonal = own / (1 - own)
        self.left_offsets = local.offsets
        self.left_items = local.item_index
        self.left_values = user_weight.sqrt()[local.row_index] / ridge[local.item_index.long()]

    def _keep_largest(self) -> None:
        """Turn into the sparse form."""
        size = len(self.items)
        everything = torch.arange(size, device=self.weights.device)
        index, weight = [], []
        for columns in everything.split(max(1, 2**26 // size)):  # type: ignore[no-untyped-call]
            crosses = self._crosses(everything, columns).T
            kept = crosses.abs().topk(min(NEIGHBOURS, size), dim=1).indices
            index.append(kept)
            weight.append(crosses.gather(1, kept))
        empty = ItemWeights(self.item_count).to(everything.device)
        self.diagonal, self.left_offsets = empty.diagonal, empty.left_offsets
        self.left_items, self.left_values = empty.left_items, empty.left_values
        of_history = torch.cat(index).flatten()
        order = of_history.argsort(stable=True)
        counts = torch.bincount(of_history, minlength=size)
        self.offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        self.candidates = (order // min(NEIGHBOURS, size)).int()
        self.weights = torch.cat(weight).flatten()[order]

    def scores(self, histories: Histories, values: Tensor | None = None) -> Tensor:
        """(histories, item_count): the sum of the crosses of each history with each item.

        values  (entries,) the weight of each entry of the histories; 1 if not given
        """
        out = torch.zeros(len(histories), self.item_count, device=self.weights.device)
        if not len(self.items):
            return out
        place = self.positions()[histories.item_index.long()]
        crossed = place >= 0
        kept = histories.where(crossed)
        place, values = place[crossed], None if values is None else values[crossed]
        dense = not self.is_product and not self.is_sparse
        if dense and out.device.type == "cpu" and len(place) > len(self.items):
            for start, tile in zip(range(0, self.item_count, TILE), self._tiles(), strict=True):
                out[:, start : start + TILE] = _sums(place, tile, kept.offsets, values)
        else:
            out[:, self.items] = self.active_scores(place, kept.offsets, values)
        return out

    def active_scores(self, place: Tensor, offsets: Tensor, values: Tensor | None = None) -> Tensor:
        """(histories, active): as `scores`, of the active items alone.

        place    (entries,) int64: positions among the active items
        offsets  (histories + 1,) int64: history h is the entries offsets[h]:offsets[h + 1]
        values   (entries,) the weight of each entry; 1 if not given
        """
        if not self.is_product and not self.is_sparse:
            # The rows of the history's items alone: a product with all items takes 3 to 400 times as long.
            return _sums(place, self.weights, offsets, values)
        count = len(offsets) - 1
        rows = torch.arange(count, device=place.device)
        row = rows.repeat_interleave(offsets.diff(), output_size=len(place))
        if self.is_sparse:
            return self._sparse_scores(row, place, values, count)
        dense = self.weights.new_zeros(count, len(self.items))
        dense[row, place] = 1.0 if values is None else values
        left = self.left_items.long()
        by_user = torch.cat(  # (users, histories): sums over each user's entries
            [
                _sums(left, transposed(part), self.left_offsets, self.left_values)
                for part in dense.split(TILE)  # type: ignore[no-untyped-call]
            ],
            1,
        )
        return product(by_user.T, self.weights).addcmul_(dense, self.diagonal, value=-1)

    def _tiles(self) -> list[Tensor]:
        """The dense weights' columns, (active, TILE) each, of the item_index in order; zero for an item without.

        A row of all columns lies in pages of its own, which embedding_bag visits again for every TILE of them: many
        histories are summed up to a hundred times as fast from tiles, which take as much memory again.
        """
        if self._tiled is None or self._tiled[0] is not self.weights:
            tiles = []
            position = self.positions()
            for columns in position.split(TILE):  # type: ignore[no-untyped-call]
                tile = self.weights.new_zeros(len(self.items), len(columns))
                tile[:, columns >= 0] = self.weights[:, columns[columns >= 0]]
                tiles.append(tile)
            self._tiled = self.weights, tiles
        return self._tiled[1]

    def _sparse_scores(self, row: Tensor, place: Tensor, values: Tensor | None, rows: int) -> Tensor:
        """(rows, active): each entry's crosses added to its row.  row, place, values  (entries,)"""
        size = len(self.items)
        out = self.weights.new_zeros(rows * size)
        for entries in torch.arange(len(place), device=place.device).split(1024):  # type: ignore[no-untyped-call]
            entry, cross = self._of_entries(place[entries])
            weight = self.weights[cross]
            if values is not None:
                weight = weight * values[entries][entry]
            out.index_add_(0, row[entries][entry] * size + self.candidates[cross], weight)
        return out.view(rows, size)

    def _of_entries(self, place: Tensor) -> tuple[Tensor, Tensor]:
        """(found,) each: which of `place` (entries,), positions among the active items, and which of its crosses."""
        counts = self.offsets.diff()[place]
        ends = counts.cumsum(0)
        entry = torch.arange(len(place), device=place.device).repeat_interleave(counts)
        within = torch.arange(len(entry), device=place.device) - (ends - counts)[entry]
        return entry, self.offsets[place][entry] + within

    def contributions(self, history: Histories, item_index: Tensor, values: Tensor | None = None) -> Tensor:
        """(entries, items): what each entry of a history adds to the score of each item, exactly.

        Summed over the entries they are the history's `scores`. It takes memory for entries x users and
        entries x items, never for items².

        history     a single one, in which no item is twice
        item_index  (items,) int
        values      (entries,) the weight of each entry; 1 if not given
        """
        position = self.positions()
        rows, columns = position[history.item_index.long()], position[item_index.long()]
        out = torch.zeros(len(rows), len(columns), device=self.weights.device)
        entries, targets = (rows >= 0).nonzero().squeeze(1), (columns >= 0).nonzero().squeeze(1)
        if len(entries) and len(targets):
            out[entries[:, None], targets] = self._crosses(rows[entries], columns[targets])
        return out if values is None else out * values[:, None]

    def positions(self) -> Tensor:
        """(item_count,) int64: where an item is among the active ones, -1 where it is not."""
        position = self.items.new_full((self.item_count,), -1)
        position[self.items] = torch.arange(len(self.items), device=position.device)
        return position

    def _crosses(self, rows: Tensor, columns: Tensor) -> Tensor:
        """(rows, columns) of the items x items weights, at positions among the active items."""
        if self.is_sparse:
            wanted, again = torch.unique(columns, return_inverse=True)
            place = rows.new_full((len(self.items),), -1)
            place[wanted] = torch.arange(len(wanted), device=rows.device)
            entry, cross = self._of_entries(rows)
            column = place[self.candidates[cross].long()]
            out = self.weights.new_zeros(len(rows), len(wanted))
            out[entry[column >= 0], column[column >= 0]] = self.weights[cross[column >= 0]]
            return out[:, again]
        if not self.is_product:
            return self.weights[rows[:, None], columns]
        place = rows.new_full((len(self.items),), -1)
        place[rows] = torch.arange(len(rows), device=rows.device)
        found = place[self.left_items.long()]
        wanted = found >= 0
        lengths = self.left_offsets.diff()
        user = torch.arange(len(lengths), device=rows.device).repeat_interleave(lengths)
        left = self.weights.new_zeros(len(rows), len(lengths))
        left[found[wanted], user[wanted]] = self.left_values[wanted]
        return left @ self.weights[:, columns] - self.diagonal[rows, None] * (rows[:, None] == columns)

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:  # type: ignore[no-untyped-def]
        """Take the buffers' sizes from the file: they depend on the data, not on the configuration.

        In whatever order the weights were written, they are laid out as they are read.
        """
        for name, buffer in list(self._buffers.items()):
            stored = state_dict.get(prefix + name)
            if isinstance(stored, Tensor) and buffer is not None:
                setattr(self, name, torch.empty(stored.shape, dtype=stored.dtype, device=buffer.device))
        if self.is_product:
            self.weights = torch.empty_like(self.weights.T, memory_format=torch.contiguous_format).T
        super()._load_from_state_dict(state_dict, prefix, *args)


def _sums(index: Tensor, rows: Tensor, offsets: Tensor, values: Tensor | None) -> Tensor:
    """(bags, columns): the sum of the `rows` (any, columns) that each bag of `index` names, weighed by `values`."""
    return torch.embedding_bag(
        rows, index, offsets, mode=0, per_sample_weights=values, include_last_offset=True
    )[0]
