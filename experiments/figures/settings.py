"""The searched settings against the objective: one by one, and all at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from experiments.figures import trials
from experiments.figures.style import COLOURS, SCALE, canvas, short
from experiments.figures.trials import Setting

COLUMNS = 3
LINES = 100  # trials in one figure of parallel coordinates


def slices(study: optuna.Study, names: Sequence[str], about: str) -> Figure | None:
    """Each objective over each setting; None where no setting differs among the complete trials."""
    ended = trials.complete(study)
    varied = trials.settings(ended)
    if not varied:
        return None
    columns = min(COLUMNS, len(varied))
    lines = math.ceil(len(varied) / columns)
    shape = (lines * len(names), columns)
    figure, axes = canvas(max(5.0, 3 * columns), 0.6 + 2.5 * shape[0], shape, about=about)
    colour = Normalize(1, max(2, ended[-1].number + 1))
    for objective, name in enumerate(names):
        best = trials.best_of(study, ended, objective)
        panels = axes[objective * lines : (objective + 1) * lines].flat
        for place, axis in enumerate(panels):
            if place >= len(varied):
                axis.set_axis_off()
                continue
            setting = varied[place]
            there = [trial for trial in ended if setting.name in trial.params]
            axis.scatter(
                [_at(setting, trial.params[setting.name]) for trial in there],
                [trial.values[objective] for trial in there],
                c=[trial.number + 1 for trial in there],
                cmap=SCALE,
                norm=colour,
                s=18,
            )
            if setting.name in best.params:
                at = (_at(setting, best.params[setting.name]), best.values[objective])
                axis.plot(
                    *at,
                    "*",
                    color=COLOURS[1],
                    markersize=14,
                    markeredgecolor="white",
                    label=f"best: trial {best.number + 1}",
                )
            if setting.choices is not None:
                axis.set_xticks(
                    range(len(setting.choices)), [short(str(choice), 12) for choice in setting.choices]
                )
            elif setting.logarithmic:
                _logarithmic(axis, [trial.params[setting.name] for trial in there])
            else:
                axis.locator_params(axis="x", nbins=5)
            axis.margins(0.1)
            axis.set_xlabel(short(setting.name, 30))
            if place % columns == 0:
                axis.set_ylabel(short(name, 24))
            else:
                axis.tick_params(labelleft=False)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    if handles:
        words = labels if len(names) == 1 else ["the best by that objective"]
        figure.legend(handles, words, loc="outside lower center", frameon=False)
    bar = figure.colorbar(ScalarMappable(colour, SCALE), ax=axes, aspect=40, pad=0.02)
    bar.set_label("trial")
    bar.locator = MaxNLocator(integer=True, nbins=6)
    return figure


def _at(setting: Setting, value: Any) -> float:
    """On the axis of a slice, which is logarithmic itself."""
    return setting.place(value) if setting.choices is not None else float(value)


def _logarithmic(axis: Any, values: Sequence[float]) -> None:
    """With both ends and the middle written out: the marks that matplotlib sets run into one another."""
    low, high = min(values), max(values)
    axis.set_xscale("log")
    axis.xaxis.set_minor_locator(NullLocator())
    marks = [low, math.sqrt(low * high), high]
    axis.set_xticks(marks, [f"{mark:.2g}" for mark in marks])


def parallel(study: optuna.Study, names: Sequence[str], about: str) -> Figure | None:
    """A line for each complete trial through all its settings to its objectives; None for fewer than two trials.

    Of very many the best by the first objective alone, as no eye follows more.
    """
    everything = trials.complete(study)
    sign = 1 if trials.maximised(study, 0) else -1
    ended = sorted(everything, key=lambda trial: -sign * trial.values[0])[:LINES]
    varied = [
        setting for setting in trials.settings(ended) if all(setting.name in trial.params for trial in ended)
    ]
    if len(ended) < 2 or not varied:
        return None
    figure, ((axis,),) = canvas(
        max(6.0, 1.8 + 1.25 * (len(varied) + len(names))), 4.6, about=about, grid=False
    )
    columns = [[setting.place(trial.params[setting.name]) for trial in ended] for setting in varied]
    columns += [[trial.values[objective] for trial in ended] for objective in range(len(names))]
    values = np.array(columns)
    low, high = values.min(1, keepdims=True), values.max(1, keepdims=True)
    heights = np.where(high > low, (values - low) / np.where(high > low, high - low, 1), 0.5)
    first = values[len(varied)]
    colour = Normalize(first.min(), first.max())
    points = np.stack([np.broadcast_to(np.arange(len(heights))[:, None], heights.shape), heights], axis=2)
    lines = LineCollection(
        list(points[:, ::-1].transpose(1, 0, 2)),  # the best on top
        colors=colormaps[SCALE](colour(first[::-1])),
        linewidths=1.2,
        alpha=max(0.15, min(0.8, 60 / len(ended))),
    )
    axis.add_collection(lines)
    axis.plot(
        *points[:, 0].T,
        color=COLOURS[1],
        linewidth=2.5,
        label=f"best: trial {ended[0].number + 1}",
    )
    for place, setting in enumerate(varied):
        _scale(axis, place, setting, float(low[place, 0]), float(high[place, 0]))
    for place in range(len(varied), len(heights)):
        _scale(axis, place, None, float(low[place, 0]), float(high[place, 0]))
    labels = [
        short(name, 24).replace("_", "_\n", 1) for name in (*(setting.name for setting in varied), *names)
    ]
    axis.set_xticks(range(len(heights)), labels, fontsize=9)
    axis.set(yticks=[], xlim=(-0.4, len(heights) - 0.4), ylim=(-0.08, 1.08))
    axis.spines[["left", "bottom"]].set_visible(False)
    axis.tick_params(bottom=False)
    title = f"the best {LINES} of {len(everything):,} complete trials" if len(everything) > LINES else None
    axis.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1), title=title)
    return figure


def _scale(axis: Any, place: int, setting: Setting | None, low: float, high: float) -> None:
    """A vertical axis with its ends, or its choices, written beside it."""
    axis.axvline(place, color="black", linewidth=0.8)
    if setting is not None and setting.choices is not None:
        marks = [(number / max(1, high), str(choice)) for number, choice in enumerate(setting.choices)]
    else:
        ends = (10**low, 10**high) if setting is not None and setting.logarithmic else (low, high)
        texts = [f"{end:.4g}" for end in ends]
        marks = [(0.0, texts[0]), (1.0, texts[1])] if high > low else [(0.5, texts[0])]
    for height, text in marks:
        axis.annotate(
            short(text, 12),
            (place, height),
            (3, 0),
            textcoords="offset points",
            fontsize=8,
            va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5},
        )
