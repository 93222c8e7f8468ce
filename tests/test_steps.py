"""The steps of a training: nothing in them waits for the device, and captured ones come to the same weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from boards import small_config
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from widedeep import Recommender, like_objective
from widedeep.captured import CapturedSteps, steps_of
from widedeep.config import Config
from widedeep.datasets import Dataset
from widedeep.distributed import World
from widedeep.errors import ConfigError
from widedeep.features import FeatureProcessor
from widedeep.histories import Encoded, Histories
from widedeep.interactions import Interactions
from widedeep.like_objective import LikeObjective
from widedeep.model import WideDeepNet
from widedeep.objective import Objective
from widedeep.ranking_objective import RankingObjective
from widedeep.split import Split
from widedeep.steps import Steps
from widedeep.table import Table
from widedeep.training import FitResult, Step

CPU = torch.device("cpu")
aten = torch.ops.aten
WAITS = {aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default}


class Waits(TorchDispatchMode):
    """Counts the operators that a GPU would be waited for: those whose answer the host needs, and copies to it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        masks = func is aten.index.Tensor and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if func in WAITS or masks or (func is aten._to_copy.default and (kwargs or {}).get("device")):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def objectives(
    config: Config, board: Dataset, rows: Interactions, device: torch.device = CPU
) -> tuple[LikeObjective, RankingObjective]:
    torch.manual_seed(0)
    processor = FeatureProcessor.fit(rows, board.items, board.users, 4.0)
    train: Encoded = processor.encode(rows)
    net = WideDeepNet.for_data(config.model, processor, train).to(device)
    histories = Histories.from_encoded(train, processor.user_count).to(device)
    like = LikeObjective(config, net, train, histories, None, device)
    return like, RankingObjective(config, net, histories, None, device)


def steps(config: Config, objective: Objective, device: torch.device = CPU) -> Steps:
    scaler = torch.amp.GradScaler(device.type, enabled=False)
    objective.learned.train()
    return steps_of(config, objective, objective.optimizers(), scaler, device, torch.float32)


def an_epoch(found: Steps) -> int:
    taken = 0
    for batch in found.batches():
        found.take(batch, 1e-3)
        taken += 1
    return taken


@pytest.mark.parametrize("graphs", [False, True])
def test_no_step_of_the_like_head_waits(board: Dataset, board_split: Split, graphs: bool) -> None:
    config = small_config(cuda_graphs=graphs)
    like, _ = objectives(config, board, board_split.train)
    found = steps(config, like)
    assert isinstance(found, CapturedSteps) == graphs
    with Waits() as waits:
        assert an_epoch(found) == len(like.batches) > 2
    assert waits.found == []


def test_a_step_of_the_ranking_waits_for_two_counts(board: Dataset, board_split: Split) -> None:
    """How much of the histories is read and how much is to be found, and once an epoch how long they are."""
    config = small_config(user_batch_size=16)
    _, ranking = objectives(config, board, board_split.train)
    found = steps(config, ranking)
    with Waits() as waits:
        count = an_epoch(found)
    assert count == len(ranking.batches) > 2
    assert waits.found.count("aten.nonzero.default") == len(waits.found) == 2 * count


def run(config: Config, board: Dataset, parts: Split, **options: Any) -> FitResult:
    return Recommender.fit(config, board, parts.train, parts.validation, **options)[1]


