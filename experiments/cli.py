"""The command line: one command per job, one flag per setting.

python -m experiments main --dataset ml-latest-small --data-dir PATH
python -m experiments train --help
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from types import FrameType

from experiments.commands import COMMANDS
from experiments.flags import Parser, check_command, check_known, says
from widedeep.errors import ConfigError, WideDeepError
from widedeep.launch import launched

FAILED = 2
INTERRUPTED = 130


def main(words: Sequence[str] | None = None) -> int:
    """Run a command; its exit status: 0, 2 after an error that is explained, 130 after Ctrl-C or SIGTERM."""
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    status = 0
    try:
        _run(list(sys.argv[1:] if words is None else words))
        sys.stdout.flush()
    except WideDeepError as error:
        rank, _ = launched()
        if rank == 0:
            says(f"error: {error}")
        elif not isinstance(error, ConfigError):  # those come to all processes alike, and the first tells
            says(f"rank {rank}: error: {error}")
        status = FAILED
    except BrokenPipeError:  # who reads the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = FAILED
    except OSError as error:
        says(f"error: {error}. Make room on the disk, or check that the place may be written to.")
        status = FAILED
    except KeyboardInterrupt:
        if launched()[0] == 0:
            says("interrupted")
        return INTERRUPTED  # with SIGTERM ignored until the process has ended
    for number, handler in before.items():
        signal.signal(number, handler)
    return status


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """Stop, in peace: `mlflow run` sends SIGTERM on top of the terminal's SIGINT. A second Ctrl-C stops at once."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    raise KeyboardInterrupt


def _run(words: list[str]) -> None:
    if words[:1] == ["serve"]:
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-m", "server", *words[1:]])
    parser = Parser(prog="python -m experiments", description=__doc__, formatter_class=_Format)
    parsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for name, command in COMMANDS.items():
        sub = parsers.add_parser(
            name,
            help=command.help,
            description=command.text,
            usage=f"python -m experiments {name} [--FLAG VALUE ...]",
            formatter_class=_Format,
            allow_abbrev=False,
        )
        command.add_flags(sub)
    parsers.add_parser("serve", help="serve a model over gRPC; the same as python -m server", add_help=False)
    check_command(words, parsers.choices)
    found, unknown = parser.parse_known_args(words)
    given = vars(found)
    name = given.pop("command")
    _, processes = launched()
    if processes > 1 and not COMMANDS[name].several:
        raise ConfigError(
            f"torchrun has started {processes} processes of {name!r}, which works in one: python -m experiments "
            f"{name}. Several train one model: torchrun --nproc-per-node {processes} -m experiments train."
        )
    check_known(unknown, [action.dest for action in parsers.choices[name]._actions])
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    COMMANDS[name].call(given)


class _Format(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=110)
