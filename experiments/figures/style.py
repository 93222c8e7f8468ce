"""How all figures look. Colours of Okabe and Ito, told apart by shape as well, so nobody depends on colour."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.figure import Figure

from widedeep.bootstrap import Interval

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
GREY = "#555555"
PALE = "#BBBBBB"
SCALE = "cividis"  # from low to high, the same to all eyes
DPI = 120
LETTERS_PER_INCH = 13  # of a title
TITLE_LINES = 2


def canvas(
    width: float,
    height: float,
    shape: tuple[int, int] = (1, 1),
    *,
    about: str = "",
    ratios: Sequence[float] = (),
    grid: bool = True,
) -> tuple[Figure, Any]:
    """A figure and its axes (rows, columns).

    width, height  in inches; the UI shows about 9 of them in their full size
    about          the title over all of it; long lines are broken and, at last, cut
    ratios         of the rows' heights
    """
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    axes = figure.subplots(*shape, squeeze=False, gridspec_kw={"height_ratios": ratios} if ratios else None)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        if grid:
            axis.grid(True, color="#DDDDDD", linewidth=0.7)
        axis.set_axisbelow(True)
    if about:
        letters = int(width * LETTERS_PER_INCH)
        lines = [
            textwrap.fill(line, letters, max_lines=TITLE_LINES, placeholder="…")
            for line in about.splitlines()
        ]
        figure.suptitle(plain("\n".join(lines)), fontsize=11, x=0.01, ha="left")
    return figure, axes


def look(number: int) -> dict[str, str]:
    """Colour and shape of model number 0, 1, …; no two of the first 49 have the same."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[(number + number // len(COLOURS)) % len(MARKERS)],
    }


def plain(text: str) -> str:
    """Text that Matplotlib does not take for a formula: titles may have a $ in them, or two."""
    return text.replace("$", r"\$")


def short(text: str, length: int) -> str:
    """Of at most so many letters, and never a formula."""
    return plain(text if len(text) <= length else text[: length - 1].rstrip() + "…")


def errors(values: Iterable[Interval]) -> list[list[float]]:
    """(2, values) how far each interval reaches below and above its value; 0 where there is no interval."""
    pairs = [
        (0.0, 0.0)
        if math.isnan(found.low) or math.isnan(found.high)
        else (max(0.0, found.value - found.low), max(0.0, found.high - found.value))
        for found in values
    ]
    return [list(side) for side in zip(*pairs, strict=True)] if pairs else [[], []]


def rule(axis: Any, *, x: float | None = None, y: float | None = None, **how: Any) -> None:
    """A thin dashed line to compare with."""
    settings = {"color": GREY, "linestyle": "--", "linewidth": 1, **how}
    if x is not None:
        axis.axvline(x, **settings)
    if y is not None:
        axis.axhline(y, **settings)
