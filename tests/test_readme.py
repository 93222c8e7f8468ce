"""What the README and the pages beside it say runs."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [README, *(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))]


def blocks(language: str) -> list[str]:
    return [block for page in PAGES for block in re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)]


def commands() -> list[list[str]]:
    lines = (line for block in blocks("bash") for line in block.splitlines())
    return [shlex.split(line, comments=True) for line in lines if line.startswith("python -m")]


def test_python_blocks_run(tmp_path: Path) -> None:
    code = "\n".join(blocks("python"))
    assert "Recommender.load" in code
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


HELP = """
import contextlib, io, json, runpy, sys
helps = {}
for name in json.loads(sys.argv[1]):
    module, *words = name.split()
    sys.argv = [module, *words, "--help"]
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    helps[name] = out.getvalue()
print(json.dumps(helps))
"""


def name_of(command: list[str]) -> str:
    """The module, and its subcommand if there is one."""
    words = command[2:]
    return " ".join([words[0], *([words[1]] if len(words) > 1 and not words[1].startswith("-") else [])])


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    """What --help prints, by command; all of them from one process, which imports torch once."""
    names = sorted({name_of(command) for command in commands()})
    done = subprocess.run(
        [sys.executable, "-c", HELP, json.dumps(names)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_commands_have_the_flags_that_are_shown(command: list[str], helps: dict[str, str]) -> None:
    name = name_of(command)
    assert "usage: " in helps[name]
    for word in command:
        if word.startswith("--"):
            assert re.search(rf"{re.escape(word)}\b", helps[name]), f"{name} has no {word}"


def test_the_two_commands_stand_at_the_top() -> None:
    top = blocks("bash")[:2]
    assert top == [
        "pip install -e . && mlflow run . --env-manager local\n",
        "pip install -e '.[dev]' && pytest\n",
    ]


def test_every_command_of_the_table_is_there() -> None:
    from experiments.commands import COMMANDS

    named = re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE)
    assert set(named) - {"serve"} <= set(COMMANDS)
    assert len(named) == 11
