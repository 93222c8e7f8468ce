"""Dropout with the cheap mask does what nn.Dropout does."""

import pytest
import torch

from widedeep.dropout import Dropout


@pytest.mark.parametrize("p", [0.2, 0.5, 0.95])
def test_the_share_of_zeros_is_p_at_every_place_and_the_mean_is_kept(p):
    torch.manual_seed(0)
    out = Dropout(p)(torch.ones(4000, 101))
    zeros = out == 0
    dropped = round(p * 256) / 256
    assert abs(dropped - p) <= 1 / 512
    error = 5 * (p * (1 - p) / 4000) ** 0.5  # five standard errors of a column's share
    assert (zeros.float().mean(0) - dropped).abs().max() < error
    assert out[~zeros].unique().tolist() == [pytest.approx(1 / (1 - dropped))]
    assert float(out.mean()) == pytest.approx(1, abs=0.02 if p < 0.9 else 0.05)


def test_neighbours_fall_independently():
    torch.manual_seed(1)
    zeros = (Dropout(0.5)(torch.ones(200_000, 16)) == 0).float()
    correlation = torch.corrcoef(zeros.T) - torch.eye(16)
    assert correlation.abs().max() < 6 / 200_000**0.5


def test_the_gradient_passes_where_the_value_did():
    values = torch.randn(30, 7, requires_grad=True)
    out = Dropout(0.25)(values)
    out.sum().backward()
    assert torch.equal(values.grad == 0, out == 0)
    assert torch.allclose(values.grad[out != 0], torch.tensor(1 / 0.75))


def test_nothing_falls_in_evaluation_nor_at_zero():
    values = torch.randn(5, 5)
    assert torch.equal(Dropout(0.5).eval()(values), values)
    assert torch.equal(Dropout(0.0)(values), values)


def test_the_same_seed_gives_the_same_mask():
    values = torch.ones(50, 50)
    torch.manual_seed(3)
    first = Dropout(0.5)(values)
    torch.manual_seed(3)
    assert torch.equal(Dropout(0.5)(values), first)
    assert not torch.equal(Dropout(0.5)(values), first)


def test_low_precision_stays_low_precision():
    assert Dropout(0.5)(torch.ones(8, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16
