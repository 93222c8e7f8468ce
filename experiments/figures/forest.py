"""Differences with their intervals, one below the other, and the verdict of the gate in that form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from experiments.figures.style import COLOURS, GREY, canvas, rule, short
from experiments.gate import METRIC, Verdict
from experiments.report import LABELS
from widedeep.bootstrap import Interval, ratio_intervals
from widedeep.report import Report


@dataclass(frozen=True)
class Row:
    """One comparison.

    needed  what the lower end of the interval has to be above; None where nothing was asked for
    passed  whether it is; None likewise
    note    is written to the right
    """

    name: str
    difference: Interval
    note: str = ""
    needed: float | None = None
    passed: bool | None = None


def forest(rows: Sequence[Row], what: str, about: str, *, shares: bool = False) -> Figure | None:
    """None without rows.  what: the axis' label;  shares: differences are shown in per cent"""
    if not rows:
        return None
    figure, ((axis,),) = canvas(9, 1.9 + 0.55 * len(rows), about=about)
    rule(axis, x=0, linestyle="-", color=GREY)
    for place, row in enumerate(reversed(rows)):
        found = row.difference
        refused = row.passed is False
        low, high = (found.value if math.isnan(end) else end for end in (found.low, found.high))
        axis.plot([low, high], [place, place], color=COLOURS[1 if refused else 0], linewidth=2)
        axis.plot(
            found.value, place, "X" if refused else "o", color=COLOURS[1 if refused else 0], markersize=8
        )
        if row.needed is not None:
            ends = [place - 0.3, place + 0.3]
            axis.plot([row.needed] * 2, ends, color="black", linewidth=1.5, linestyle=":")
        axis.annotate(row.note, (1.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=9)
    axis.set_yticks(range(len(rows)), [short(row.name, 36) for row in reversed(rows)])
    axis.set_ylim(-0.6, len(rows) - 0.4)
    axis.margins(x=0.08)
    axis.locator_params(axis="x", nbins=7)
    axis.set_xlabel(what)
    if shares:
        axis.xaxis.set_major_formatter(PercentFormatter(1))
    axis.grid(visible=False, axis="y")
    return figure


def verdict(found: Verdict, about: str) -> Figure | None:
    """What the gate has compared, with what was needed as a dotted line; None where it compared nothing."""
    shares = all(math.isfinite(duel.difference.relative.value) for duel in found.duels)
    rows = []
    for duel in found.duels:
        shown = duel.difference.relative if shares else duel.difference.absolute
        kind = "+.1%" if shares else "+.4f"
        rows.append(
            Row(
                duel.against,
                shown,
                f"{shown.value:{kind}} ({shown.low:{kind}} to {shown.high:{kind}})\n"
                f"{duel.difference.mean:.4f} against {duel.difference.reference_mean:.4f}: "
                f"{'passed' if duel.passed else 'refused'}",
                -duel.margin,
                duel.passed,
            )
        )
    unit = "in per cent of the other's mean" if shares else "absolute"
    return forest(
        rows,
        f"difference of {LABELS[METRIC]}, {unit}, with 95% interval;\ndotted: what its lower end must be above",
        f"{about}\nGate ({found.rule}): {found.word}",
        shares=shares,
    )


def against_others(reports: Sequence[Report], about: str, *, samples: int, seed: int = 0) -> Figure | None:
    """The first report's NDCG@10 against every other's, user by user.  samples: of the paired bootstrap"""
    ours, *others = reports
    pairs = [
        pd.concat([ours.per_user[METRIC], other.per_user[METRIC]], axis=1).to_numpy(float) for other in others
    ]
    if not pairs:
        return None
    gains = np.stack([pair[:, 0] - pair[:, 1] for pair in pairs], axis=1)
    intervals = ratio_intervals(gains, np.ones_like(gains), samples=samples, seed=seed)
    rows = [
        Row(
            other.model,
            found,
            f"{found.value:+.4f}, better for {np.mean(gain > 0):.0%},\nworse for {np.mean(gain < 0):.0%} of the users",
        )
        for other, found, gain in zip(others, intervals, gains.T, strict=True)
    ]
    return forest(
        rows,
        f"difference of {LABELS[METRIC]} of {ours.model}, mean over the same {len(gains):,} users, 95% interval",
        f"{about}: {ours.model} against the others, user by user",
    )
