"""fit(): the wide side in closed form, then each head by gradient, with early stopping.

The heads are trained one after the other, each by an objective of its own: they share the network's tables,
not a loss. With a validation part a fit also makes the choices that only held-out data can make (epochs, the
deep side's share, calibration) and returns them as `Chosen`; a later fit on more data takes them over.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from widedeep.captured import steps_of
from widedeep.checkpoint import Checkpoint
from widedeep.choices import DEEP_SHARES, FACTOR_SHARES, choose_calibration, choose_shares, level
from widedeep.closed_form import ClosedForm, solve
from widedeep.config import Config, ModelConfig
from widedeep.device import resolve_device, resolve_precision
from widedeep.distributed import World
from widedeep.errors import EmptyDataError, TrainingError
from widedeep.features import FeatureProcessor
from widedeep.histories import Encoded, Histories
from widedeep.like_objective import LikeObjective
from widedeep.mixture import Mixture, ranking_targets
from widedeep.model import WideDeepNet
from widedeep.objective import Objective
from widedeep.ranking_objective import RankingObjective
from widedeep.trend import choose_half_life, popularity


@dataclass(frozen=True)
class Chosen:
    """What validation decided."""

    ranking_epochs: int
    like_epochs: int
    deep_share: float
    factor_share: float
    closed_form: ClosedForm
    calibration: tuple[float, float] = (1.0, 0.0)
    popularity_half_life: float = 0.0  # in the timestamps' units; 0 for none

    def to_dict(self) -> dict[str, Any]:
        return {
            **dataclasses.asdict(self),
            "closed_form": self.closed_form.to_dict(),
            "calibration": list(self.calibration),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Chosen:
        scale, shift = values["calibration"]
        return cls(
            int(values["ranking_epochs"]),
            int(values["like_epochs"]),
            float(values["deep_share"]),
            float(values["factor_share"]),
            ClosedForm.from_dict(values["closed_form"]),
            (float(scale), float(shift)),
            float(values["popularity_half_life"]),
        )


@dataclass(frozen=True)
class Step:
    """Where a fit is.  head: wide, ranking or like;  done of total batches;  metrics at an epoch's end."""

    head: str
    epoch: int
    epochs: int
    done: int
    total: int
    metrics: dict[str, float] = field(default_factory=dict)


Progress = Callable[[Step], None]


@dataclass(frozen=True)
class FitResult:
    """A trained network, what was chosen, a row per epoch, and the validation metrics (empty without)."""

    net: WideDeepNet
    chosen: Chosen
    curves: list[dict[str, Any]]
    validation: dict[str, float]


def fit(
    config: Config,
    processor: FeatureProcessor,
    train: Encoded,
    validation: Encoded | None = None,
    *,
    chosen: Chosen | None = None,
    known: ClosedForm | None = None,
    progress: Progress | None = None,
    stage: str = "fit",
) -> FitResult:
    """Train a WideDeepNet.

    validation  held out: early stopping, and the choices. Without it the epochs of `chosen`, else of the config
    known       the closed-form parts' choices of another fit on the same data, which are not made again
    progress    called at every batch and epoch; may raise to end the training
    stage       names the checkpoint file when one recipe is fitted several times
    Raises      EmptyDataError: no likes to learn from; TrainingError: the loss is not finite, or one of several
                processes (see widedeep.distributed) is gone
    """
    if not bool(train.liked.any()):
        raise EmptyDataError(
            f"None of the {len(train)} training interactions is liked (rating >= {config.data.like_threshold:g}). "
            "Lower like_threshold."
        )
    if validation is not None and not bool(validation.liked.any()):
        raise EmptyDataError(
            f"None of the {len(validation)} validation interactions is liked. Enlarge validation_fraction."
        )
    report = progress or (lambda _step: None)
    device = resolve_device(config.train.device)
    world = World.current()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.train.seed)
        net = WideDeepNet.for_data(config.model, processor, train).to(device)
        half_life = (
            chosen.popularity_half_life
            if chosen
            else world.first(lambda: choose_half_life(train, net.item_count))
        )
        net.popularity = popularity(train.take(train.liked), net.item_count, half_life).to(device)
        histories = Histories.from_encoded(train, processor.user_count).to(device)
        held_out = None if validation is None else validation.to(device)
        targets = None if held_out is None else ranking_targets(held_out, net.item_count, config.train.seed)
        report(Step("wide", 0, 1, 0, 1))
        settled = chosen.closed_form if chosen else known
        solved = world.first(
            lambda: solve(net, histories, targets, config.model, settled, config.train.seed).to_dict()
        )
        closed_form = ClosedForm.from_dict(solved)
        world.share(net)
        report(Step("wide", 1, 1, 1, 1))
        _set_shares(net, config.model, chosen)
        judged = targets if world.rank == 0 else None  # by the first process alone
        mixture = None if judged is None else Mixture(net, judged, histories)
        ranking = RankingObjective(config, net, histories, mixture, device)
        like = LikeObjective(config, net, train, histories, held_out, device)
        checkpoint = Checkpoint.of(config, train, stage)
        curves: list[dict[str, Any]] = []
        epochs = {}
        for objective, limit in (
            (ranking, chosen.ranking_epochs if chosen else config.train.ranking_epochs),
            (like, chosen.like_epochs if chosen else config.train.epochs),
        ):
            rows, best = train_head(config, net, objective, limit, device, report, checkpoint)
            curves += rows
            epochs[objective.head] = best
    net.eval()

    def settle() -> dict[str, float]:
        level(net, like)
        if mixture is None:
            return {}
        if chosen is None:
            model = config.model
            open_factor_shares = (
                FACTOR_SHARES if epochs["ranking"] else (1.0,)
            )  # untrained: without the deep part
            choose_shares(
                mixture,
                DEEP_SHARES if model.deep_share is None else (model.deep_share,),
                open_factor_shares if model.factor_share is None else (model.factor_share,),
            )
            choose_calibration(net, like)
        return {**ranking.validate(), **like.validate()}

    found = world.first(settle)
    for tensor in (net.like.linear.bias, net.deep_share, net.factor_share, net.calibration):
        tensor.data.copy_(world.of_first(tensor))
    if chosen:
        net.calibration.copy_(torch.tensor(chosen.calibration))
    scale, shift = net.calibration.tolist()
    decided = Chosen(
        epochs["ranking"],
        epochs["like"],
        round(float(net.deep_share), 6),
        round(float(net.factor_share), 6),
        closed_form,
        (scale, shift),
        half_life,
    )
    return FitResult(net, decided, curves, found)


