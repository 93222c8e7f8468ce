"""Ask a running server.

python -m server.client recommend --target 127.0.0.1:50051 --user-id 1 --k 10
python -m server.client recommend --history 318,296,593 --genre Comedy --year-from 1990
python -m server.client recommend --user-id 1 --explain 3 --diversity 0.3
python -m server.client score --user-id 1 --item-ids 318,296,593
python -m server.client info
python -m server.client health
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence

from server.client.connection import DEFAULT_TARGET, DEFAULT_TIMEOUT, Client
from server.client.values import Answer, ClientError

COLD_START = {
    "NO_USER": "no user and no history were given",
    "UNKNOWN_USER": "the model does not know this user, and no history was given",
    "UNKNOWN_HISTORY": "the model knows none of the history's items",
    "NO_LIKES": "the history holds nothing that was liked",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns  exit status: 0 for an answer, 1 for an error of the server or its absence, 2 for unusable flags"""
    given = _parser().parse_args(arguments)
    command: Callable[[Client, argparse.Namespace], int] = given.command
    try:
        with Client(given.target, given.timeout) as client:
            status = command(client, given)
            sys.stdout.flush()
            return status
    except ClientError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def recommend(client: Client, given: argparse.Namespace) -> int:
    answer = client.recommend(
        given.user_id,
        given.k,
        history=given.history,
        ratings=given.ratings,
        exclude_seen=not given.include_seen,
        exclude=given.exclude,
        candidates=given.candidates,
        genres=given.genre,
        year_from=given.year_from,
        year_to=given.year_to,
        include_cold_items=given.include_cold_items,
        explain=given.explain,
        diversity=given.diversity,
        request_id=given.request_id,
    )
    whom = (
        f"user {given.user_id}" if given.user_id else "this history" if given.history else "somebody unknown"
    )
    _show(answer, given, f"{len(answer.items)} items for {whom}", score="score")
    return 0


def score(client: Client, given: argparse.Namespace) -> int:
    answer = client.score(
        given.user_id,
        given.item_ids,
        history=given.history,
        ratings=given.ratings,
        request_id=given.request_id,
    )
    whom = (
        f"user {given.user_id}" if given.user_id else "this history" if given.history else "somebody unknown"
    )
    _show(answer, given, f"How likely {whom} is to like them", score="like")
    return 0


def info(client: Client, given: argparse.Namespace) -> int:
    about = client.info()
    if given.json:
        print(json.dumps(dataclasses.asdict(about), indent=2))
        return 0
    rows = [
        ("model", str(about.model)),
        ("data set", about.dataset),
        ("users", f"{about.user_count:,}"),
        ("items", f"{about.item_count:,}"),
        ("a like is", f"a rating of {about.like_threshold:g} or more"),
        ("trained", about.created_at),
        ("device", about.device),
        *((name, f"{value:.4f}") for name, value in sorted(about.metrics.items())),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")
    return 0


def health(client: Client, given: argparse.Namespace) -> int:
    status = client.health()
    print(json.dumps({"status": status}) if given.json else status)
    return 0 if status == "SERVING" else 1


def _show(answer: Answer, given: argparse.Namespace, headline: str, score: str) -> None:
    if given.json:
        print(json.dumps(dataclasses.asdict(answer), indent=2))
        return
    print(f"{headline}, by {answer.model}")
    if answer.cold_start:
        print(f"Not personal: {COLD_START.get(answer.cold_start, answer.cold_start)}.")
    if answer.unknown_items:
        print(f"Unknown to the model: {', '.join(answer.unknown_items)}")
    if not answer.items:
        print("No item is left after the filters.")
        return
    rows = [
        (str(item.rank), item.item_id, _printable(item.title), f"{item.score:.4f}", ", ".join(item.genres))
        for item in answer.items
    ]
    print()
    because = [
        ", ".join(_printable(reason.title or reason.item_id) for reason in item.reasons)
        for item in answer.items
    ]
    _print_table(("rank", "item", "title", score, "genres"), rows, because)


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]], because: Sequence[str]) -> None:
    """Columns as wide as they need to be; the title gives way on a narrow terminal.

    because  for each row what goes below it, if anything
    """
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    excess = sum(widths) + 2 * len(widths) - shutil.get_terminal_size((120, 24)).columns
    if sys.stdout.isatty() and excess > 0:
        widths[2] = max(20, widths[2] - excess)
    for row, reasons in zip((header, *rows), ("", *because), strict=True):
        rank, item, title, score, genres = row
        title = title if len(title) <= widths[2] else title[: widths[2] - 1] + "…"
        left = f"{rank:>{widths[0]}}  {item:<{widths[1]}}  {title:<{widths[2]}}"
        print(f"{left}  {score:>{widths[3]}}  {genres}".rstrip())
        if reasons:
            print(f"{'':>{widths[0]}}  because you liked {reasons}")


def _printable(text: str) -> str:
    """Titles come from a file: control characters must not reach the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--target",
        type=_address,
        default=DEFAULT_TARGET,
        help="host:port of the server (default: %(default)s)",
    )
    shared.add_argument(
        "--timeout",
        type=_seconds,
        default=DEFAULT_TIMEOUT,
        help="seconds to wait for the answer (default: %(default)g)",
    )
    shared.add_argument("--json", action="store_true", help="print JSON instead of a table")

    whose = argparse.ArgumentParser(add_help=False)
    whose.add_argument("--user-id", default="", help="the user; without one, give a history")
    whose.add_argument(
        "--history", type=_ids, help="item ids, oldest first: 318,296,593; instead of what is stored"
    )
    whose.add_argument(
        "--ratings", type=_numbers, default=[], help="one for each item of the history: 5,4.5,3"
    )
    whose.add_argument("--request-id", default="", help="comes back in the answer")

    parser = argparse.ArgumentParser(prog="python -m server.client", description="Ask a running server.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    add = commands.add_parser(
        "recommend", parents=[shared, whose], help="the items that a user may want next"
    )
    add.set_defaults(command=recommend)
    add.add_argument("--k", type=int, default=10, help="how many (default: %(default)s)")
    add.add_argument("--include-seen", action="store_true", help="rank what is in the history, too")
    add.add_argument("--exclude", type=_ids, default=[], help="item ids that must not come")
    add.add_argument("--candidates", type=_ids, default=[], help="rank only these item ids")
    add.add_argument("--genre", action="append", default=[], help="only items of this genre; may be repeated")
    add.add_argument("--year-from", type=int, help="only items of this year or later")
    add.add_argument("--year-to", type=int, help="only items of this year or earlier")
    add.add_argument(
        "--include-cold-items", action="store_true", help="rank items that nobody has interacted with, too"
    )
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

    add = commands.add_parser(
        "score", parents=[shared, whose], help="how likely a user is to like given items"
    )
    add.set_defaults(command=score)
    add.add_argument("--item-ids", type=_ids, required=True, help="item ids: 318,296,593")

    commands.add_parser("info", parents=[shared], help="the served model").set_defaults(command=info)
    commands.add_parser("health", parents=[shared], help="whether the server serves").set_defaults(
        command=health
    )
    return parser


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
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


if __name__ == "__main__":
    sys.exit(main())
