"""The server's flags and environment variables: one of each for every field of ServerSettings."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections.abc import Mapping, Sequence

from server.settings import DEFAULT_TRACKING_URI, ServerSettings, flag_of
from widedeep import config


def settings_from(arguments: Sequence[str] | None, environment: Mapping[str, str]) -> ServerSettings:
    """Flags win over WIDEDEEP_… variables, those over defaults.

    arguments  None: this process's own
    Raises     ConfigError; SystemExit(2) from argparse for an unknown flag
    """
    parser = argparse.ArgumentParser(
        prog="python -m server",
        description="Serve a model over gRPC. Environment variables do the same: WIDEDEEP_MAX_K is --max-k.",
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
    if not values.get("tracking_uri"):
        values["tracking_uri"] = environment.get("MLFLOW_TRACKING_URI") or DEFAULT_TRACKING_URI
    return ServerSettings(**values)
