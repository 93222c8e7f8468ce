"""The training's state on disk, so that a training that was ended goes on where it was."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from widedeep.config import Config, to_dict
from widedeep.distributed import World
from widedeep.errors import ConfigError
from widedeep.files import load_tensors, write_atomically
from widedeep.histories import Encoded

WRITING_SHARE = 0.02  # of the time, at most, goes into writing checkpoints


@dataclass
class HeadState:
    """How far one head is."""

    epoch: int = 0
    best_epoch: int = 0
    best_quality: float = -math.inf
    stopped: bool = False
    best: dict[str, Tensor] | None = None
    curves: list[dict[str, Any]] = field(default_factory=list)


class Checkpoint:
    """One file for one fit. It belongs to the recipe and the data that wrote it, and refuses others.

    It is written at epochs' ends, though not oftener than WRITING_SHARE allows: every epoch has a seed of its
    own, so going on from an earlier epoch comes to the same weights. Of several processes the first reads and writes
    it; how many they are makes no difference to it.
    """

    def __init__(self, path: Path | None, resume: bool, fingerprint: str) -> None:
        self.path = path
        self.fingerprint = fingerprint
        self.stored: dict[str, Any] = {}
        self.next_write = 0.0
        if path is None or not resume:
            return
        stored = World.current().first(lambda: load_tensors(path, "a checkpoint") if path.exists() else None)
        if stored is None:
            return
        if stored.get("fingerprint") != fingerprint:
            raise ConfigError(
                f"The checkpoint {path} is of another configuration or other data. "
                "Give the settings that it was started with, or another --checkpoint."
            )
        self.stored = stored["heads"]

    @classmethod
    def of(cls, config: Config, train: Encoded, stage: str) -> Checkpoint:
        if not config.train.checkpoint:
            return cls(None, False, "")
        base = Path(config.train.checkpoint)
        path = base.with_name(f"{base.stem}.{stage}{base.suffix or '.ckpt'}")
        recipe = replace(config, train=replace(config.train, checkpoint="", resume=False))
        digest = hashlib.sha256(json.dumps(to_dict(recipe), sort_keys=True).encode())
        for column in (train.user_index, train.item_index, train.liked):
            digest.update(column.cpu().numpy().tobytes())
        return cls(path, config.train.resume, digest.hexdigest())

    def restore(
        self,
        head: str,
        modules: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        scaler: torch.amp.GradScaler,
    ) -> HeadState:
        """Put back what was stored of `head`; a fresh state if nothing was.

        Raises  ConfigError: the training went by other optimizers
        """
        stored = self.stored.get(head)
        if stored is None:
            return HeadState()
        modules.load_state_dict(stored["modules"])
        if len(stored["optimizers"]) != len(optimizers):
            raise ConfigError(
                f"The checkpoint {self.path} is of a training on another kind of device. Resume it there, or give "
                "another --checkpoint."
            )
        for optimizer, values in zip(optimizers, stored["optimizers"], strict=True):
            optimizer.load_state_dict(values)
        scaler.load_state_dict(stored["scaler"])
        return HeadState(**stored["state"])

    def save(
        self,
        head: str,
        modules: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        scaler: torch.amp.GradScaler,
        state: HeadState,
        force: bool,
    ) -> None:
        """Write, if it is time to; `force` at a head's end."""
        if self.path is None or (time.monotonic() < self.next_write and not force):
            return
        if World.current().rank > 0:
            return
        begun = time.monotonic()
        content = {
            "modules": modules.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "scaler": scaler.state_dict(),
            "state": {**asdict(replace(state, best=None)), "best": state.best},
        }
        self.stored[head] = content
        write_atomically(
            self.path, lambda file: torch.save({"fingerprint": self.fingerprint, "heads": self.stored}, file)
        )
        taken = time.monotonic() - begun
        self.next_write = time.monotonic() + taken / WRITING_SHARE
