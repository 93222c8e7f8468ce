"""The like-probability as a yes or no: precision and recall, and what becomes of the test ratings at a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from experiments.figures.style import COLOURS, canvas, look, rule
from widedeep.report import Report
from widedeep.thresholds import Thresholds

PARTS = (
    ("liked, predicted liked (TP)", "true positives", COLOURS[0], ""),
    ("liked, not predicted (FN)", "false negatives", COLOURS[5], "///"),
    ("not liked, predicted liked (FP)", "false positives", COLOURS[1], "\\\\\\"),
    ("not liked, not predicted (TN)", "true negatives", "#DDDDDD", ""),
)
SHOWN = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # thresholds of the table


def thresholds_of(report: Report) -> Thresholds | None:
    """None where the like metrics do not apply."""
    curve = report.curves.get("thresholds")
    return Thresholds.from_curve(curve) if curve else None


def average_precision(report: Report) -> float | None:
    found = thresholds_of(report)
    return None if found is None else found.average_precision


def precision_recall(reports: Sequence[Report], about: str) -> Figure | None:
    """Of every model that gives probabilities, beside what chance would do; None where there is none."""
    drawn = [(number, report, thresholds_of(report)) for number, report in enumerate(reports)]
    known = [(number, report, found) for number, report, found in drawn if found is not None]
    if not known:
        return None
    figure, ((axis,),) = canvas(7, 5, about=about)
    for number, report, found in known:
        there = ~found.precision.isnan()
        axis.plot(
            found.recall[there].tolist(),
            found.precision[there].tolist(),
            **look(number),
            markevery=0.1,
            linewidth=1.5,
            label=f"{report.model}: average precision {found.average_precision:.3f}",
        )
    base = known[0][2].base_rate
    rule(axis, y=base, label=f"all predicted liked, or any by chance: {base:.3f}")
    axis.set(xlim=(0, 1.01), ylim=(0, 1.02))
    axis.set_xlabel("recall: share of the test likes that are predicted")
    axis.set_ylabel("precision: share of the predicted likes that are likes")
    axis.legend(frameon=False, loc="lower left")
    return figure


def at_thresholds(report: Report) -> pd.DataFrame | None:
    """One row for each of some thresholds, and for that of the highest F1; None where there are no probabilities."""
    found = thresholds_of(report)
    if found is None:
        return None
    bins = len(found.positive)
    best = int(found.f1.argmax())
    places = sorted({*(round(shown * bins) for shown in SHOWN), best})
    likes, others = float(found.positive.sum()), float(found.negative.sum())
    return pd.DataFrame(
        [
            {
                "threshold": place / bins,
                "precision": _rounded(found.precision, place),
                "recall": _rounded(found.recall, place),
                "F1": _rounded(found.f1, place),
                "predicted liked": _rounded(found.predicted_share, place),
                "true positives": int(found.true_positive[place]),
                "false positives": int(found.false_positive[place]),
                "false negatives": int(likes - found.true_positive[place]),
                "true negatives": int(others - found.false_positive[place]),
                "note": "highest F1" if place == best else "",
            }
            for place in places
        ]
    )


def _rounded(values: Tensor, place: int) -> float | None:
    value = float(values[place])
    return None if value != value else round(value, 4)


def thresholds(report: Report, about: str) -> Figure | None:
    """Precision, recall, F1 and share over the threshold, and below it the confusion at some of them."""
    found, table = thresholds_of(report), at_thresholds(report)
    if found is None or table is None:
        return None
    figure, ((axis,), (lower,)) = canvas(9, 7.6, (2, 1), about=about, ratios=(1, 1))
    lines = (
        ("precision", found.precision),
        ("recall", found.recall),
        ("F1", found.f1),
        ("share of ratings\npredicted liked", found.predicted_share),
    )
    for number, (name, values) in enumerate(lines):
        x, y = found.threshold.tolist(), values.tolist()
        axis.plot(x, y, **look(number), markevery=0.1, linewidth=1.5, label=name)
    best = table[table["note"] != ""].iloc[0]
    rule(axis, x=best["threshold"])
    late = best["threshold"] > 0.6
    axis.annotate(
        f"highest F1: {best['F1']:.3f} at {best['threshold']:.3f}",
        (best["threshold"], 0.03),
        (-4 if late else 4, 0),
        textcoords="offset points",
        ha="right" if late else "left",
        fontsize=9,
    )
    axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="threshold: a like is predicted from this probability on")
    axis.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
    _confusion(lower, table)
    return figure


def _confusion(axis: Any, table: pd.DataFrame) -> None:
    """The test ratings at each threshold, as one bar of four parts."""
    total = float(table[[column for _, column, _, _ in PARTS]].iloc[0].sum())
    before = [0.0] * len(table)
    for label, column, colour, hatch in PARTS:
        counts = table[column].tolist()
        bars = {"color": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0.5, "label": label}
        axis.barh(range(len(table)), counts, left=before, height=0.8, **bars)
        for place, (start, count) in enumerate(zip(before, counts, strict=True)):
            if count > 0.06 * total:
                axis.annotate(
                    f"{count:,}",
                    (start + count / 2, place),
                    ha="center",
                    va="center",
                    fontsize=8,
                    bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
                )
        before = [start + count for start, count in zip(before, counts, strict=True)]
    names = [f"{row.threshold:g}{' (highest F1)' if row.note else ''}" for row in table.itertuples()]
    axis.set_yticks(range(len(table)), names, fontsize=9)
    axis.set(xlim=(0, total), xlabel="test ratings", ylabel="threshold")
    axis.grid(visible=False)
    axis.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
