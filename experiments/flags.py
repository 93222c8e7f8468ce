"""One flag per field of a config dataclass, with the field's comment as its help.

Flags are text until they meet the dataclass, which turns them into values: one place checks them, however they
came.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import functools
import inspect
import io
import shlex
import sys
import tokenize
import typing
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from widedeep.config import Config, from_dict, parse, to_dict
from widedeep.errors import ConfigError

VALUES = {int: "N", float: "X", bool: "true|false", str: "TEXT"}
SECTIONS = {field.name: typing.get_type_hints(Config)[field.name] for field in dataclasses.fields(Config)}


class Parser(argparse.ArgumentParser):
    """argparse whose complaints are ConfigErrors, so that they look like all others."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message[:1].upper()}{message[1:]}. See {self.prog} --help.")


def add_fields(parser: argparse.ArgumentParser, cls: type, only: Sequence[str] | None = None) -> None:
    """A flag for each field of the dataclass `cls`, in dashes and in underscores; not given: not in the result."""
    group = parser.add_argument_group((cls.__doc__ or cls.__name__).strip().splitlines()[0].rstrip("."))
    comments = field_comments(cls)
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if only is None or field.name in only:
            default = default_text(field)
            help_text = "; ".join(
                part
                for part in (comments.get(field.name, ""), f"default: {default}" if default else "")
                if part
            )
            add_flag(group, field.name, help_text, hints[field.name])


def add_flag(group: Any, name: str, help_text: str, hint: Any = str) -> None:
    """--some-name, and --some_name, as `mlflow run -P some_name=…` writes it; a switch may go without its word."""
    extra: dict[str, Any] = {"nargs": "?", "const": "true"} if hint is bool else {}
    extra |= {"dest": name, "default": argparse.SUPPRESS, "metavar": VALUES.get(hint, "VALUE")}
    group.add_argument(f"--{name.replace('_', '-')}", help=help_text.replace("%", "%%"), **extra)
    if "_" in name:
        group.add_argument(f"--{name}", help=argparse.SUPPRESS, **extra)


def default_text(field: dataclasses.Field[Any]) -> str:
    value = field.default
    if value is None or value is dataclasses.MISSING:
        return ""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


@functools.cache
def field_comments(cls: type) -> dict[str, str]:
    """The comment that stands beside each field of a dataclass in its source."""
    source = inspect.getsource(cls)
    comments: dict[str, str] = {}
    name = ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME and not token.line[: token.start[1]].strip():
            name = token.string
        elif token.type == tokenize.COMMENT and name:
            comments.setdefault(name, token.string.lstrip("# ").strip())
        elif token.type == tokenize.NEWLINE:
            name = ""
    return comments


def check_command(words: Sequence[str], commands: Iterable[str]) -> None:
    """Raises ConfigError for a command that there is not, with the nearest one."""
    if words and not words[0].startswith("-") and words[0] not in commands:
        near = difflib.get_close_matches(words[0], list(commands), n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(commands)}."
        raise ConfigError(f"There is no command {words[0]!r}. {hint}")


def check_known(unknown: Iterable[str], known: Iterable[str]) -> None:
    """Raises ConfigError for the first word that no flag has taken, with the nearest flag there is."""
    for word in unknown:
        if not word.startswith("-") or word == "-":
            raise ConfigError(f"{word!r} belongs to no flag. Flags are written --name value.")
        given = word.split("=")[0].lstrip("-").replace("_", "-")
        names = sorted({name.replace("_", "-") for name in known})
        near = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
        hint = f" Did you mean --{near[0]}?" if near else " See --help for those there are."
        raise ConfigError(f"There is no flag {word.split('=')[0]}.{hint}")


def config_from(given: dict[str, Any], base: Config | None = None) -> Config:
    """The recipe `base` (the defaults if None) with the values that were given in its place.

    given  field name -> text; names that belong to no field of a config are left alone
    Raises ConfigError
    """
    values = to_dict(base or Config())
    for section, cls in SECTIONS.items():
        names = {field.name for field in dataclasses.fields(cls)}
        values[section].update({name: value for name, value in given.items() if name in names})
    return from_dict(Config, values)


def as_flags(config: Config) -> str:
    """The flags that make `config` out of the defaults, as they are typed into a shell."""
    words = []
    for section in SECTIONS:
        part = getattr(config, section)
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            if value != field.default:
                text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
                text = text.lower() if value is None or isinstance(value, bool) else text
                words += [f"--{field.name.replace('_', '-')}", text]
    return shlex.join(words)


def section_from(given: dict[str, Any], cls: type[Any], **defaults: Any) -> Any:
    """The dataclass `cls` from those of the given values that are its fields; `defaults` for those not given."""
    names = {field.name for field in dataclasses.fields(cls)}
    return cls(**(defaults | {name: value for name, value in given.items() if name in names}))


def whole_number(name: str, value: Any, low: int, high: int) -> int:
    """Raises ConfigError: not a whole number, or out of range"""
    number = int(parse(name, value, int))
    if not low <= number <= high:
        raise ConfigError(f"{name} must be from {low} to {high}, got {number}.")
    return number


def is_true(name: str, value: Any) -> bool:
    """Raises ConfigError: not one of the words true and false"""
    return bool(parse(name, value, bool))


def says(message: object) -> None:
    """A message for people, apart from what a command prints as its result."""
    print(message, file=sys.stderr, flush=True)
