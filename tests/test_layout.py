"""The layout that embedding_bag is fast on."""

from __future__ import annotations

import pytest
import torch

from widedeep.layout import transposed


@pytest.mark.parametrize("rows", [1, 3])
def test_a_transposed_copy_lies_row_by_row(rows: int) -> None:
    values = torch.arange(rows * 5.0).view(rows, 5)
    found = transposed(values)
    assert torch.equal(found, values.T)
    assert found.stride() == (rows, 1)
