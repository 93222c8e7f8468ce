"""What the client gives back."""

from __future__ import annotations

from dataclasses import dataclass


class ClientError(Exception):
    """The server refused, failed or was not there.

    code   the gRPC status code's name, such as "INVALID_ARGUMENT"
    field  the part of the request that is at fault, empty if no single one is
    """

    def __init__(self, code: str, message: str, field: str = "") -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.field = field


@dataclass(frozen=True)
class Model:
    """The model version that answered. `alias` is empty unless the server was told to serve an alias."""

    name: str
    version: str
    alias: str

    def __str__(self) -> str:
        return f"{self.name} version {self.version}" + (f" ({self.alias})" if self.alias else "")


@dataclass(frozen=True)
class Reason:
    """A liked item of the history, and what it did for a recommended item's score.

    wide  the part of the contribution that is exact, that of the model's wide side
    """

    item_id: str
    title: str
    contribution: float
    wide: float


@dataclass(frozen=True)
class Item:
    """One recommended or scored item. `rank` counts from 1; `year` is 0 where it is not known.

    reasons  what of the history raised it, strongest first; empty if that was not asked for
    """

    rank: int
    item_id: str
    score: float
    title: str
    genres: tuple[str, ...]
    year: int
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True)
class Answer:
    """Items with scores: a ranking, best first, or probabilities in the order of the question.

    cold_start     why the answer is not personal, such as "UNKNOWN_USER"; empty if it is
    unknown_items  candidates that the model does not know
    """

    items: tuple[Item, ...]
    model: Model
    cold_start: str
    unknown_items: tuple[str, ...]
    request_id: str


@dataclass(frozen=True)
class ModelInfo:
    """What the server says of its model."""

    model: Model
    dataset: str
    user_count: int
    item_count: int
    like_threshold: float
    created_at: str
    device: str
    metrics: dict[str, float]
