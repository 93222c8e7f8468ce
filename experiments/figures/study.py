"""What a search has found: how it went, which settings mattered, and what values were good.

What a study has not got (a second trial, one that got to its end, a second setting or objective) is not drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import optuna
from matplotlib.figure import Figure
from optuna.trial import TrialState

from experiments.figures import settings, study_page, trials
from experiments.figures.album import Album
from experiments.figures.style import COLOURS, GREY, PALE, canvas, short

Drawer = Callable[[optuna.Study, Sequence[str], str], Figure | None]
SMALL_FROM = 200  # trials: then points are drawn smaller


def log(study: optuna.Study, album: Album, about: str, names: Sequence[str]) -> None:
    """Everything that there is to see of a study, into figures/ of the run.

    about  what was searched, for the titles;  names: of the objectives, in words
    """
    drawers: dict[str, Drawer] = {
        "search": history,
        "search_importances": importances,
        "search_slices": settings.slices,
        "search_parallel": settings.parallel,
        "search_pareto": pareto,
    }
    for name, draw in drawers.items():
        album.add(f"figures/{name}.png", lambda draw=draw: draw(study, names, about))  # type: ignore[misc]
    album.add("figures/study.html", lambda: study_page.made(study, names, about))


def history(study: optuna.Study, names: Sequence[str], about: str) -> Figure | None:
    """The trials in the order of their numbers, with the best so far; None where fewer than two can be shown."""
    everything = study.get_trials(deepcopy=False)
    ended = trials.complete(study)
    cut = [
        trial
        for trial in everything
        if trial.state == TrialState.PRUNED and trial.values and math.isfinite(trial.values[0])
    ]
    if len(everything) < 2 or not (ended or cut):
        return None
    figure, axes = canvas(9, 0.8 + 3 * len(names), (len(names), 1), about=about)
    size = 4 if len(everything) > SMALL_FROM else 6
    failed = [trial.number + 1 for trial in everything if trial.state == TrialState.FAIL]
    for objective, (axis, name) in enumerate(zip(axes.flat, names, strict=True)):
        if cut:
            points = [(trial.number + 1, trial.values[objective]) for trial in cut]
            axis.plot(
                *zip(*points, strict=True), "x", color=GREY, markersize=size, label="pruned, last value"
            )
        if ended:
            points = [(trial.number + 1, trial.values[objective]) for trial in ended]
            axis.plot(*zip(*points, strict=True), "o", color=COLOURS[0], markersize=size, label="complete")
            best = _best_so_far(points, maximised=trials.maximised(study, objective))
            label = f"best so far, at last {best[-1][1]:.4g}"
            best.append((len(everything), best[-1][1]))
            axis.step(*zip(*best, strict=True), where="post", color=COLOURS[1], label=label)
        if failed:
            how = {"color": "black", "markersize": 10, "transform": axis.get_xaxis_transform()}
            axis.plot(failed, [0.03] * len(failed), "|", label="failed", **how)
        axis.locator_params(axis="x", integer=True)
        axis.set_xlim(0.4, len(everything) + 0.6)
        axis.set_ylabel(name)
        axis.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
    axes.flat[-1].set_xlabel("trial (1: the settings as given)")
    return figure


def _best_so_far(points: Sequence[tuple[int, float]], *, maximised: bool) -> list[tuple[int, float]]:
    found: list[tuple[int, float]] = []
    for number, value in points:
        before = found[-1][1] if found else value
        found.append((number, max(before, value) if maximised else min(before, value)))
    return found


def importances(study: optuna.Study, names: Sequence[str], about: str) -> Figure | None:
    """How much each setting mattered; None where that cannot be said."""
    found = trials.importances(study)
    if not found:
        return None
    figure, ((axis,),) = canvas(9, 1.6 + 0.4 * len(found), about=about)
    for place, share in enumerate(reversed(found.values())):
        axis.barh(place, share, color=COLOURS[0], height=0.7)
        axis.annotate(
            f"{share:.0%}", (share, place), (4, 0), textcoords="offset points", va="center", fontsize=9
        )
    axis.set_yticks(range(len(found)), [short(name, 30) for name in reversed(found)])
    axis.set_xlim(0, max(found.values()) * 1.12)
    axis.grid(visible=False, axis="y")
    better = f"the best tenth by {names[0]}" if len(names) == 1 else "the best by all objectives"
    count = len(trials.complete(study))
    axis.set_xlabel(f"share in what tells {better}\nof {count:,} complete trials from the others (PED-ANOVA)")
    return figure


def pareto(study: optuna.Study, names: Sequence[str], about: str) -> Figure | None:
    """The trials that none surpasses in everything, for each pair of objectives; None for a single one."""
    ended = trials.complete(study)
    if len(names) < 2 or not ended:
        return None
    pairs = [(first, second) for first in range(len(names)) for second in range(first + 1, len(names))]
    columns = min(3, len(pairs))
    figure, axes = canvas(
        max(6.5, 4 * columns),
        4 * math.ceil(len(pairs) / columns),
        (math.ceil(len(pairs) / columns), columns),
        about=about,
    )
    front = {trial.number for trial in study.best_trials}
    for axis, (first, second) in zip(axes.flat, pairs, strict=False):
        for on_front, how in (
            (False, {"color": PALE, "marker": "."}),
            (True, {"color": COLOURS[1], "marker": "D"}),
        ):
            points = [
                (trial.values[first], trial.values[second], trial.number + 1)
                for trial in ended
                if (trial.number in front) == on_front
            ]
            if points:
                label = "none is better in all objectives" if on_front else "other complete trials"
                axis.scatter(*list(zip(*points, strict=True))[:2], **how, label=f"{label} ({len(points):,})")
        towards = ["higher" if trials.maximised(study, number) else "lower" for number in (first, second)]
        axis.set_xlabel(f"{names[first]} ({towards[0]} is better)")
        axis.set_ylabel(f"{names[second]} ({towards[1]} is better)")
        axis.margins(0.08)
    for axis in axes.flat[len(pairs) :]:
        axis.set_axis_off()
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return figure
