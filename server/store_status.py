"""What the model store says of itself: its models, its registry, and how often things happened."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime

from server.cache import CacheCounts


class ModelState(enum.StrEnum):
    LOADING = "loading"  # being fetched, checked and warmed up
    SERVING = "serving"  # new requests are answered by it
    SHADOW = "shadow"  # scored beside what answers, and never returned
    ABSENT = "absent"  # nothing is loaded for the alias, and the largest share answers in its place
    RETIRING = "retiring"  # another has taken over; it answers what it was given before
    REFUSED = "refused"  # it failed a check and has never answered a request


@dataclass(frozen=True)
class ModelStatus:
    """
    version    empty for what is absent
    reason     why it was refused or is absent, empty otherwise
    leases     requests that hold it
    share      of the users whom it answers, 0 to 1
    is_shadow  it is compared with what answers
    """

    name: str
    version: str
    alias: str
    state: ModelState
    since: datetime
    reason: str = ""
    leases: int = 0
    share: float = 0.0
    is_shadow: bool = False


@dataclass(frozen=True)
class RegistryStatus:
    """How the store stands with the registry.

    following             the served version moves with an alias
    reachable             the registry and its files could be reached at the last attempt
    error                 what is wrong: it cannot be reached, or it does not have the alias; empty if nothing is
    seconds_since_answer  since the registry last answered, negative if it never has
    from_cache            the served version was found in the cache, and the registry has not confirmed it since
    """

    following: bool
    reachable: bool
    error: str
    seconds_since_answer: float
    from_cache: bool


@dataclass
class Counts:
    """Since the start: versions that took over from another, refusals, failed attempts to reach the registry."""

    reloads: int = 0
    refused: int = 0
    failures: int = 0


@dataclass(frozen=True)
class StoreStatus:
    """models    the served one first, then the newest
    registry  None for a model that is served from a file
    """

    models: list[ModelStatus]
    registry: RegistryStatus | None
    counts: Counts
    cache: CacheCounts
