"""What the client gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

Q = TypeVar("Q", covariant=True)


class ClientError(Exception):
    """The server refused, failed or was not there.

    code         the gRPC status code's name, such as "INVALID_ARGUMENT"
    field        the part of the request that is at fault, empty if no single one is
    reason       the server's word for it, such as "UNKNOWN_ITEM"; empty if it gave none
    retry_after  seconds after which the server wants to be asked again; None if it did not say
    unanswered   the queries that a stream had sent and that got no answer before it failed
    """

    def __init__(
        self,
        code: str,
        message: str,
        field: str = "",
        reason: str = "",
        retry_after: float | None = None,
        unanswered: tuple[object, ...] = (),
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.field = field
        self.reason = reason
        self.retry_after = retry_after
        self.unanswered = unanswered


@dataclass(frozen=True)
class Model:
    """The model version that answered. `alias` is empty unless the server was told to serve an alias."""

    name: str
    version: str
    alias: str

    def __str__(self) -> str:
        return f"{self.name} version {self.version}" + (f" ({self.alias})" if self.alias else "")


@dataclass(slots=True, unsafe_hash=True)  # as Item
class Reason:
    """A liked item of the history, and what it did for a recommended item's score.

    wide  the part of the contribution that is exact, that of the model's wide side
    """

    item_id: str
    title: str
    contribution: float
    wide: float


@dataclass(slots=True, unsafe_hash=True)  # not frozen: to make one would take five times as long
class Item:
    """One recommended, scored or similar item. `rank` counts from 1; `year` is 0 where it is not known.

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
class Reply(Generic[Q]):
    """What a stream says to one query: an answer, or the error that the same call alone would have raised."""

    query: Q
    answer: Answer | None
    error: ClientError | None


@dataclass(frozen=True)
class RankingMethod:
    """How the server ranks the whole catalogue.

    precision            number format of the item vectors, such as "float32"
    precision_agreement  share of the 100 best items by float32 that this precision finds
    approximate          candidates come from an approximate index, and the model ranks those
    recall               share of the 100 best items of the exact ranking that are found
    """

    precision: str
    precision_agreement: float
    approximate: bool
    recall: float


@dataclass(frozen=True)
class RegistryStatus:
    """How the server stands with the registry that it follows.

    following             the served version moves with an alias
    reachable             at the last attempt; `error` says why not
    seconds_since_answer  None if the registry has not answered since the server's start
    from_cache            the served version was found in the local cache, without the registry
    """

    following: bool
    reachable: bool
    error: str
    seconds_since_answer: float | None
    from_cache: bool
    reload_count: int
    refused_count: int
    failure_count: int


@dataclass(frozen=True)
class ModelInfo:
    """What the server says of its model.

    ranking   None if the server does not say
    registry  None for a model that is served from a file
    """

    model: Model
    dataset: str
    user_count: int
    item_count: int
    like_threshold: float
    created_at: str
    device: str
    metrics: dict[str, float]
    ranking: RankingMethod | None
    registry: RegistryStatus | None


@dataclass(frozen=True)
class ShadowAgreement:
    """How far the shadow agrees with the version that answers.

    mean_overlap      share of a ranking's items that are in the shadow's, too
    same_first_share  of the rankings, those with the same first item
    mean_difference   of the two probabilities of an item
    dropped_count     requests that the shadow had no time for
    failed_count      requests that it could not answer
    """

    compared_version: str
    ranking_count: int
    mean_overlap: float
    same_first_share: float
    score_count: int
    mean_difference: float
    dropped_count: int
    failed_count: int


@dataclass(frozen=True)
class ModelStatus:
    """A version that the server holds or has refused.

    state        "LOADING", "SERVING", "RETIRING", "REFUSED", "SHADOW" or "ABSENT"
    reason       why it was refused or is absent; empty otherwise
    lease_count  requests and open streams that hold it
    since        when it came into this state, ISO 8601 in UTC
    share        of the users whom it answers, 0 to 1
    agreement    None for all but the shadow
    """

    model: Model
    state: str
    reason: str
    lease_count: int
    since: str
    share: float
    agreement: ShadowAgreement | None
