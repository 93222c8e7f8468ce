"""How settings are searched for: the flags of a study."""

from __future__ import annotations

import dataclasses
import re
import typing
from dataclasses import dataclass
from typing import Any

from widedeep.config import parse
from widedeep.errors import ConfigError
from widedeep.store_trouble import masked

PRUNERS = ("median", "hyperband", "none")
OBJECTIVES = ("ndcg", "coverage", "cost")
MEMORY = "memory"
JOURNAL = "optuna.journal"
CHAMPION = "champion"
NAME = re.compile(r"[\w.-]+")


@dataclass(frozen=True)
class StudyConfig:
    """The search for good settings.

    What `trials` counts: settings that were tried to their end, pruned, or failed of themselves. A trial that is
    lost with its process is tried again and counts once.
    """

    trials: int = 4  # settings that this call tries; the first of a new study is as given; 1: no search
    timeout: int = 0  # seconds after which no further trial begins, though one always does; 0: no limit
    storage: str = (
        ""  # where studies are kept: empty: optuna.journal in this folder; a file; postgresql://…; memory
    )
    study: str = ""  # name of the study: one that is there is gone on with; empty: a new one
    jobs: int = 1  # processes that try settings at the same time; where there are several GPUs each has one
    search_space: str = (
        ""  # file.py whose suggest(trial, base) says what is searched; empty: the built-in space
    )
    pruner: str = "median"  # what ends a trial that falls behind: median, hyperband, none
    objectives: str = (
        "ndcg"  # ndcg; or ndcg with coverage, cost or both, commas between: nothing is pruned then
    )
    warm_start: str = (
        CHAMPION  # tried early in a new study: champion's settings, other studies' best; none: neither
    )
    tune_seed: int = 0  # seed of the search; every training has the seed of the training settings

    def __post_init__(self) -> None:
        for name, hint in typing.get_type_hints(type(self)).items():
            object.__setattr__(self, name, parse(name, getattr(self, name), hint))
        for name, low, high in (
            ("trials", 1, 100_000),
            ("timeout", 0, 10**8),
            ("jobs", 1, 1024),
            ("tune_seed", 0, 2**32 - 1),
        ):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} must be from {low} to {high}, got {getattr(self, name)}.")
        if self.pruner not in PRUNERS:
            raise ConfigError(f"pruner must be one of {', '.join(PRUNERS)}; got {self.pruner!r}.")
        if self.study and not NAME.fullmatch(self.study):
            raise ConfigError(f"study must be letters, digits, . _ and -, got {self.study!r}.")
        if self.storage == MEMORY and self.jobs > 1:
            raise ConfigError(
                f"storage=memory is this process's own, and jobs={self.jobs} asks for several. Leave storage out."
            )
        if self.storage == MEMORY and self.study:
            raise ConfigError("storage=memory keeps no study to go on with. Leave storage or study out.")
        names = self.objective_names
        if names[0] != "ndcg" or len(set(names)) < len(names) or not set(names) <= set(OBJECTIVES):
            raise ConfigError(
                "objectives must be ndcg, or begin with it and have coverage, cost or both after it, commas between; "
                f"got {self.objectives!r}."
            )

    @property
    def objective_names(self) -> tuple[str, ...]:
        return _listed(self.objectives)

    @property
    def warm_starts(self) -> tuple[str, ...]:
        """`champion` and names of studies."""
        return tuple(name for name in _listed(self.warm_start) if name.lower() != "none")


def to_dict(settings: StudyConfig) -> dict[str, Any]:
    """Plain Python for people, without a password."""
    return dataclasses.asdict(settings) | {"storage": shown(settings.storage)}


def shown(storage: str) -> str:
    """The storage as it may be logged and printed."""
    return masked(storage) if "://" in storage else storage or JOURNAL


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
