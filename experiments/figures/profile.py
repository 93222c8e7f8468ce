"""A data set on one page, alone or over the one that it is compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.figures.style import COLOURS, MARKERS, canvas
from experiments.profile import Activity, Profile

BARS = 20  # of ratings
GENRES = 14  # the most frequent
WIDTH = 0.8  # of the bars of one value together


def overview(profile: Profile, reference: Profile | None = None) -> Figure:
    """Ratings, activity of users and of items, interactions over time, inequality of the items, genres.

    reference  what it is compared with: the first in each panel
    """
    shown = (
        [(profile, "this data set")] if reference is None else [(reference, "reference"), (profile, "now")]
    )
    panels: list[Callable[[Any, list[tuple[Profile, str]]], str]] = [
        _ratings,
        lambda axis, sides: _activity(axis, sides, "user", [side.per_user for side, _ in sides]),
        lambda axis, sides: _activity(axis, sides, "item", [side.per_item for side, _ in sides]),
        _over_time,
        _lorenz,
        _genres,
    ]
    about = "\n".join(
        f"{label}: {side.dataset}, {side.interactions:,} interactions, {side.users:,} users, {side.items:,} items"
        for side, label in reversed(shown)
    )
    figure, axes = canvas(9.5, 9.6, (3, 2), about=about)
    for axis, panel in zip(axes.flat, panels, strict=True):
        axis.set_title(panel(axis, shown), fontsize=10, loc="left")
    if reference is not None:
        handles, labels = axes[0, 1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=2, frameon=False, fontsize=9)
    return figure


def _ratings(axis: Any, sides: list[tuple[Profile, str]]) -> str:
    """Shares by value; where there are many different ones, by equal parts of their range."""
    rated = [(side.ratings, side.rating_counts) for side, _ in sides if side.ratings]
    if not rated:
        return _nothing(axis, "no ratings")
    values = sorted({value for ratings, _ in rated for value in ratings})
    few = len(values) <= BARS
    edges = np.linspace(values[0], values[-1], BARS + 1)
    width = WIDTH / len(sides)
    for number, (side, _) in enumerate(sides):
        if not side.ratings:
            continue
        where = np.searchsorted(values, side.ratings) if few else np.searchsorted(edges[1:-1], side.ratings)
        shares = np.bincount(where, side.rating_counts, len(values) if few else BARS) / side.interactions
        axis.bar(
            np.arange(len(shares)) + (number - (len(sides) - 1) / 2) * width,
            100 * shares,
            width,
            color=COLOURS[number],
            hatch="//" if number else None,
            edgecolor="white",
            linewidth=0.5,
        )
    if few:
        size = 8 if len(values) <= BARS // 2 else 6
        axis.set_xticks(range(len(values)), [f"{value:.3g}" for value in values], fontsize=size)
    else:
        axis.set_xticks(np.arange(0, BARS + 1, 4) - 0.5, [f"{edge:.3g}" for edge in edges[::4]], fontsize=8)
    axis.set(xlabel="rating", ylabel="interactions, %")
    return "Ratings"


def _activity(axis: Any, sides: list[tuple[Profile, str]], what: str, activities: list[Activity]) -> str:
    for number, ((_, label), activity) in enumerate(zip(sides, activities, strict=True)):
        axis.plot(
            activity.edges,
            [100 * share for share in activity.at_least()],
            marker=MARKERS[number],
            color=COLOURS[number],
            label=label,
            **_line(number, sides),
        )
    axis.set(xscale="log", yscale="log", xlabel=f"interactions of the {what}, at least", ylabel=f"{what}s, %")
    axis.yaxis.set_major_formatter(lambda value, _place: f"{value:g}")
    axis.xaxis.set_major_formatter(lambda value, _place: f"{value:,.0f}")
    return f"Interactions per {what}"


def _over_time(axis: Any, sides: list[tuple[Profile, str]]) -> str:
    if not any(side.months for side, _ in sides):
        return _nothing(axis, "no times")
    for number, (side, _) in enumerate(sides):
        if side.months:
            first, *_, last = (*side.months, list(side.months)[-1])
            months = np.arange(np.datetime64(first), np.datetime64(last) + 1)
            axis.plot(
                months.astype("datetime64[D]"),
                [side.months.get(str(month), 0) for month in months],
                color=COLOURS[number],
                marker=MARKERS[number] if len(months) <= 36 else None,
                **_line(number, sides),
            )
    axis.tick_params(axis="x", labelsize=8)
    axis.set(ylabel="interactions a month", ylim=(0, None), xlabel="month (UTC)")
    axis.yaxis.set_major_formatter(lambda value, _place: f"{value:,.0f}")
    return "Interactions over time"


def _lorenz(axis: Any, sides: list[tuple[Profile, str]]) -> str:
    axis.plot([0, 100], [0, 100], color=COLOURS[6], linestyle="--", linewidth=1)
    axis.annotate("all items alike", (62, 58), rotation=32, fontsize=8, color=COLOURS[6])
    for number, (side, _) in enumerate(sides):
        share = [100 * value for value in side.lorenz]
        axis.plot(
            range(101),
            share,
            color=COLOURS[number],
            marker=MARKERS[number],
            markevery=10,
            **_line(number, sides),
        )
    axis.set(xlabel="most popular items, %", ylabel="interactions, %", xlim=(0, 100), ylim=(0, 102))
    ginis = " and ".join(f"{side.gini:.2f}" for side, _ in sides)
    return f"What the most popular items have (Gini {ginis})"


def _genres(axis: Any, sides: list[tuple[Profile, str]]) -> str:
    totals = [sum(side.genres.values()) for side, _ in sides]
    names = list(dict.fromkeys(name for side, _ in sides for name in list(side.genres)[:GENRES]))[:GENRES]
    if not names:
        return _nothing(axis, "no genres")
    height = WIDTH / len(sides)
    for number, ((side, _), total) in enumerate(zip(sides, totals, strict=True)):
        axis.barh(
            np.arange(len(names)) + (number - (len(sides) - 1) / 2) * height,
            [100 * side.genres.get(name, 0) / max(1, total) for name in names],
            height,
            color=COLOURS[number],
            hatch="//" if number else None,
            edgecolor="white",
            linewidth=0.5,
        )
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel("share of all genres of the interactions' items, %")
    return "Genres"


def _line(number: int, sides: list[tuple[Profile, str]]) -> dict[str, float]:
    """What the data are compared with is drawn broad and pale, so that it is seen where the two are equal."""
    below = number < len(sides) - 1
    return {"linewidth": 4 if below else 1.2, "markersize": 7 if below else 3.5, "alpha": 0.5 if below else 1}


def _nothing(axis: Any, why: str) -> str:
    axis.set_axis_off()
    axis.text(0.5, 0.5, why, ha="center", va="center", fontsize=10, transform=axis.transAxes)
    return ""
