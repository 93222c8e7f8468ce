"""How values lie in memory, where that decides how fast they are read."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def transposed(values: Tensor) -> Tensor:
    """A copy of (rows, columns) as (columns, rows), for embedding_bag, which takes nine times as long on one column
    with a stride that is not 1. `values.T.contiguous()` copies nothing there and leaves the stride as it is."""
    return values.T.clone(memory_format=torch.contiguous_format)


def product(left: Tensor, right: Tensor) -> Tensor:
    """(rows, columns) of left (rows, inner) and right (inner, columns), which is best laid out by columns.

    float32 on a CPU goes to oneDNN. PyTorch's own product takes MKL there, which is slow on AMD's processors: on an
    EPYC with AVX-512, 2 rows took it 1.4 to 2.4 times as long with a matrix of 240 MB, 32 rows 1.7 to 2.1 times (one
    core and two, `experiments.benchmarks.crosses`).
    """
    on_cpu = left.device.type == "cpu" and left.dtype == torch.float32
    if not on_cpu or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return left @ right
    return F.linear(left.to_mkldnn(), right.T).to_dense()
