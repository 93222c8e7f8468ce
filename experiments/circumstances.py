"""What a run was trained with, beside what there is now: machine, versions, source, settings, data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from experiments import environment
from experiments.diagnosis import usable_cores
from experiments.original import Original
from experiments.recipe import SPLIT_FIELDS, Prepared
from widedeep.config import Config, from_dict
from widedeep.device import resolve_device
from widedeep.errors import DeviceError

UNKNOWN = "unknown"
SETTINGS = "settings"
NAME_LENGTH = 12  # of commits and digests, as people are shown them


@dataclass(frozen=True)
class Check:
    """One thing, then and now.  same: None where it is not known of either"""

    what: str
    then: str
    now: str
    same: bool | None

    @property
    def word(self) -> str:
        return {True: "same", False: "other", None: UNKNOWN}[self.same]

    @classmethod
    def of(cls, what: str, then: str | None, now: str | None) -> Check:
        known = then is not None and now is not None
        return cls(what, then or UNKNOWN, now or UNKNOWN, then == now if known else None)


def equality_expected(checks: list[Check], device: str) -> bool:
    """Whether a training gives the same bits as then: nothing differs, and it is on a CPU.

    A GPU adds in an order of its own each time.
    """
    return device == "cpu" and all(check.same for check in checks)


def usable_device(original: Original) -> str:
    """The device that the run was trained on; `auto` where this machine has none."""
    try:
        return str(resolve_device(original.tags.get("device", "auto")))
    except DeviceError:
        return "auto"


@contextmanager
def threads_of(original: Original) -> Iterator[None]:
    """As many threads as the run had, where this machine has the cores: sums depend on how they are divided."""
    own = torch.get_num_threads()
    then = original.environment.get("threads")
    if isinstance(then, int) and 1 <= then <= usable_cores():
        torch.set_num_threads(then)
    try:
        yield
    finally:
        torch.set_num_threads(own)


def look(original: Original, config: Config, data: Prepared) -> list[Check]:
    """All that bears on the result.  config, data: what is about to be trained"""
    then, now = original.environment, environment.describe()
    return [
        *_machine(then, now),
        Check.of("device", _device(original.tags.get("device"), then), _device(_kind(config), now)),
        Check.of("processes", original.tags.get("processes", "1"), "1"),
        _packages(then, now),
        _source(original, now["source"]),
        *_settings(original),
        Check.of("data", _short(original.tags.get("data_digest")), _short(data.dataset.digest)),
        Check.of(
            "item and user tables", _short(original.tags.get("tables_digest")), _short(data.tables_digest)
        ),
    ]


def _machine(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[Check]:
    named = {
        "python": "python",
        "system": "platform",
        "processor": "processor",
        "instructions": "instructions",
        "threads": "threads",
    }
    return [Check.of(what, _text(then, key), _text(now, key)) for what, key in named.items()]


def _text(values: Mapping[str, Any], key: str) -> str | None:
    return None if values.get(key) is None else str(values[key])


def _kind(config: Config) -> str:
    return str(resolve_device(config.train.device))


def _device(kind: str | None, there: Mapping[str, Any]) -> str | None:
    if kind is None or not kind.startswith("cuda"):
        return kind
    return f"{kind}: {', '.join(there.get('gpus', [])) or UNKNOWN}"


def _packages(then: Mapping[str, Any], now: Mapping[str, Any]) -> Check:
    """Those that differ; the build of torch is told apart, too."""
    before, after = (
        {**found.get("packages", {}), "torch": found.get("build", {}).get("torch", UNKNOWN)}
        for found in (then, now)
    )
    other = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    if not other:
        versions = f"torch {after['torch']} and {len(after) - 1} others"
        return Check("packages", versions, versions, True)
    was, is_now = (
        ", ".join(f"{name} {found.get(name, 'none')}" for name in other) for found in (before, after)
    )
    return Check("packages", was, is_now, False)


def _source(original: Original, now: Mapping[str, Any]) -> Check:
    """The commit and what differs from it."""
    tag = original.tags.get("git.commit", "")
    then = original.environment.get("source") or {
        "commit": tag.removesuffix("-dirty"),
        "dirty": "-dirty" in tag,
    }
    known = bool(then["commit"] and now["commit"]) and not (then["dirty"] and "diff_sha256" not in then)
    before, after = _source_text(then), _source_text(now)
    return Check("source", before, after, before == after if known else None)


def _source_text(source: Mapping[str, Any]) -> str:
    if not source["commit"]:
        return UNKNOWN
    commit = source["commit"][:NAME_LENGTH]
    changes = source.get("diff_sha256", UNKNOWN)[:NAME_LENGTH]
    return f"{commit} and changes {changes}" if source["dirty"] else commit


def _settings(original: Original) -> list[Check]:
    """Whether recipe.json, which is a file, says what the run's parameters say, which nobody can change."""
    logged: dict[str, dict[str, Any]] = {"data": {}, "model": {}, "train": {}}
    for key, value in original.parameters.items():
        section, _, name = key.partition(".")
        if section in logged and (section != "data" or name in SPLIT_FIELDS):  # where the data are may change
            logged[section][name] = value
    if not logged["model"]:
        return []  # as of `evaluate`, which logs none
    then, made = from_dict(Config, logged), original.recipe.config
    found = {
        name: (getattr(getattr(then, section), name), getattr(getattr(made, section), name))
        for section, names in logged.items()
        for name in names
    }
    other = [name for name, (before, after) in found.items() if before != after]
    if not other:
        return [Check(SETTINGS, "the run's parameters", "recipe.json agrees", True)]
    texts = [", ".join(f"{name} {found[name][place]}" for name in other) for place in (0, 1)]
    return [Check(SETTINGS, f"parameters: {texts[0]}", f"recipe.json: {texts[1]}", False)]


def _short(digest: str | None) -> str | None:
    return None if digest is None else digest[:NAME_LENGTH]
