"""Where the settings come from: a flag, an environment variable and a line of a file for every field of
ServerSettings."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import tomllib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from server.settings import DEFAULT_TRACKING_URI, ServerSettings, flag_of
from widedeep import config
from widedeep.errors import ConfigError

NOT_IN_A_FILE = "settings_file"


def settings_from(arguments: Sequence[str] | None, environment: Mapping[str, str]) -> ServerSettings:
    """Flags win over WIDEDEEP_… variables, those over --settings-file, that over defaults.

    arguments  None: this process's own
    Raises     ConfigError; SystemExit(2) from argparse for an unknown flag
    """
    parser = argparse.ArgumentParser(
        prog="python -m server",
        description="Serve a model over gRPC. Environment variables do the same: WIDEDEEP_MAX_K is --max-k; "
        "so does a line max_k = 500 in the --settings-file.",
        allow_abbrev=False,
    )
    for item in dataclasses.fields(ServerSettings):
        if item.metadata.get("flag", True):
            parser.add_argument(
                flag_of(item.name),
                metavar=item.name.upper(),
                help=f"{item.metadata['help']} (default: {item.default!r})",
            )
    given = parser.parse_args(arguments)
    values = {}
    for name, hint in typing.get_type_hints(ServerSettings).items():
        variable = f"WIDEDEEP_{name.upper()}"
        if (text := getattr(given, name, None)) is not None:
            values[name] = config.parse(flag_of(name), text, hint)
        elif environment.get(variable):
            values[name] = config.parse(variable, environment[variable], hint)
    if values.get("settings_file"):
        values = {**in_file(Path(values["settings_file"]).expanduser()), **values}
    if not values.get("tracking_uri"):
        values["tracking_uri"] = environment.get("MLFLOW_TRACKING_URI") or DEFAULT_TRACKING_URI
    return ServerSettings(**values)


def in_file(path: Path) -> dict[str, Any]:
    """The settings in a TOML file.  Raises  ConfigError: it cannot be read, or has what is no setting"""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--settings-file {path} cannot be read: {error}.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"--settings-file {path} is not TOML: {error}.") from error
    hints = typing.get_type_hints(ServerSettings)
    del hints[NOT_IN_A_FILE]
    values = {}
    for name, value in content.items():
        if name not in hints:
            near = difflib.get_close_matches(name, hints, 1)
            meant = f"Did you mean {near[0]}?" if near else "--help lists them, with _ in place of -."
            raise ConfigError(f"--settings-file {path}: {name} is no setting. {meant}")
        hint = hints[name]
        if isinstance(value, bool) != (hint is bool) or isinstance(value, str) != (hint is str):
            words = {bool: "true or false", str: "a text in quotes"}
            raise ConfigError(
                f"--settings-file {path}: {name} must be {words.get(hint, 'a number')}, not {type(value).__name__}."
            )
        values[name] = config.parse(f"--settings-file {path}: {name}", value, hint)
    return values
