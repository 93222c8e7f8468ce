"""The fused loss against plain autograd, and row-wise Adagrad against its definition."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from boards import small_config
from torch import Tensor, nn

from widedeep import fused, like_objective
from widedeep.config import Config, ModelConfig
from widedeep.datasets import Dataset
from widedeep.distributed import Part
from widedeep.errors import ConfigError
from widedeep.fused import PerceptronLoss
from widedeep.like_head import LikeHead
from widedeep.rowwise import RowwiseAdagrad
from widedeep.split import Split
from widedeep.training import FitResult, Step


def arguments(rows: int) -> tuple[LikeHead, Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    head = LikeHead(ModelConfig(embedding_dim=4, hidden=(32, 16), dropout=0.5), 20, 30, 5)
    features, liked = torch.randn(rows, 5), (torch.rand(rows) < 0.5).float()
    return head, torch.randint(20, (rows,)), torch.randint(30, (rows,)), features, liked


def gradients(head: LikeHead) -> dict[str, Tensor]:
    return {
        name: parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad
        for name, parameter in head.named_parameters()
        if parameter.grad is not None
    }


@pytest.mark.parametrize("rows", [1, 7, 150])
def test_the_loss_and_the_gradients_are_those_of_autograd(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "BLOCK", 64)  # several blocks, the last one short
    head, *columns = arguments(rows)
    head.dropout = 0.0
    head.eval()
    plain = head.loss(*columns, Part(0, rows, rows))
    plain.backward()  # type: ignore[no-untyped-call]
    expected = gradients(head)
    head.zero_grad()
    head.by_rows = True
    loss = head.loss(*columns, Part(0, rows, rows))
    loss.backward()  # type: ignore[no-untyped-call]
    assert head.user.weight.grad is not None
    assert head.user.weight.grad.is_sparse
    found = gradients(head)
    assert float(loss.detach()) == pytest.approx(float(plain.detach()), rel=1e-5)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_each_block_drops_units_of_its_own_and_the_kept_ones_count_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Against a perceptron whose hidden layers are multiplied by the masks that the units kept make."""
    monkeypatch.setattr(fused, "BLOCK", 20)
    head, users, items, features, liked = arguments(50)
    layers = list(head.perceptron.parameters())
    user, item = head.user(users).detach(), head.item(items).detach()
    torch.manual_seed(1)
    loss = PerceptronLoss.apply(0.5, Part(0, 50, 50), liked, torch.zeros(50), features, user, item, *layers)  # type: ignore[no-untyped-call]
    found = torch.autograd.grad(loss, layers)
    torch.manual_seed(1)
    perceptron = fused._Perceptron(layers, 0.5)
    masks: dict[int, list[Tensor]] = {1: [], 2: []}
    for block in (20, 20, 10):
        perceptron.draw()
        for number, of_blocks in masks.items():
            kept = perceptron.orders[number][perceptron.windows[number]]
            units = perceptron.units[number]
            assert len(kept.unique()) == units / 2
            of_blocks.append(torch.zeros(units).index_fill_(0, kept, 2.0).expand(block, units))
    assert len({tuple(mask[0].tolist()) for mask in masks[1]}) == 3
    hidden = torch.cat([user, item, features], 1)
    for number, of_blocks in masks.items():
        weight, bias = layers[2 * number - 2 : 2 * number]
        hidden = F.linear(hidden, weight, bias).relu() * torch.cat(of_blocks)
    logits = F.linear(hidden, layers[4], layers[5]).squeeze(1)
    expected_loss = F.binary_cross_entropy_with_logits(logits, liked)
    torch.testing.assert_close(loss, expected_loss)
    for one, other in zip(found, torch.autograd.grad(expected_loss, layers), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("units", "dropout", "kept"), [(256, 0.2, 208), (16, 0.5, 8), (4, 0.5, 2), (3, 0.95, 1)]
)
def test_units_are_kept_in_whole_registers_and_all_as_often(units: int, dropout: float, kept: int) -> None:
    torch.manual_seed(0)
    layers = [torch.zeros(units, 1), torch.zeros(units), torch.zeros(1, units), torch.zeros(1)]
    counts = torch.zeros(units)
    for _ in range(500):
        perceptron = fused._Perceptron(layers, dropout)
        perceptron.draw()
        found = perceptron.orders[1][perceptron.windows[1]]
        assert len(found.unique()) == kept
        counts[found] += 1
    share = kept / units
    error = 5 * (share * (1 - share) / 500) ** 0.5
    assert (counts / 500 - share).abs().max() < error
    assert torch.equal(fused._Perceptron(layers, 0.0).orders[1], torch.arange(units))


