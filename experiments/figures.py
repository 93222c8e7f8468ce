"""The figures of a run. Colours of Okabe and Ito, told apart by shape as well, so nobody depends on colour."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.figure import Figure

from experiments.report import LABELS
from widedeep.report import Report, Slice

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
DPI = 130
SLICES = (
    ("history", "ndcg_at_10", "By the length of the user's history", "users"),
    ("popularity", "recall_at_20", "By the popularity of the item", "test likes"),
)


def _figure(
    width: float, height: float, shape: tuple[int, int] = (1, 1), ratios: Sequence[float] = ()
) -> tuple[Figure, Any]:
    """A figure and its axes (rows, columns); ratios of the rows' heights."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    axes = figure.subplots(*shape, squeeze=False, gridspec_kw={"height_ratios": ratios} if ratios else None)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(True, color="#DDDDDD", linewidth=0.7)
        axis.set_axisbelow(True)
    return figure, axes


def by_model(reports: Sequence[Report], metric: str, about: str) -> Figure:
    """One metric of every model with its interval.  about: data set and split, for the title"""
    ordered = sorted(reports, key=lambda report: report.metrics[metric].value)
    figure, ((axis,),) = _figure(8, 1.4 + 0.5 * len(ordered))
    for place, report in enumerate(ordered):
        value = report.metrics[metric]
        number = [other.model for other in reports].index(report.model) % len(COLOURS)
        axis.errorbar(
            value.value,
            place,
            xerr=_error(value.value, value.low, value.high),
            fmt=MARKERS[number],
            color=COLOURS[number],
            capsize=4,
            markersize=8,
        )
        axis.annotate(
            f"{value.value:.3f}",
            (value.value, place),
            (0, 9),
            textcoords="offset points",
            ha="center",
            fontsize=9,
        )
    axis.set_yticks(range(len(ordered)), [report.model for report in ordered])
    axis.set_ylim(-0.6, len(ordered) - 0.3)
    axis.set_xlim(left=0)
    axis.set_xlabel(f"{LABELS[metric]} on the test part, mean over users, with 95% interval")
    axis.set_title(about, fontsize=10, loc="left")
    return figure


def training_curves(curves: Sequence[dict[str, Any]], chosen: dict[str, int], about: str) -> Figure:
    """A row of panels for each head, a panel for each metric.

    curves  rows of head, epoch and metrics
    chosen  head -> the epoch whose weights were kept
    """
    metrics: dict[str, list[str]] = {}
    for row in curves:
        names = metrics.setdefault(row["head"], [])
        names += [name for name in row if name not in ("head", "epoch", *names)]
    columns = max(len(names) for names in metrics.values())
    figure, axes = _figure(4.2 * columns, 2.9 * len(metrics), (len(metrics), columns))
    for line, (head, names) in zip(axes, metrics.items(), strict=True):
        for axis in line[len(names) :]:
            axis.set_axis_off()
        for axis, name in zip(line, names, strict=False):
            points = [(row["epoch"], row[name]) for row in curves if row["head"] == head and name in row]
            axis.plot(*zip(*points, strict=True), marker=".", color=COLOURS[0 if name == "train_loss" else 1])
            axis.margins(y=0.14)  # room for the label above the curve
            early = chosen[head] < 0.6 * len(points)
            axis.axvline(chosen[head], color="#555555", linestyle="--", linewidth=1)
            axis.annotate(
                f"kept: {chosen[head]}",
                (chosen[head], 0.98),
                xycoords=("data", "axes fraction"),
                xytext=(3 if early else -3, 0),
                textcoords="offset points",
                fontsize=8,
                va="top",
                ha="left" if early else "right",
            )
            kind = "training loss" if name == "train_loss" else f"validation {_within(name)}"
            axis.set_title(f"{head} head: {kind}", fontsize=10, loc="left")
            axis.set_xlabel("epoch")
            axis.locator_params(axis="x", integer=True)
    figure.suptitle(about, fontsize=10, x=0.01, ha="left")
    return figure


def _within(name: str) -> str:
    """What a metric is called within a sentence: NDCG@10, AUC, log loss."""
    label = LABELS.get(name, name.replace("_", " "))
    return label if label[:2].isupper() else label[:1].lower() + label[1:]


