"""The layout that embedding_bag is fast on, and products."""

from __future__ import annotations

import pytest
import torch

from widedeep.layout import product, transposed


@pytest.mark.parametrize("rows", [1, 3])
def test_a_transposed_copy_lies_row_by_row(rows: int) -> None:
    values = torch.arange(rows * 5.0).view(rows, 5)
    found = transposed(values)
    assert torch.equal(found, values.T)
    assert found.stride() == (rows, 1)


@pytest.mark.parametrize("rows", [0, 1, 2, 33])
@pytest.mark.parametrize("by_columns", [True, False])
def test_a_product_is_exact_to_single_precision(rows: int, by_columns: bool) -> None:
    generator = torch.Generator().manual_seed(rows)
    left, right = torch.randn(500, rows, generator=generator).T, torch.randn(500, 70, generator=generator)
    if by_columns:
        right = right.T.contiguous().T
    found, wanted = product(left, right), left.double() @ right.double()
    assert found.is_contiguous()
    assert found.shape == (rows, 70)
    assert torch.allclose(found.double(), wanted, rtol=1e-5, atol=1e-4)
    assert torch.equal(product(left.bfloat16(), right.bfloat16()), left.bfloat16() @ right.bfloat16())
