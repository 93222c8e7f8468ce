"""Accuracy against what else a list is good for: how much of the catalogue is shown, how new, how varied."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from experiments.figures.style import canvas, errors, look
from experiments.report import LABELS
from widedeep.report import Report

ACCURACY = "ndcg_at_10"
AGAINST = (
    ("coverage_at_10", "share of the catalogue in anyone's list"),
    ("novelty_at_10", "how little known the listed items are"),
    ("diversity_at_10", "how much the genres of a list differ"),
)


def trade_offs(reports: Sequence[Report], about: str) -> Figure | None:
    """NDCG@10 against coverage, novelty and diversity, each model with both intervals.

    What applies to no model is left out; None where nothing applies.
    """
    shown = [
        (metric, what)
        for metric, what in AGAINST
        if any(not math.isnan(report.metrics[metric].value) for report in reports)
    ]
    if not shown:
        return None
    figure, (axes,) = canvas(1.4 + 3.2 * len(shown), 4.6, (1, len(shown)), about=about)
    for axis, (metric, what) in zip(axes, shown, strict=True):
        for number, report in enumerate(reports):
            across, up = report.metrics[metric], report.metrics[ACCURACY]
            if math.isnan(across.value) or math.isnan(up.value):
                continue
            axis.errorbar(
                across.value,
                up.value,
                xerr=errors([across]),
                yerr=errors([up]),
                **look(number),
                linestyle="",
                elinewidth=1,
                markersize=7,
                label=report.model,
            )
        axis.set_xlabel(f"{LABELS[metric]}\n{what}")
        axis.set_ylim(bottom=0)
        axis.sharey(axes[0])
        axis.locator_params(axis="x", nbins=5)
    axes[0].set_ylabel(f"{LABELS[ACCURACY]}; all with 95% interval")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6), frameon=False)
    return figure
