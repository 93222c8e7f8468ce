"""The report in figures: every model with its interval, over parts of users and items, and its reliability."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from experiments.figures.style import COLOURS, canvas, errors, look, rule
from experiments.report import LABELS
from widedeep.report import Report, Slice

SLICES = (
    ("history", "ndcg_at_10", "By the length of the user's history", "users"),
    ("popularity", "recall_at_20", "By the popularity of the item", "likes"),
)


def by_model(reports: Sequence[Report], metric: str, about: str) -> Figure:
    """One metric of every model with its interval, the best on top.  about: data set and split, for the title"""
    ordered = sorted(enumerate(reports), key=lambda pair: pair[1].metrics[metric].value)
    figure, ((axis,),) = canvas(8, 1.6 + 0.5 * len(ordered), about=about)
    for place, (number, report) in enumerate(ordered):
        value = report.metrics[metric]
        axis.errorbar(
            value.value, place, xerr=errors([value]), **look(number), linestyle="", capsize=4, markersize=8
        )
        axis.annotate(
            f"{value.value:.3f}",
            (value.value, place),
            (0, 9),
            textcoords="offset points",
            ha="center",
            fontsize=9,
        )
    axis.set_yticks(range(len(ordered)), [report.model for _, report in ordered])
    axis.set_ylim(-0.6, len(ordered) - 0.3)
    axis.set_xlim(left=0)
    axis.set_xlabel(f"{LABELS[metric]} on the test part, mean over users, with 95% interval")
    return figure


def by_slice(reports: Sequence[Report], about: str) -> Figure:
    """Every model over parts of the users and of the items."""
    figure, axes = canvas(9, 3.6 * len(SLICES), (len(SLICES), 1), about=about)
    for axis, (kind, metric, title, unit) in zip(axes.flat, SLICES, strict=True):
        parts = _parts(reports, kind, metric)
        for number, report in enumerate(reports):
            found = {part.part: part.value for part in _matching(report, kind, metric)}
            shift = (number - (len(reports) - 1) / 2) * 0.7 / max(1, len(reports))
            there = [(place + shift, found[name]) for place, (name, _) in enumerate(parts) if name in found]
            there = [(place, value) for place, value in there if not math.isnan(value.value)]
            axis.errorbar(
                [place for place, _ in there],
                [value.value for _, value in there],
                yerr=errors(value for _, value in there),
                **look(number),
                linestyle="",
                capsize=3,
                label=report.model,
                clip_on=False,
            )
        axis.set_xticks(range(len(parts)), [f"{name}\n{size:,} {unit}" for name, size in parts], fontsize=9)
        axis.set_xlim(-0.5, len(parts) - 0.5)
        axis.set_ylim(bottom=0)
        axis.grid(visible=False, axis="x")
        for edge in range(1, len(parts)):
            rule(axis, x=edge - 0.5, linestyle="-", color="#DDDDDD")
        axis.set_ylabel(f"{LABELS[metric]}, 95% interval")
        axis.set_title(title, fontsize=10, loc="left")
    axes[0, 0].legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _matching(report: Report, kind: str, metric: str) -> list[Slice]:
    return [part for part in report.slices if (part.kind, part.metric) == (kind, metric)]


def _parts(reports: Sequence[Report], kind: str, metric: str) -> list[tuple[str, int]]:
    """Names and sizes: those of the first report, which are those of all."""
    return list(dict.fromkeys((part.part, part.size) for part in _matching(reports[0], kind, metric)))


def reliability(report: Report, about: str) -> Figure | None:
    """How often what is given a probability is in fact liked; None where it does not apply."""
    curve = report.curves.get("reliability")
    if not curve:
        return None
    error = report.metrics["calibration_error"].value
    figure, ((upper,), (lower,)) = canvas(
        7, 6.2, (2, 1), about=f"{about}: calibration error {error:.3f}", ratios=(3, 1)
    )
    points = [
        (mean, rate, count)
        for mean, rate, count in zip(
            curve["mean_probability"], curve["positive_rate"], curve["count"], strict=True
        )
        if mean is not None and rate is not None and count
    ]
    means, rates, counts = ([float(point[column]) for point in points] for column in range(3))
    margins = [
        1.96 * math.sqrt(max(rate * (1 - rate), 1e-9) / count)
        for rate, count in zip(rates, counts, strict=True)
    ]
    upper.plot([0, 1], [0, 1], color="#555555", linestyle="--", linewidth=1, label="perfectly calibrated")
    upper.errorbar(
        means,
        rates,
        yerr=margins,
        fmt="o-",
        color=COLOURS[0],
        capsize=3,
        label=f"{report.model}, 95% interval",
        linewidth=1.2,
    )
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="share that is liked")
    upper.legend(frameon=False, loc="upper left")
    edges = [float(value or 0.0) for value in curve["low"]]
    widths = [float(high or 0.0) - low for low, high in zip(edges, curve["high"], strict=True)]
    lower.bar(
        edges,
        [float(value or 0.0) for value in curve["count"]],
        width=widths,
        align="edge",
        color=COLOURS[5],
        edgecolor="white",
    )
    lower.set(xlim=(0, 1), xlabel="predicted probability of a like", ylabel="test ratings")
    return figure