def reliability(report: Report, about: str) -> Figure | None:
    """How often what is given a probability is in fact liked; None where it does not apply."""
    curve = report.curves.get("reliability")
    if not curve:
        return None
    figure, ((upper,), (lower,)) = _figure(6, 6.2, (2, 1), (3, 1))
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
        means, rates, yerr=margins, fmt="o-", color=COLOURS[0], capsize=3, label=report.model, linewidth=1.2
    )
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="share that is liked")
    error = report.metrics["calibration_error"].value
    upper.set_title(f"{about}\ncalibration error {error:.3f}", fontsize=10, loc="left")
    upper.legend(frameon=False, loc="upper left")
    edges = [float(value or 0.0) for value in curve["low"]]
    widths = [float(high or 0.0) - low for low, high in zip(edges, curve["high"], strict=True)]
    lower.bar(
        edges,
        [float(value or 0.0) for value in curve["count"]],
        width=widths,
        align="edge",
        color="#56B4E9",
        edgecolor="white",
    )
    lower.set(xlim=(0, 1), xlabel="predicted probability of a like", ylabel="test ratings")
    return figure


def by_slice(reports: Sequence[Report], about: str) -> Figure:
    """Every model over parts of the users and of the items."""
    figure, (axes,) = _figure(12, 4.2, (1, len(SLICES)))
    for axis, (kind, metric, title, unit) in zip(axes, SLICES, strict=True):
        parts = _parts(reports, kind, metric)
        for number, report in enumerate(reports):
            found = {
                part.part: part.value for part in report.slices if (part.kind, part.metric) == (kind, metric)
            }
            shift = (number - (len(reports) - 1) / 2) * 0.7 / max(1, len(reports))
            there = [(place + shift, found[name]) for place, (name, _) in enumerate(parts) if name in found]
            there = [(place, value) for place, value in there if not math.isnan(value.value)]
            axis.errorbar(
                [place for place, _ in there],
                [value.value for _, value in there],
                yerr=_errors(value for _, value in there),
                fmt=MARKERS[number % len(MARKERS)],
                color=COLOURS[number % len(COLOURS)],
                capsize=3,
                label=report.model,
                clip_on=False,
            )
        axis.set_xticks(range(len(parts)), [f"{name}\n{size:,} {unit}" for name, size in parts], fontsize=8)
        axis.set_ylim(bottom=0)
        axis.set_ylabel(f"{LABELS[metric]}, 95% interval")
        axis.set_title(title, fontsize=10, loc="left")
    axes[0].legend(frameon=False, fontsize=8)
    figure.suptitle(about, fontsize=10, x=0.01, ha="left")
    return figure


def _parts(reports: Sequence[Report], kind: str, metric: str) -> list[tuple[str, int]]:
    def matching(part: Slice) -> bool:
        return (part.kind, part.metric) == (kind, metric)

    return list(
        dict.fromkeys(
            (part.part, part.size) for report in reports[:1] for part in report.slices if matching(part)
        )
    )


def search_history(values: Sequence[tuple[int, float | None, str]], about: str) -> Figure:
    """The trials of a search.  values: number, validation NDCG@10, state (COMPLETE, PRUNED, FAIL)"""
    figure, ((axis,),) = _figure(7, 3.6)
    for state, marker, colour in (("COMPLETE", "o", COLOURS[0]), ("PRUNED", "x", COLOURS[6])):
        points = [
            (number + 1, value) for number, value, found in values if found == state and value is not None
        ]
        if points:
            axis.plot(*zip(*points, strict=True), marker, color=colour, label=state.lower())
    best: list[tuple[int, float]] = []
    for number, value, state in values:
        if state == "COMPLETE" and value is not None:
            best.append((number + 1, max(value, best[-1][1] if best else value)))
    if best:
        best.append((len(values), best[-1][1]))
        axis.step(*zip(*best, strict=True), where="post", color=COLOURS[1], label="best so far")
    axis.set_xticks(_ticks(len(values)))
    axis.set_xlabel("trial (1: the settings as given)")
    axis.set_ylabel("NDCG@10 on the validation part")
    axis.set_title(about, fontsize=10, loc="left")
    axis.legend(frameon=False, fontsize=8)
    return figure


def _ticks(count: int) -> list[int]:
    step = max(1, math.ceil(count / 20))
    return list(range(1, count + 1, step))


def _error(value: float, low: float, high: float) -> list[list[float]] | None:
    return None if math.isnan(low) else [[max(0.0, value - low)], [max(0.0, high - value)]]


def _errors(values: Iterable[Any]) -> list[list[float]] | None:
    found = [_error(value.value, value.low, value.high) for value in values]
    if not found or any(error is None for error in found):
        return None
    return [[error[side][0] for error in found if error] for side in (0, 1)]