def _set_shares(net: WideDeepNet, config: ModelConfig, chosen: Chosen | None) -> None:
    """As chosen or asked for; halves where it is still to be chosen."""
    deep = chosen.deep_share if chosen else config.deep_share
    factor = chosen.factor_share if chosen else config.factor_share
    net.deep_share.fill_(0.5 if deep is None else deep)
    net.factor_share.fill_(0.5 if factor is None else factor)


def train_head(
    config: Config,
    net: WideDeepNet,
    objective: Objective,
    epochs: int,
    device: torch.device,
    report: Progress,
    checkpoint: Checkpoint,
) -> tuple[list[dict[str, Any]], int]:
    """Train one head for at most `epochs`; the curves, and the epochs that the kept weights saw."""
    world = World.current()
    dtype = resolve_precision(config.train.precision, device)
    optimizers = objective.optimizers()
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    modules = nn.ModuleDict({"net": net, "learned": objective.learned})
    state = checkpoint.restore(objective.head, modules, optimizers, scaler)
    total = len(objective.batches)
    if total == 0:
        return [], 0
    steps = steps_of(config, objective, optimizers, scaler, device, dtype)
    for epoch in range(state.epoch + 1, epochs + 1):
        if state.stopped:
            break
        torch.manual_seed(_epoch_seed(config.train.seed, objective.head, epoch))
        modules.train()
        steps.loss.zero_()
        for number, batch in enumerate(steps.batches(), 1):
            steps.take(batch, objective.rate((number - 1) / total))
            objective.after_step((epoch - 1) * total + number)
            report(Step(objective.head, epoch, epochs, number, total))
        modules.eval()
        metrics = {"train_loss": float(world.sum(steps.loss)) / total, **objective.validate_once(world)}
        if not math.isfinite(metrics["train_loss"]):
            raise TrainingError(
                f"The {objective.head} head's loss became {metrics['train_loss']} in epoch {epoch}. "
                f"Lower {objective.rate_setting} (now {objective.learning_rate:g}), or use precision=fp32."
            )
        state.curves.append({"head": objective.head, "epoch": epoch, **metrics})
        state.epoch = epoch
        quality = objective.quality(metrics)
        if quality is None or quality > state.best_quality + objective.notable:
            state.best_epoch, state.best_quality = epoch, -math.inf if quality is None else quality
            state.best = None if quality is None else objective.snapshot()
        state.stopped = quality is not None and epoch - state.best_epoch >= objective.patience
        last = state.stopped or epoch == epochs
        report(Step(objective.head, epoch, epochs, total, total, metrics))
        checkpoint.save(objective.head, modules, optimizers, scaler, state, force=last)
    if state.best is not None:
        objective.restore(state.best)
    return state.curves, state.best_epoch


def _epoch_seed(seed: int, head: str, epoch: int) -> int:
    """Every epoch starts from a seed of its own, so a resumed training goes on as if never stopped."""
    return (seed * 1_000_003 + epoch * 2 + (head == "like")) % 2**63
