"""Answers as text for a terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

from server.client.values import Answer

COLD_START = {
    "NO_USER": "no user and no history were given",
    "UNKNOWN_USER": "the model does not know this user, and no history was given",
    "UNKNOWN_HISTORY": "the model knows none of the history's items",
    "NO_LIKES": "the history holds nothing that was liked",
}


def print_answer(answer: Answer, headline: str, score: str) -> None:
    """score  what the scores are called"""
    print(f"{headline}, by {answer.model}")
    if answer.cold_start:
        print(f"Not personal: {COLD_START.get(answer.cold_start, answer.cold_start)}.")
    if answer.unknown_items:
        print(f"Unknown to the model: {', '.join(answer.unknown_items)}")
    if not answer.items:
        print("No item is left after the filters.")
        return
    rows = [
        (str(item.rank), item.item_id, printable(item.title), f"{item.score:.4f}", ", ".join(item.genres))
        for item in answer.items
    ]
    print()
    because = [
        ", ".join(printable(reason.title or reason.item_id) for reason in item.reasons)
        for item in answer.items
    ]
    _print_items(("rank", "item", "title", score, "genres"), rows, because)


def print_pairs(rows: Sequence[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {printable(value)}".rstrip())


def print_columns(rows: Sequence[Sequence[str]], left: int) -> None:
    """Columns as wide as they need to be.

    left  how many of them are aligned to the left; the last one always is
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    last = len(widths) - 1
    for row in rows:
        cells = (
            cell.ljust(width) if column < left or column == last else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join(cells).rstrip())


def printable(text: str) -> str:
    """Titles come from a file: control characters must not reach the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def _print_items(header: Sequence[str], rows: Sequence[Sequence[str]], because: Sequence[str]) -> None:
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
