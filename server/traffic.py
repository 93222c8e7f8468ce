"""Which model answers whom: the references to models, their weights, and the draw between them.

models:/widedeep@champion                   everybody by one alias
models:/widedeep@champion=95,challenger=5   users by weight
models:/widedeep/3, model.pth               everybody by one version, by one file
"""

from __future__ import annotations

import bisect
import itertools
import math
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

from widedeep.errors import ConfigError

MODEL_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<aliases>[^/@]+)|/(?P<version>[1-9][0-9]*))")
ALIAS = re.compile(r"[\w-]+")  # what MLflow takes
POINTS = 2**64  # that a user can be drawn at


@dataclass(frozen=True)
class Target:
    """One model, as the settings name it.

    name     in the registry, or the file's
    alias    empty for a version, and for a file
    version  its number; empty for an alias, and for a file
    """

    name: str
    alias: str = ""
    version: str = ""

    @property
    def is_registered(self) -> bool:
        return bool(self.alias or self.version)

    def __str__(self) -> str:
        if not self.is_registered:
            return self.name
        return f"models:/{self.name}" + (f"@{self.alias}" if self.alias else f"/{self.version}")


@dataclass(frozen=True)
class Traffic:
    """The models that answer, with their shares of the users, and the one that only looks on.

    shares  of each target, the largest first; they sum to 1
    shadow  scored beside the first, and never returned; None: there is none

    A user is a point on a line that is cut into a piece for each alias, in the order of their names. The point is a
    hash of the model's name and of the user's id: it is the same in every process, and where two aliases change their
    weights, exactly the difference moves from one to the other.
    """

    shares: Mapping[Target, float]
    shadow: Target | None = None

    @classmethod
    def of(cls, model: str, shadow: str = "") -> Traffic:
        """
        model   a models:/ URI, or the path of a file
        shadow  an alias of the same model; empty: none
        Raises  ConfigError: they are of another form
        """
        uri = MODEL_URI.fullmatch(model)
        if uri is None:
            if model.startswith("models:"):
                raise ConfigError(
                    f"--model {model} is not a model of the registry. Write models:/widedeep@champion, "
                    "models:/widedeep@champion=95,challenger=5, models:/widedeep/3 or the path of a .pth bundle."
                )
            if shadow:
                raise ConfigError(
                    f"--shadow {shadow} is an alias of a models:/ URI, and --model {model} is a file."
                )
            return cls({Target(Path(model).name): 1.0})
        name, aliases = uri["name"], uri["aliases"]
        weights = (
            {Target(name, alias): weight for alias, weight in _weights(model, aliases).items()}
            if aliases
            else {Target(name, version=uri["version"]): 1.0}
        )
        largest_first = sorted(weights, key=lambda target: -weights[target])
        total = math.fsum(weights.values())
        shares = {target: weights[target] / total for target in largest_first}
        return cls(shares, _shadow(name, shadow, largest_first[0]) if shadow else None)

    @cached_property
    def main(self) -> Target:
        """The first named of those with the largest share."""
        return next(iter(self.shares))

    @cached_property
    def targets(self) -> list[Target]:
        """The main one first, the shadow last."""
        return list(dict.fromkeys([*self.shares, *([self.shadow] if self.shadow else [])]))

    def target_of(self, user_id: str = "", request_id: str = "") -> Target:
        """Who answers: always the same for a user or, without one, for a request's id; else drawn at random."""
        key = user_id or request_id
        if key:
            found = self._hash.copy()  # half the price of making one
            found.update(key.encode())
            point = int.from_bytes(found.digest(), "little")
        else:
            point = random.getrandbits(64)
        return self._in_order[bisect.bisect_right(self._ends, point)]

    @cached_property
    def _hash(self) -> blake2b:
        return blake2b(self.main.name.encode() + b"\0", digest_size=8)

    @cached_property
    def _in_order(self) -> list[Target]:
        return sorted(self.shares, key=lambda target: target.alias)

    @cached_property
    def _ends(self) -> list[int]:
        """Where each piece but the last ends."""
        shares = [self.shares[target] for target in self._in_order]
        return [round(end * POINTS) for end in itertools.accumulate(shares[:-1])]


def _weights(model: str, text: str) -> dict[str, float]:
    """By alias, in the order in which they are written."""
    weights: dict[str, float] = {}
    parts = text.split(",")
    for part in parts:
        alias, mark, number = part.partition("=")
        if not ALIAS.fullmatch(alias):
            raise ConfigError(f"--model {model}: {alias!r} is no alias. Write {_like(model)}.")
        if alias in weights:
            raise ConfigError(f"--model {model} names {alias} twice. Give each alias one weight.")
        if not mark and len(parts) > 1:
            raise ConfigError(f"--model {model} has no weight for {alias}. Write {_like(model)}.")
        try:
            weights[alias] = float(number) if mark else 1.0
        except ValueError:
            weights[alias] = 0.0
        if not 0 < weights[alias] < 1e9:  # NaN fails too
            raise ConfigError(
                f"--model {model}: the weight of {alias} must be a number above 0, got {number!r}. "
                "Leave out an alias that shall answer nobody."
            )
    return weights


def _like(model: str) -> str:
    return model.partition("@")[0] + "@champion=95,challenger=5"


def _shadow(name: str, alias: str, main: Target) -> Target:
    shadow = Target(name, alias)
    if not ALIAS.fullmatch(alias):
        raise ConfigError(f"--shadow must be an alias such as challenger, got {alias!r}.")
    if shadow == main:
        raise ConfigError(f"--shadow {alias} is what answers already. Name another alias.")
    return shadow