def same(first: FitResult, second: FitResult) -> bool:
    one, other = first.net.state_dict(), second.net.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of every batch that captured steps were given."""
    taken: list[int] = []
    take: Callable[..., None] = CapturedSteps.take

    def watch(self: CapturedSteps, batch: torch.Tensor, rate: float) -> None:
        taken.append(len(batch))
        take(self, batch, rate)

    monkeypatch.setattr(CapturedSteps, "take", watch)
    return taken


@pytest.mark.parametrize(
    "settings", [{}, {"precision": "bf16"}, {"batch_size": 1037}, {"batch_size": 10_000}], ids=str
)
def test_captured_steps_come_to_the_same_weights(
    board: Dataset, board_split: Split, captures: list[int], settings: dict[str, Any]
) -> None:
    """Whole batches and smaller last ones; one smaller batch alone."""
    few = {"ranking_epochs": 1, "epochs": 4, **settings}
    plain = run(small_config(**few), board, board_split)
    assert captures == []
    captured = run(small_config(**few, cuda_graphs=True), board, board_split)
    assert len(captures) >= 4
    assert same(plain, captured)
    assert plain.curves == captured.curves


def test_captured_steps_resume_to_the_same_weights(
    board: Dataset, board_split: Split, tmp_path: Path, captures: list[int]
) -> None:
    settings = {"ranking_epochs": 1, "epochs": 6, "patience": 6, "cuda_graphs": True}
    whole = run(small_config(**settings), board, board_split)
    path = str(tmp_path / "state.ckpt")

    def interrupt(step: Step) -> None:
        if (step.head, step.epoch, step.done) == ("like", 4, 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(small_config(checkpoint=path, **settings), board, board_split, progress=interrupt)
    captures.clear()
    resumed = run(small_config(checkpoint=path, resume=True, **settings), board, board_split)
    assert same(whole, resumed)
    batches = captures.index(min(captures)) + 1
    assert batches < len(captures) <= 6 * batches


def test_what_cannot_be_captured_is_taken_step_by_step(
    board: Dataset, board_split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ranking, whose batches differ in size; random items; and rows alone, which only a CPU trains."""
    config = small_config(cuda_graphs=True)
    like, ranking = objectives(config, board, board_split.train)
    assert type(steps(config, ranking)) is Steps
    assert type(steps(config, like)) is CapturedSteps
    likes = board_split.train.take(board_split.train.liked(4.0))
    assert type(steps(config, objectives(config, board, likes)[0])) is Steps
    monkeypatch.setattr(like_objective, "MANY_ROWS", 1)
    assert type(steps(config, objectives(config, board, board_split.train)[0])) is Steps


def test_what_contradicts_a_capture_is_refused(
    board: Dataset, board_split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="cuda_graphs needs precision"):
        small_config(cuda_graphs=True, precision="fp16")
    config = small_config(cuda_graphs=True)
    like, _ = objectives(config, board, board_split.train)
    monkeypatch.setattr(World, "_joined", World(0, 2))
    with pytest.raises(ConfigError, match="of one process, and 2 train together"):
        steps(config, like)
    assert type(steps(dataclasses.replace(config, train=small_config().train), like)) is Steps


def cuda() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return torch.device("cuda")


@pytest.mark.gpu
def test_on_cuda_a_tables_gradient_is_that_of_an_embedding() -> None:
    device = cuda()
    torch.manual_seed(0)
    table, embedding = Table(50, 7).to(device), nn.Embedding(50, 7).to(device)
    embedding.load_state_dict(table.state_dict())
    index = torch.randint(50, (5000,), device=device, dtype=torch.int32)
    scale = torch.randn(5000, 7, device=device)
    for module in (table, embedding):
        (module(index) * scale).sum().backward()
    torch.testing.assert_close(table.weight.grad, embedding.weight.grad, rtol=1e-4, atol=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("graphs", [False, True])
def test_on_cuda_no_step_waits(board: Dataset, board_split: Split, graphs: bool) -> None:
    """From the second epoch on: warming up and capturing may wait."""
    device = cuda()
    config = small_config(cuda_graphs=graphs)
    like, _ = objectives(config, board, board_split.train, device)
    found = steps(config, like, device)
    an_epoch(found)
    torch.cuda.set_sync_debug_mode("error")
    try:
        an_epoch(found)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert isinstance(found, CapturedSteps) == graphs
    if isinstance(found, CapturedSteps):
        assert found.graph is not None


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_on_cuda_captured_steps_come_to_what_plain_ones_do(
    board: Dataset, board_split: Split, precision: str
) -> None:
    """Dropout and hidden users are the same, too; sums in another order make the rest of the difference."""
    cuda()
    settings = {"device": "cuda", "precision": precision, "ranking_epochs": 1, "epochs": 3}
    plain, again, captured = (
        run(small_config(**settings, cuda_graphs=graphs), board, board_split)
        for graphs in (False, False, True)
    )
    one, two, other = (result.net.like.item.weight for result in (plain, again, captured))
    unavoidable = float((one - two).abs().max())
    assert float((one - other).abs().max()) <= 3 * unavoidable + 2e-3
    losses = [
        [row["train_loss"] for row in result.curves if row["head"] == "like"] for result in (plain, captured)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("graphs", [False, True])
def test_on_cuda_the_quality_is_the_cpus(board: Dataset, board_split: Split, graphs: bool) -> None:
    cuda()
    cpu = run(small_config(), board, board_split)
    gpu = run(small_config(device="cuda", cuda_graphs=graphs), board, board_split)
    assert gpu.validation["auc"] == pytest.approx(cpu.validation["auc"], abs=0.02)
    assert gpu.validation["ndcg_at_10"] == pytest.approx(cpu.validation["ndcg_at_10"], abs=0.05)
