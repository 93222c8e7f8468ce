"""All settings, as three frozen dataclasses: what is read, what is built, how it is trained.

Every field is a flag of `python -m experiments` (`--batch-size 512`) and a parameter of `mlflow run .`
(`-P batch_size=512`); field names are unique across the three. A value out of range raises ConfigError at
once, before anything is read or trained.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from widedeep.errors import ConfigError

SPLITS = ("user-time", "time", "leave-last-out", "random", "none")
DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True)
class DataConfig:
    """Which interactions, how they are read, labelled and split."""

    dataset: str = "auto"  # auto, a MovieLens release (ml-latest-small ... ml-32m), files, synthetic
    data_dir: str = ""  # folder or .zip that holds the release; empty: the cache, else a download
    ratings: str = ""  # dataset=files: the CSV or Parquet file of interactions
    item_table: str = ""  # dataset=files: optional CSV or Parquet with the item column, title, genres, year
    user_table: str = ""  # dataset=files: optional CSV or Parquet with the user column and attributes
    user_col: str = "user_id"
    item_col: str = "item_id"
    rating_col: str = "auto"  # auto: 'rating' if there is one; none: ignore ratings
    timestamp_col: str = "auto"  # auto: 'timestamp' if there is one; none: ignore times
    on_bad_rows: str = "error"  # error: stop and name them; repair: drop and count them
    like_threshold: float = 4.0  # liked = rating at or above; without ratings every interaction is liked
    split: str = "user-time"  # user-time, time, leave-last-out, random, none
    test_fraction: float = 0.2  # of each user's interactions (user-time) or of all (time, random)
    validation_fraction: float = 0.1  # of what the test leaves, cut the same way
    users: int = 1000  # dataset=synthetic
    items: int = 800  # dataset=synthetic
    interactions: int = 60_000  # dataset=synthetic
    data_seed: int = 0  # seed of the synthetic data and of the random split

    def __post_init__(self) -> None:
        _check_types(self)
        _one_of(self, "split", SPLITS)
        _one_of(self, "on_bad_rows", ("error", "repair"))
        _within(self, "test_fraction", 0.0, 0.9)
        _within(self, "validation_fraction", 0.0, 0.9)
        _within(self, "users", 2, 10**9)
        _within(self, "items", 2, 10**9)
        _within(self, "interactions", 4, 10**11)
        _within(self, "data_seed", 0, 2**63 - 1)
        if not math.isfinite(self.like_threshold):
            raise ConfigError(f"like_threshold must be a finite number, got {self.like_threshold}.")


@dataclass(frozen=True)
class ModelConfig:
    """The shape of WideDeepNet."""

    embedding_dim: int = 32  # of users and items in the like head
    hidden: tuple[int, ...] = (256, 128)  # widths of the like head's multilayer perceptron
    dropout: float = 0.2  # in the like head's multilayer perceptron
    ranking_hidden: int = 512  # width of the layer that reads the history
    ranking_dim: int = 128  # width of the vectors whose product is the deep ranking score
    ranking_dropout: float = 0.5  # of the layer that reads the history
    learn_from: str = (
        "auto"  # what is crossed and looked for: likes, all interactions, or auto: chosen on validation
    )
    deep_share: float | None = None  # of the ranking score, the rest is wide; none: chosen on validation
    factor_share: float | None = None  # of the deep share, what is the low-rank part's; none: chosen
    factor_dim: int = 256  # of the low-rank part, at most
    history_length: int = 1000  # latest items of a history that the model reads
    recency: float | None = None  # an entry weighs place ** -recency, the latest has place 1; none: chosen
    wide_l2: float | None = None  # ridge of the item x item crosses; none: chosen on validation
    wide_dropout: float | None = None  # share of the history hidden while the crosses are fitted (EDLAE's p)
    wide_user_exponent: float | None = None  # users weigh n ** -exponent, n the length of their history

    def __post_init__(self) -> None:
        _check_types(self)
        _within(self, "embedding_dim", 1, 4096)
        _within(self, "ranking_hidden", 1, 65_536)
        _within(self, "ranking_dim", 1, 65_536)
        _one_of(self, "learn_from", ("auto", "likes", "all"))
        _within(self, "factor_dim", 1, 4096)
        for name, low, high in (
            ("deep_share", 0.0, 1.0),
            ("factor_share", 0.0, 1.0),
            ("recency", 0.0, 5.0),
            ("wide_l2", 1e-3, 1e9),
            ("wide_dropout", 0.0, 0.95),
            ("wide_user_exponent", 0.0, 2.0),
        ):
            if getattr(self, name) is not None:
                _within(self, name, low, high)
        _within(self, "dropout", 0.0, 0.95)
        _within(self, "ranking_dropout", 0.0, 0.95)
        _within(self, "history_length", 1, 10**6)
        if not self.hidden or any(not 1 <= width <= 65_536 for width in self.hidden):
            raise ConfigError(
                f"hidden needs widths above 0, at most 65536, got {self.hidden}. Write --hidden 256,128."
            )


@dataclass(frozen=True)
class TrainConfig:
    """How WideDeepNet is trained."""

    epochs: int = 30  # at most, of the like head; early stopping takes the best
    patience: int = 3  # epochs without a better validation log loss before it stops
    ranking_epochs: int = 100  # at most, of the ranking head's deep side
    ranking_patience: int = 10  # epochs without a better validation likelihood before it stops
    batch_size: int | None = None  # rows a step, like head; none: 512, and 4096 where a CPU has many
    negatives: int = 4  # like head: random items per interaction, where nothing tells likes from dislikes
    user_batch_size: int = 128  # users a step, ranking head
    learning_rate: float | None = None  # Adam, like head; none: 0.001, and 0.002 where a CPU has many rows
    weight_decay: float = 1e-5  # like head
    ranking_learning_rate: float = 2e-3  # Adam, ranking head
    ranking_decay: float = 3e-4  # weight decay of the ranking head
    embedding_learning_rate: float = 0.05  # row-wise Adagrad, like head's embeddings, on much data
    embedding_decay: float = 1e-3  # weight decay of the like head's user and item embeddings
    seed: int = 0
    device: str = "auto"  # auto: cuda, else mps, else cpu
    precision: str = "auto"  # auto: bf16 where CUDA has it, else fp32
    cuda_graphs: bool = False  # like head on CUDA: its step is captured once and replayed for every batch
    checkpoint: str = ""  # file to keep the training's state in, written after every epoch
    resume: bool = False  # go on from the checkpoint

    def __post_init__(self) -> None:
        _check_types(self)
        _within(self, "epochs", 0, 100_000)
        _within(self, "patience", 1, 100_000)
        _within(self, "ranking_epochs", 0, 100_000)
        _within(self, "ranking_patience", 1, 100_000)
        if self.batch_size is not None:
            _within(self, "batch_size", 1, 2**31 - 1)
        _within(self, "negatives", 1, 1000)
        _within(self, "user_batch_size", 1, 2**31 - 1)
        if self.learning_rate is not None:
            _within(self, "learning_rate", 1e-8, 10.0)
        _within(self, "weight_decay", 0.0, 10.0)
        _within(self, "ranking_learning_rate", 1e-8, 10.0)
        _within(self, "ranking_decay", 0.0, 10.0)
        _within(self, "embedding_learning_rate", 1e-8, 10.0)
        _within(self, "embedding_decay", 0.0, 10.0)
        _within(self, "seed", 0, 2**63 - 1)
        _one_of(self, "device", DEVICES)
        _one_of(self, "precision", PRECISIONS)
        if self.cuda_graphs and self.precision == "fp16":
            raise ConfigError(
                "cuda_graphs needs precision auto, bf16 or fp32, got fp16, whose steps are scaled one by one. "
                "Use --precision bf16."
            )
        if self.resume and not self.checkpoint:
            raise ConfigError("resume needs checkpoint: name the file with --checkpoint PATH.")


@dataclass(frozen=True)
class Config:
    """The whole recipe."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