def test_row_wise_adagrad_by_hand() -> None:
    """Row 2 is looked up twice: two gradients go into its accumulator before both move it."""
    table = nn.Parameter(torch.ones(4, 2))
    optimizer = RowwiseAdagrad([table], lr=0.5)
    for _ in range(2):
        optimizer.zero_grad()
        rows = F.embedding(torch.tensor([2, 0, 2]), table, sparse=True)
        (rows * torch.tensor([[1.0, 3.0], [2.0, 2.0], [0.0, 2.0]])).sum().backward()
        optimizer.step()
    squares = optimizer.state[table]["squares"]
    assert squares.tolist() == [8.0, 0.0, 14.0, 0.0]
    first, second = 1 / 7**0.5, 1 / 14**0.5
    moved = 1 - 0.5 * torch.tensor([1.0, 5.0]) * (first + second)
    torch.testing.assert_close(table[2].detach(), moved)
    torch.testing.assert_close(table[0].detach(), torch.full((2,), 1 - 0.5 * 2 * (0.5 + 1 / 8**0.5)))
    assert table[[1, 3]].tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_decay_is_of_the_rows_looked_up_and_of_the_mean_over_lookups() -> None:
    table = nn.Parameter(torch.tensor([[2.0], [5.0]]))
    optimizer = RowwiseAdagrad([table], lr=0.1, weight_decay=0.3)
    (F.embedding(torch.tensor([0, 0, 0]), table, sparse=True) * 0).sum().backward()
    optimizer.step()
    assert optimizer.state[table]["squares"].tolist() == [pytest.approx(3 * (0.3 / 3 * 2) ** 2), 0.0]
    assert float(table[0].detach()) < 2.0
    assert float(table[1].detach()) == 5.0


def run(config: Config, board: Dataset, parts: Split, **options: object) -> FitResult:
    from widedeep import Recommender

    _, result = Recommender.fit(config, board, parts.train, parts.validation, **options)  # type: ignore[arg-type]
    return result


def test_by_rows_learns_and_resumes_to_the_same_weights(
    board: Dataset, board_split: Split, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(like_objective, "MANY_ROWS", 1)
    settings = {"ranking_epochs": 1, "epochs": 12, "patience": 12, "embedding_learning_rate": 0.2}
    whole = run(small_config(**settings), board, board_split)
    assert whole.net.like.by_rows
    assert whole.validation["auc"] > 0.95
    path = str(tmp_path / "state.ckpt")

    def interrupt(step: Step) -> None:
        if (step.head, step.epoch, step.done) == ("like", 5, 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(small_config(checkpoint=path, **settings), board, board_split, progress=interrupt)
    resumed = run(small_config(checkpoint=path, resume=True, **settings), board, board_split)
    assert resumed.curves == whole.curves
    for name, value in whole.net.state_dict().items():
        assert torch.equal(value, resumed.net.state_dict()[name]), name


def test_a_checkpoint_of_other_optimizers_is_refused(
    board: Dataset, board_split: Split, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"ranking_epochs": 1, "epochs": 1, "checkpoint": str(tmp_path / "state.ckpt")}
    run(small_config(**settings), board, board_split)
    monkeypatch.setattr(like_objective, "MANY_ROWS", 1)
    with pytest.raises(ConfigError, match="another kind of device"):
        run(small_config(resume=True, **settings), board, board_split)


def test_the_batch_is_larger_on_much_data_unless_it_is_given() -> None:
    assert like_objective.batch_size(None, by_rows=False) == like_objective.SMALL_BATCH
    assert like_objective.batch_size(None, by_rows=True) == like_objective.LARGE_BATCH
    assert like_objective.batch_size(7, by_rows=True) == 7
    assert dataclasses.replace(small_config().train, batch_size=None).batch_size is None
