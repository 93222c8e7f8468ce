"""Commands in texts: are they what the programs that they name take?"""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from typing import Any

import pytest

from experiments import cli
from experiments.commands import COMMANDS
from experiments.flags import config_from, section_from
from experiments.jobs import JobConfig
from server.client import arguments
from server.command_line import settings_from

BLOCK = re.compile(r"^```\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    """The commands in the code blocks of a Markdown text."""
    lines = [line for block in BLOCK.findall(text) for line in block.replace("\\\n", "").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def check(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raises  ConfigError, SystemExit: the program that it names does not take it"""
    words = shlex.split(command, comments=True)
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    assert words[:2] == ["python", "-m"], command
    program, given = words[2], words[3:]
    if program == "server":
        settings_from(given, {})
    elif program == "server.client":
        arguments.parser().parse_args(given)
    else:
        assert program == "experiments", command
        _check_experiments(given, monkeypatch)


def _check_experiments(given: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []
    command = COMMANDS[given[0]]
    monkeypatch.setitem(COMMANDS, given[0], replace(command, call=seen.append))
    assert cli.main(given) == 0, given
    monkeypatch.undo()
    config_from(seen[0])
    section_from(seen[0], JobConfig)
