"""Gradients of several processes, summed: of tables only the rows that were looked up travel.

An embedding table has a gradient in the few rows that a batch reads. Summing the whole table over the processes
costs as much as the table is large; sending the rows costs as much as the batch is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from widedeep.distributed import World


@dataclass(frozen=True)
class LookedUp:
    """Rows of tables that a batch has read.

    tables  of one height, each (height, any): their gradients are zero in all other rows
    rows    (any,) int, repeated or not
    """

    tables: Sequence[Tensor]
    rows: Tensor


@torch.no_grad()
def sum_gradients(world: World, parameters: Iterable[Tensor], looked_up: Sequence[LookedUp]) -> None:
    """Replace every gradient by the sum over the processes, the same bits in all of them.

    A gradient that is sparse (torch.sparse_coo) stays so, and its own rows are what is sent; of a dense one those
    of `looked_up`, unless summing the whole table sends less.
    """
    if world.size == 1:
        return
    kept = [parameter for parameter in parameters if parameter.grad is not None]
    sparse = [parameter for parameter in kept if parameter.grad is not None and parameter.grad.is_sparse]
    sparse_ids = {id(parameter) for parameter in sparse}
    pieces = [
        Piece.of_dense(tables, found.rows)
        for found in looked_up
        if (tables := [table for table in found.tables if id(table) not in sparse_ids])
    ]
    pieces += [Piece.of_sparse(parameter) for parameter in sparse]
    sent = _exchange(world, pieces) if pieces else set()
    whole = [parameter.grad for parameter in kept if parameter.grad is not None and id(parameter) not in sent]
    if whole:
        flat = world.sum(torch.cat([gradient.reshape(-1) for gradient in whole]))
        for gradient, total in zip(
            whole, torch.split(flat, [gradient.numel() for gradient in whole]), strict=True
        ):
            gradient.copy_(total.view_as(gradient))


@dataclass(frozen=True)
class Piece:
    """The rows of tables that one process has gradients for.

    rows    (n,) int64; of a dense gradient none twice, of a sparse one every lookup, as its optimizer wants them
    values  (n, columns of all the tables)
    """

    tables: list[Tensor]
    rows: Tensor
    values: Tensor
    sparse: bool

    @classmethod
    def of_dense(cls, tables: list[Tensor], looked_up: Tensor) -> Piece:
        read = torch.zeros(len(tables[0]), dtype=torch.bool, device=tables[0].device)
        read[looked_up.long()] = True
        rows = read.nonzero().squeeze(1)
        values = [_gradient(table).index_select(0, rows) for table in tables]
        return cls(tables, rows, torch.cat(values, 1) if len(values) > 1 else values[0], False)

    @classmethod
    def of_sparse(cls, table: Tensor) -> Piece:
        gradient = _gradient(table)
        return cls([table], gradient._indices()[0], gradient._values(), True)

    @property
    def columns(self) -> int:
        return self.values.shape[1]

    def take_over(self, parts: list[tuple[Tensor, Tensor]]) -> None:
        """Set the gradients to the sum of the rows and values of all processes, added in the order of ranks."""
        if self.sparse:
            table = self.tables[0]
            rows = torch.cat([rows for rows, _ in parts])[None]
            values = torch.cat([values for _, values in parts])
            table.grad = torch.sparse_coo_tensor(rows, values, table.shape)
            return
        start = 0
        for table in self.tables:
            gradient, columns = _gradient(table), slice(start, start + table.shape[1])
            gradient[self.rows] = 0
            for rows, values in parts:
                gradient.index_add_(0, rows, values[:, columns])
            start = columns.stop


def _exchange(world: World, pieces: list[Piece]) -> set[int]:
    """Send the rows, all pieces at once, and sum them; ids of the tables whose sum is made by this."""
    own = torch.tensor([len(piece.rows) for piece in pieces], device=pieces[0].rows.device)
    counts = world.gather(own).tolist()
    longest = [max(of_piece) for of_piece in zip(*counts, strict=True)]
    chosen = [
        number
        for number, piece in enumerate(pieces)
        if piece.sparse
        or world.size * longest[number] * (piece.columns + 1)
        < 2 * sum(table.numel() for table in piece.tables)
    ]
    if not chosen:
        return set()
    sizes = [longest[number] * (pieces[number].columns + 1) for number in chosen]
    message = pieces[0].values.new_zeros(sum(sizes))
    for number, room in zip(chosen, torch.split(message, sizes), strict=True):
        piece, most = pieces[number], longest[number]
        room[: len(piece.rows)] = piece.rows.int().view(torch.float32)  # the bits, not the number
        room[most : most + piece.values.numel()] = piece.values.reshape(-1)
    received = [torch.split(part, sizes) for part in world.gather(message)]
    for place, number in enumerate(chosen):
        piece, most = pieces[number], longest[number]
        parts = []
        for rank in range(world.size):
            room, count = received[rank][place], counts[rank][number]
            rows = room[:count].view(torch.int32).long()
            parts.append((rows, room[most : most + count * piece.columns].view(count, piece.columns)))
        piece.take_over(parts)
    return {id(table) for number in chosen for table in pieces[number].tables}


def _gradient(table: Tensor) -> Tensor:
    assert table.grad is not None
    return table.grad
