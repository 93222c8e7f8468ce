"""Search spaces: the built-in one, or a file of the user's.

A space is one function, suggest(trial, base) -> Config: `base` with what the Optuna trial suggests in the place of
some fields of `base.model` and `base.train`. A parameter that has the name of such a field starts out, as trial 1
and from a champion, at that field's value; any other in the middle of its range.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.trial import BaseTrial, FixedTrial

from experiments import search_space
from widedeep.config import Config
from widedeep.errors import ConfigError

Suggest = Callable[[BaseTrial, Config], Config]
EXAMPLE = (
    "It needs `def suggest(trial, base):` that returns a Config; experiments/search_space.py is an example."
)


def load(path: str, base: Config) -> Suggest:
    """The space in a file, or the built-in one for an empty path; asked once, so that its mistakes show now.

    Raises  ConfigError
    """
    suggest = _of_file(path) if path else search_space.suggest
    nearest(suggest, base, path or "search_space")
    return suggest


def nearest(
    suggest: Suggest,
    base: Config,
    name: str = "search_space",
    wanted: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The parameters of the point of the space that is nearest to `base`.

    wanted  parameters that count instead of the fields of `base`
    Raises  ConfigError: the space cannot be used
    """
    asked = _Nearest({**vars(base.train), **vars(base.model), **(wanted or {})})
    try:
        found = suggest(asked, base)
    except ConfigError as error:
        raise ConfigError(f"{name} suggests settings that cannot be: {error}") from error
    except Exception as error:
        raise ConfigError(
            f"suggest in {name} failed with {type(error).__name__}: {error}. {EXAMPLE}"
        ) from error
    if not isinstance(found, Config):
        raise ConfigError(f"suggest in {name} returned a {type(found).__name__}, not a Config. {EXAMPLE}")
    if found.data != base.data:
        raise ConfigError(
            f"suggest in {name} changes the data or its split, by which trials are compared. "
            "Search fields of base.model and base.train."
        )
    if not asked.chosen:
        raise ConfigError(f"suggest in {name} asks the trial for nothing, so there is nothing to search.")
    return asked.chosen


def rebuilt(suggest: Suggest, params: Mapping[str, Any], base: Config, study: str) -> Config:
    """The configuration that a trial had.

    Raises  ConfigError: another space suggested it
    """
    try:
        return suggest(FixedTrial(dict(params)), base)
    except ValueError as error:
        raise ConfigError(
            f"The study {study} was searched in another space: {error}. Give the same --search-space, or another "
            "--study."
        ) from error


def _of_file(path: str) -> Suggest:
    file = Path(path).expanduser()
    if file.suffix != ".py" or not file.is_file():
        raise ConfigError(f"There is no search space {path}: search_space must be a Python file, *.py.")
    spec = importlib.util.spec_from_file_location(f"search_space_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"{path} cannot be read: {type(error).__name__}: {error}.") from error
    suggest = getattr(module, "suggest", None)
    if not callable(suggest):
        raise ConfigError(f"{path} has no function suggest. {EXAMPLE}")
    found: Suggest = suggest
    return found


class _Nearest(FixedTrial):
    """A trial that answers with what is nearest to the values wanted, and remembers it."""

    def __init__(self, wanted: Mapping[str, Any]) -> None:
        super().__init__({})
        self.wanted = wanted
        self.chosen: dict[str, Any] = {}

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        value = self._near(name, low, high, log)
        if step is not None:
            last = math.floor((high - low) / step + 1e-9)  # Optuna's: the highest may be between two steps
            value = low + min(round((value - low) / step), last) * step
        return float(self._keep(name, value))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        value = low + round((self._near(name, low, high, log) - low) / step) * step
        return int(self._keep(name, value if value <= high else value - step))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        wanted = self.wanted.get(name)
        if wanted in choices:
            return self._keep(name, wanted)
        numbers = [choice for choice in choices if _is_number(choice)]
        if _is_number(wanted) and numbers:
            return self._keep(name, min(numbers, key=lambda choice: abs(choice - wanted)))
        return self._keep(name, choices[0])

    def _near(self, name: str, low: float, high: float, log: bool) -> float:
        found = self.wanted.get(name)
        middle = math.sqrt(low * high) if log else (low + high) / 2
        wanted = middle if found is None or not _is_number(found) else float(found)
        return min(max(wanted, low), high)

    def _keep(self, name: str, value: Any) -> Any:
        self.chosen[name] = value
        return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
