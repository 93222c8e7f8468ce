"""A study as one page to point at, zoom into and drag axes of, drawn by Optuna."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna import visualization
from plotly.graph_objects import Bar, Figure

from experiments.figures import trials
from experiments.figures.interactive import Panel, page
from experiments.figures.style import COLOURS


def made(study: optuna.Study, names: Sequence[str], about: str) -> str | None:
    """HTML; None where fewer than two trials got to their end."""
    ended = trials.complete(study)
    if len(ended) < 2:
        return None
    panels = []
    for objective, name in enumerate(names):
        panels += _of_objective(study, name, None if len(names) == 1 else objective)
    if trials.importances(study):
        panels.append(
            Panel(
                "Importances",
                "How much each setting has to do with a trial being among the best (PED-ANOVA).",
                _bars(trials.importances(study)),
            )
        )
    if len(names) in (2, 3):
        panels.append(
            Panel(
                "Pareto front",
                "The trials that no other surpasses in all objectives.",
                visualization.plot_pareto_front(study, target_names=list(names)),
            )
        )
    states = [trial.state.name.lower() for trial in study.get_trials(deepcopy=False)]
    counts = ", ".join(f"{states.count(state):,} {state}" for state in dict.fromkeys(states))
    for panel in panels:
        panel.figure.update_layout(title=None, width=None, height=None, autosize=True, margin={"t": 30})
        panel.figure.update_xaxes({"dtick": 1}, selector={"type": "log"})  # marks at the powers of ten alone
    return page(
        about, f"{len(states):,} trials: {counts}. Trials are counted from 0 here, as Optuna does.", panels
    )


def _bars(shares: Mapping[str, float]) -> Any:
    """Not Optuna's own, which takes several objectives one by one and would need each turned to its lower side."""
    names, values = list(shares)[::-1], list(shares.values())[::-1]
    texts = [f"{value:.0%}" for value in values]
    return Figure(Bar(x=values, y=names, text=texts, orientation="h", marker={"color": COLOURS[0]}))


def _of_objective(study: optuna.Study, name: str, objective: int | None) -> list[Panel]:
    """objective  which of several; None where there is one"""
    target = None if objective is None else lambda trial: trial.values[objective]
    kind: dict[str, Any] = {"target": target, "target_name": name}
    ended = trials.complete(study)
    varied = [setting.name for setting in trials.settings(ended)]
    of = "" if objective is None else f": {name}"
    found = [
        Panel(
            f"History{of}",
            "Every complete trial, and the best so far.",
            visualization.plot_optimization_history(study, **kind),
        )
    ]
    if varied:
        found += [
            Panel(
                f"Parallel coordinates{of}",
                "A line is a trial. Drag along an axis to pick trials, drag an axis to move it.",
                visualization.plot_parallel_coordinate(study, params=varied, **kind),
            ),
            Panel(
                f"Slices{of}",
                "Each setting against the objective.",
                visualization.plot_slice(study, params=varied, **kind),
            ),
        ]
    return found