AnyConfig = TypeVar("AnyConfig", DataConfig, ModelConfig, TrainConfig, Config)


def to_dict(config: DataConfig | ModelConfig | TrainConfig | Config) -> dict[str, Any]:
    """Plain Python (numbers, strings, lists, dicts) that `from_dict` turns back into the same config."""
    values = dataclasses.asdict(config)
    return {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def from_dict(cls: type[AnyConfig], values: dict[str, Any]) -> AnyConfig:
    """Build a config from plain Python or from text values.

    Raises  ConfigError: unknown field, or a value that is not of the field's type
    """
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ConfigError(f"{cls.__name__} has no field {unknown[0]!r}. It has: {', '.join(hints)}.")
    return cls(**{name: parse(name, value, hints[name]) for name, value in values.items()})


def parse(name: str, value: Any, hint: Any) -> Any:
    """`value`, often text from a flag, as the type of the field `name`.

    Booleans are the words true and false; tuples are numbers with commas between.
    Raises  ConfigError
    """
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_dict(typing.cast(type[Config], hint), value)
    try:
        if isinstance(hint, types.UnionType):
            options = [option for option in typing.get_args(hint) if option is not type(None)]
            absent = value is None or str(value).lower() in ("", "none")
            return None if absent else parse(name, value, options[0])
        if hint is bool:
            return value if isinstance(value, bool) else {"true": True, "false": False}[str(value).lower()]
        if hint is int:
            return _whole(value)
        if typing.get_origin(hint) is tuple:
            parts = value.replace("(", "").replace(")", "").split(",") if isinstance(value, str) else value
            return tuple(_whole(part) for part in parts if str(part).strip())
        return hint(value)
    except (ValueError, TypeError, KeyError) as error:
        words = {bool: "true or false", int: "a whole number", float: "a number"}
        raise ConfigError(
            f"{name} must be {words.get(hint, 'whole numbers with commas between')}, got {value!r}."
        ) from error


def _whole(value: Any) -> int:
    if isinstance(value, bool):
        raise ValueError(value)
    if isinstance(value, int):
        return value
    number = float(value)
    if not number.is_integer():
        raise ValueError(value)
    return int(value) if isinstance(value, str) and value.strip().lstrip("+-").isdigit() else int(number)


def _check_types(config: Any) -> None:
    """Dataclasses do not check: a config built by hand gets the same errors as one from flags."""
    hints = typing.get_type_hints(type(config))
    for name, hint in hints.items():
        object.__setattr__(config, name, parse(name, getattr(config, name), hint))


def _within(config: Any, name: str, low: float, high: float) -> None:
    value = getattr(config, name)
    if not low <= value <= high:  # NaN fails too
        raise ConfigError(f"{name} must be from {low:g} to {high:g}, got {value}.")


def _one_of(config: Any, name: str, options: tuple[str, ...]) -> None:
    value = getattr(config, name)
    if value not in options:
        raise ConfigError(f"{name} must be one of {', '.join(options)}; got {value!r}.")
