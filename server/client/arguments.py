"""The flags."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from server.client import admin, admin_commands, bench, commands
from server.client.channel import DEFAULT_TARGET, DEFAULT_TIMEOUT
from server.client.load import KINDS
from server.client.values import ClientError


def parser() -> argparse.ArgumentParser:
    shared, whose, filters = _shared(), _whose(), _filters()
    made = argparse.ArgumentParser(prog="python -m server.client", description="Ask a running server.")
    names = made.add_subparsers(required=True, metavar="COMMAND")

    add = names.add_parser(
        "recommend", parents=[shared, whose, filters], help="the items that a user may want next"
    )
    add.set_defaults(command=commands.recommend)
    add.add_argument("--include-seen", action="store_true", help="rank what is in the history, too")
    add.add_argument(
        "--explain",
        type=int,
        default=0,
        metavar="N",
        help="for each item the N items of the history that raised it most",
    )
    add.add_argument(
        "--diversity",
        type=float,
        default=0.0,
        help="0 to 1: how much variety of genres counts against the scores (default: %(default)g)",
    )

    add = names.add_parser("score", parents=[shared, whose], help="how likely a user is to like given items")
    add.set_defaults(command=commands.score)
    add.add_argument("--item-ids", type=_ids, required=True, help="item ids: 318,296,593")

    add = names.add_parser(
        "similar", parents=[shared, filters], help="the items that are most like given ones"
    )
    add.set_defaults(command=commands.similar)
    add.add_argument("--item-ids", type=_ids, required=True, help="item ids: 318,296")
    _add_common(add)

    for name, command, text in (
        ("info", commands.info, "the served model"),
        ("models", commands.models, "the versions that the server holds or has refused"),
        ("health", commands.health, "whether the server serves"),
    ):
        names.add_parser(name, parents=[shared], help=text).set_defaults(command=command)

    _add_bench(
        names.add_parser("bench", parents=[shared], help="how much load the server takes, and how fast")
    )
    admin_commands.add(names, _shared(admin.DEFAULT_TARGET, admin.DEFAULT_TIMEOUT))
    return made


def connection(given: argparse.Namespace) -> dict[str, Any]:
    """The options of a client. Raises ClientError."""
    return {
        "target": given.target,
        "timeout": given.timeout,
        "token": _token(given.token_file, os.environ),
        "tls": given.tls,
        "ca": given.ca,
        "cert": given.cert,
        "key": given.key,
        "connections": getattr(given, "connections", 1),
    }


def _token(path: Path | None, environment: Mapping[str, str]) -> str:
    """The token out of its file or the environment: as a flag, every user of the machine could read it.

    Raises  ClientError: the file cannot be read, or is empty
    """
    if path is None:
        return environment.get("WIDEDEEP_TOKEN", "")
    try:
        found = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ClientError("INVALID_ARGUMENT", f"--token-file: cannot read {path}: {error}.") from error
    if not found:
        raise ClientError("INVALID_ARGUMENT", f"--token-file: {path} is empty.")
    return found


def _shared(target: str = DEFAULT_TARGET, timeout: float = DEFAULT_TIMEOUT) -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--target",
        type=_address,
        default=target,
        help="host:port of the server, or a gRPC name such as ipv4:10.0.0.1:50051,10.0.0.2:50051 "
        "(default: %(default)s)",
    )
    shared.add_argument(
        "--timeout",
        type=_seconds,
        default=timeout,
        help="seconds to wait for an answer (default: %(default)g)",
    )
    shared.add_argument("--json", action="store_true", help="print JSON instead of a table")
    shared.add_argument(
        "--token-file", type=Path, help="file that holds the server's token; else WIDEDEEP_TOKEN"
    )
    shared.add_argument("--tls", action="store_true", help="encrypt, and trust the usual certificates")
    shared.add_argument("--ca", help="PEM file of certificates to trust instead; implies --tls")
    shared.add_argument("--cert", help="PEM file of a certificate of one's own, if the server wants one")
    shared.add_argument("--key", help="PEM file of its key")
    return shared


def _whose() -> argparse.ArgumentParser:
    whose = argparse.ArgumentParser(add_help=False)
    whose.add_argument("--user-id", default="", help="the user; without one, give a history")
    whose.add_argument(
        "--history", type=_ids, help="item ids, oldest first: 318,296,593; instead of what is stored"
    )
    whose.add_argument(
        "--ratings", type=_numbers, default=[], help="one for each item of the history: 5,4.5,3"
    )
    whose.add_argument(
        "--fallback",
        choices=("popularity", "error"),
        default="",
        help="what to do where the answer cannot be personal (default: popularity)",
    )
    _add_common(whose)
    return whose


def _add_common(add: argparse.ArgumentParser) -> None:
    add.add_argument("--model-version", default="", help="only this version may answer")
    add.add_argument("--request-id", default="", help="comes back in the answer")


def _filters() -> argparse.ArgumentParser:
    filters = argparse.ArgumentParser(add_help=False)
    filters.add_argument("--k", type=int, default=10, help="how many (default: %(default)s)")
    filters.add_argument("--exclude", type=_ids, default=[], help="item ids that must not come")
    filters.add_argument("--candidates", type=_ids, default=[], help="rank only these item ids")
    filters.add_argument(
        "--genre", action="append", default=[], help="only items of this genre; may be repeated"
    )
    filters.add_argument("--year-from", type=int, help="only items of this year or later")
    filters.add_argument("--year-to", type=int, help="only items of this year or earlier")
    filters.add_argument(
        "--include-cold-items", action="store_true", help="rank items that nobody has interacted with, too"
    )
    return filters


def _add_bench(add: argparse.ArgumentParser) -> None:
    add.set_defaults(command=bench.bench)
    how = add.add_mutually_exclusive_group()
    how.add_argument(
        "--concurrency",
        type=_count,
        default=64,
        help="so many at a time, the next as soon as one is answered (default: %(default)s)",
    )
    how.add_argument(
        "--rate",
        type=_rate,
        help="so many a second, whether answers come or not; latencies count from when a request was due",
    )
    add.add_argument(
        "--duration", type=_seconds, default=10.0, help="seconds that count (default: %(default)g)"
    )
    add.add_argument(
        "--warm-up",
        type=_seconds_or_none,
        default=2.0,
        help="seconds before, that do not (default: %(default)g)",
    )
    add.add_argument(
        "--mix",
        type=_mix,
        default={"recommend": 1.0, "score": 4.0},
        help=f"shares of {', '.join(KINDS)} (default: recommend=1,score=4)",
    )
    add.add_argument(
        "--connections",
        type=_count,
        default=1,
        help="of requests that are not on a stream; each stays with one of the server's workers (default: %(default)s)",
    )
    add.add_argument("--k", type=_count, default=10, help="items in a ranking (default: %(default)s)")
    add.add_argument(
        "--items", type=_count, default=64, help="items to score at a time (default: %(default)s)"
    )
    add.add_argument(
        "--users",
        help="file with a user id in each line, or N for the ids 1 to N; default: as many as the server knows",
    )
    add.add_argument(
        "--item-ids",
        help="file with an item id in each line, or 318,296,593; default: the server's most popular",
    )


def _ids(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in _ids(text)]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not numbers with commas between") from error


def _address(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; give host:port")
    return text


def _seconds(text: str) -> float:
    return _within(text, "a number of seconds above 0", 86_400)


def _seconds_or_none(text: str) -> float:
    return 0.0 if text.strip() in ("0", "0.0") else _seconds(text)


def _rate(text: str) -> float:
    return _within(text, "a number of requests a second above 0", 1e6)


def _within(text: str, what: str, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= most:  # NaN fails too
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return value


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 100_000):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 100000")
    return int(text)


def _mix(text: str) -> dict[str, float]:
    mix: dict[str, float] = {}
    for part in _ids(text):
        kind, _, share = part.partition("=")
        try:
            mix[kind] = float(share)
        except ValueError:
            mix[kind] = -1.0
        if kind not in KINDS or not 0 <= mix[kind] < 1e6:
            raise argparse.ArgumentTypeError(f"{part!r} is not one of {', '.join(KINDS)} with =SHARE")
    if not sum(mix.values()):
        raise argparse.ArgumentTypeError("has nothing to send; give for instance recommend=1,score=4")
    return {kind: share for kind, share in mix.items() if share}
