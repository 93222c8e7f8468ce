"""What a job does with the recipe: how it is searched, judged and registered."""

from __future__ import annotations

import dataclasses
import re
import shlex
import typing
from dataclasses import dataclass

from widedeep import config
from widedeep.errors import ConfigError

GATES = ("auto", "better", "not-worse", "strict")
ON_DRIFT = ("refuse", "warn", "ignore")
NAME = re.compile(r"[^/:.%\"']+")  # what MLflow's registry and its models:/ addresses take


@dataclass(frozen=True)
class JobConfig:
    """The settings of `main`, and those of them that the other jobs have too.

    Like the fields of the other configs, each is a flag and a parameter of `mlflow run .`.
    """

    bootstrap: int = 1000  # resamples of the users behind the report's intervals
    refit: bool = True  # register the recipe trained again on all interactions; false: the evaluated model
    register: str = "widedeep"  # name of the registered model; none: nothing is registered
    alias: str = "champion"  # alias that the new version is to take; none: it takes none
    gate: str = "auto"  # better, not-worse, strict; auto: better on the champion's data, not-worse on other
    gate_samples: int = 10_000  # resamples of the gate's paired bootstrap
    on_drift: str = (
        "refuse"  # where the data are no longer like the champion's: refuse, warn, ignore (do not look)
    )
    max_psi: float = 0.25  # population stability index above which a distribution has drifted
    max_new_users: float = 0.7  # share of users, or of their interactions, that may be new to the champion
    max_new_items: float = 0.5  # share of items, or of their interactions, that may be new to the champion
    max_lost: float = (
        0.1  # share of the champion's interactions that may be gone: rows, time, users' or items'
    )
    since: str = ""  # an alias, such as champion: train only if there is something new since; empty: always
    experiment: str = (
        ""  # MLflow experiment; empty: MLFLOW_EXPERIMENT_NAME, else widedeep. mlflow run has its own flag
    )
    run_name: str = ""  # name of the MLflow run; empty: made from the job and the data set
    tensorboard: str = ""  # folder that the scalars are written to for TensorBoard, too; empty: none

    def __post_init__(self) -> None:
        _parse_fields(self)
        _within(self, "bootstrap", 0, 10**6)
        _within(self, "gate_samples", 100, 10**7)
        for name in ("max_psi", "max_new_users", "max_new_items", "max_lost"):
            _within(self, name, 0, 10 if name == "max_psi" else 1)
        for name, words in (("gate", GATES), ("on_drift", ON_DRIFT)):
            if getattr(self, name) not in words:
                raise ConfigError(f"{name} must be one of {', '.join(words)}; got {getattr(self, name)!r}.")
        for name in ("register", "alias", "since"):
            value = getattr(self, name)
            if value.lower() in ("", "none"):
                object.__setattr__(self, name, "")
            elif not NAME.fullmatch(value) or value == "latest" or re.fullmatch(r"v\d+", value):
                raise ConfigError(
                    f"{name} must be a plain name (no / : . % or quotes; not 'latest' or 'v1'), got {value!r}."
                )
        if self.since and not self.register:
            raise ConfigError(f"since={self.since} needs the name of a registered model: --register NAME.")


def _parse_fields(settings: JobConfig | BatchConfig) -> None:
    """Values may come as text from a flag."""
    for name, hint in typing.get_type_hints(type(settings)).items():
        object.__setattr__(settings, name, config.parse(name, getattr(settings, name), hint))


def _within(settings: JobConfig | BatchConfig, name: str, low: int, high: int) -> None:
    value = getattr(settings, name)
    if not low <= value <= high:
        raise ConfigError(f"{name} must be from {low} to {high}, got {value}.")


def promote_command(name: str, number: int | str, alias: str) -> str:
    """What a person types to ask the gate again, or with --force after it not to ask it."""
    return f"python -m experiments promote --version {number}{_whose(name, alias)}"


def rollback_command(name: str, alias: str) -> str:
    """What a person types to give the alias back to the version that had it before."""
    return f"python -m experiments promote --rollback{_whose(name, alias)}"


def _whose(name: str, alias: str) -> str:
    return "".join(
        f" --{flag} {shlex.quote(value)}"
        for flag, value in (("register", name), ("alias", alias))
        if value != getattr(JobConfig, flag)
    )


def to_dict(job: JobConfig) -> dict[str, typing.Any]:
    return dataclasses.asdict(job)


@dataclass(frozen=True)
class BatchConfig:
    """Recommendations for many users at once."""

    model: str = "models:/widedeep@champion"  # models:/NAME@ALIAS, models:/NAME/VERSION or a .pth file
    out: str = (
        "recommendations.parquet"  # the file to write; its ending, .parquet or .csv, says what it becomes
    )
    users: str = ""  # one user id per line, or a CSV or Parquet file with a user_id column; empty: all
    k: int = 10  # items for each user, 1 to 1000
    exclude_seen: bool = True  # leave out what is in the user's history
    user_batch: int = 1024  # users scored at once
    device: str = "auto"  # auto: cuda, else mps, else cpu

    def __post_init__(self) -> None:
        _parse_fields(self)
        _within(self, "k", 1, 1000)
        _within(self, "user_batch", 1, 10**6)
        if not self.out.endswith((".parquet", ".csv")):
            raise ConfigError(f"out must end in .parquet or .csv, got {self.out!r}.")
        if self.device not in config.DEVICES:
            raise ConfigError(f"device must be one of {', '.join(config.DEVICES)}; got {self.device!r}.")
