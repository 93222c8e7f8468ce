"""The map of the items as a picture and as a page."""

from __future__ import annotations

import html
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.figures.embedding import OTHER, ItemMap
from experiments.figures.interactive import Panel, page
from experiments.figures.style import COLOURS, MARKERS, PALE, canvas, short

LABELLED = 25
NOTE = "near is alike; the distance between groups, and the directions, mean nothing"
SYMBOLS = {
    "o": "circle",
    "s": "square",
    "D": "diamond",
    "^": "triangle-up",
    "v": "triangle-down",
    "P": "cross",
    "X": "x",
}


def drawn(found: ItemMap, about: str) -> Figure:
    figure, ((axis,),) = canvas(
        9, 8, about=f"{about}, the {len(found.titles):,} most popular\n{NOTE}", grid=False
    )
    for number, kind in enumerate(found.shown):
        rows = [row for row, name in enumerate(found.kinds) if name == kind]
        axis.scatter(
            found.places[rows, 0],
            found.places[rows, 1],
            s=18,
            marker="." if kind == OTHER else MARKERS[number % len(MARKERS)],
            color=PALE if kind == OTHER else COLOURS[number % len(COLOURS)],
            linewidths=0,
            alpha=0.8,
            label=short(f"{kind} ({len(rows)})", 30),
        )
    _label(axis, found)
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    axis.legend(
        frameon=False, fontsize=9, ncols=4, loc="upper center", bbox_to_anchor=(0.5, 0), markerscale=1.6
    )
    return figure


def _label(axis: Any, found: ItemMap) -> None:
    """The titles of the best known items, but for those that would lie on one another."""
    low, high = found.places.min(0), found.places.max(0)
    room = (high - low) * (0.2, 0.028)  # of a label
    taken: list[np.ndarray] = []
    for place, title in zip(found.places, found.titles, strict=True):
        if len(taken) == LABELLED:
            return
        if any((abs(place - other) < room).all() for other in taken):
            continue
        taken.append(place)
        axis.annotate(
            short(title, 26),
            place,
            (0, 4),
            textcoords="offset points",
            fontsize=8,
            ha="center",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.6},
        )


def hovered(found: ItemMap, about: str) -> str:
    """The map as a page: titles on pointing, genres on and off by the legend, closer by dragging."""
    traces = []
    for number, kind in enumerate(found.shown):
        rows = [row for row, name in enumerate(found.kinds) if name == kind]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": f"{kind} ({len(rows)})",
                "x": found.places[rows, 0].round(2).tolist(),
                "y": found.places[rows, 1].round(2).tolist(),
                "text": [
                    "<br>".join(
                        [
                            html.escape(found.titles[row]),
                            html.escape(found.genres[row]) or "no genres known",
                            f"{found.count[row]:,} interactions",
                        ]
                    )
                    for row in rows
                ],
                "hoverinfo": "text",
                "marker": {
                    "color": PALE if kind == OTHER else COLOURS[number % len(COLOURS)],
                    "symbol": "circle" if kind == OTHER else SYMBOLS[MARKERS[number % len(MARKERS)]],
                    "size": 7,
                    "opacity": 0.8,
                },
            }
        )
    hidden = {"visible": False}
    layout = {
        "height": 720,
        "legend": {"orientation": "h", "y": -0.02},
        "margin": {"l": 10, "r": 10, "t": 10, "b": 10},
        "plot_bgcolor": "white",
        "xaxis": hidden,
        "yaxis": hidden,
        "dragmode": "zoom",
    }
    panel = Panel(
        f"The {len(found.titles):,} most popular",
        f"{NOTE[0].upper()}{NOTE[1:]}.",
        {"data": traces, "layout": layout},
    )
    return page("Map of the items", f"{about}.", [panel])
