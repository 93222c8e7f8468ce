"""How a training went: its curves by epoch, and where its time went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from experiments.figures.style import COLOURS, GREY, PALE, canvas, rule
from experiments.report import LABELS, duration

MEANT = {
    "data": "data: load and split",
    "vet": "vet: look at the data",
    "tune": "tune: the search",
    "select": "select: train, choose on validation",
    "train": "train: without the test part",
    "evaluate": "evaluate: model and baselines",
    "refit": "refit: on all interactions",
    "register": "register: log the model, load it back",
    "gate": "gate: against the champion",
    "figures": "figures",
}
REST = "the rest: start and logging"
HEADS = {
    "wide": "wide and low-rank, closed form",
    "ranking": "ranking head, by gradient",
    "like": "like head, by gradient",
    "other": "choices after and between",
}


def curves(rows: Sequence[Mapping[str, Any]], chosen: Mapping[str, int], about: str) -> Figure | None:
    """A row of panels for each head, a panel for each metric; None without rows.

    rows    head, epoch and metrics each
    chosen  head -> the epoch whose weights were kept
    """
    metrics: dict[str, list[str]] = {}
    for row in rows:
        names = metrics.setdefault(row["head"], [])
        names += [name for name in row if name not in ("head", "epoch", *names)]
    if not metrics:
        return None
    columns = max(len(names) for names in metrics.values())
    figure, axes = canvas(3.4 * columns, 2.7 * len(metrics), (len(metrics), columns), about=about)
    for line, (head, names) in zip(axes, metrics.items(), strict=True):
        for axis in line[len(names) :]:
            axis.set_axis_off()
        for axis, name in zip(line, names, strict=False):
            points = [(row["epoch"], row[name]) for row in rows if row["head"] == head and name in row]
            axis.plot(*zip(*points, strict=True), marker=".", color=COLOURS[0 if name == "train_loss" else 1])
            axis.margins(y=0.14)  # room for the label above the curve
            early = chosen[head] < 0.6 * len(points)
            rule(axis, x=chosen[head])
            axis.annotate(
                f"kept: {chosen[head]}",
                (chosen[head], 0.98),
                xycoords=("data", "axes fraction"),
                xytext=(3 if early else -3, 0),
                textcoords="offset points",
                fontsize=9,
                va="top",
                ha="left" if early else "right",
            )
            kind = "training loss" if name == "train_loss" else f"validation {_within(name)}"
            axis.set_title(f"{head} head: {kind}", fontsize=10, loc="left")
            axis.set_xlabel("epoch")
            axis.locator_params(axis="x", integer=True)
    return figure


def _within(name: str) -> str:
    """What a metric is called within a sentence: NDCG@10, AUC, log loss."""
    label = LABELS.get(name, name.replace("_", " "))
    return label if label[:2].isupper() else label[:1].lower() + label[1:]


def times(stages: Mapping[str, float], heads: Mapping[str, float], total: float, about: str) -> Figure | None:
    """Where a job's time went, and below it that of the trainings in it; None where no time is known.

    stages  seconds by stage, see `stages.timed`;  heads: seconds of all trainings by head
    total   seconds of the whole job
    """
    rest = total - sum(stages.values())
    groups = [
        ("The job", [*_in_order(stages, MEANT), *([(REST, rest)] if rest > 0 else [])]),
        ("All trainings of this process", _in_order(heads, HEADS)),
    ]
    groups = [(title, bars) for title, bars in groups if sum(seconds for _, seconds in bars) > 0]
    if not groups:
        return None
    sizes = [len(bars) for _, bars in groups]
    figure, axes = canvas(
        9, 0.8 + 0.7 * len(groups) + 0.3 * sum(sizes), (len(groups), 1), about=about, ratios=sizes
    )
    longest = max(seconds for _, bars in groups for _, seconds in bars)
    for axis, (title, bars) in zip(axes.flat, groups, strict=True):
        whole = sum(seconds for _, seconds in bars)
        for place, (name, seconds) in enumerate(reversed(bars)):
            axis.barh(place, seconds, color=PALE if name == REST else COLOURS[0], height=0.7)
            axis.annotate(
                f"{_seconds(seconds)}, {seconds / whole:.0%}",
                (seconds, place),
                (4, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
                color=GREY,
            )
        axis.set_yticks(range(len(bars)), [name for name, _ in reversed(bars)], fontsize=9)
        axis.set_xlim(0, longest * 1.18)
        axis.grid(visible=False, axis="y")
        axis.set_title(f"{title}: {duration(whole)}", fontsize=10, loc="left")
    axes.flat[-1].set_xlabel("seconds")
    return figure


def _in_order(seconds: Mapping[str, float], names: Mapping[str, str]) -> list[tuple[str, float]]:
    """Names in words and seconds, in the order of `names`; what they do not have comes last."""
    places = {name: place for place, name in enumerate(names)}
    found = sorted(seconds, key=lambda name: places.get(name, len(places)))
    return [(names.get(name, name), seconds[name]) for name in found]


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 10 else duration(value)
