"""The figures of a search: what they show of a known study, and studies that have next to nothing to show."""

from __future__ import annotations

import base64
import gzip
import io
import json
import math
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from mlflow.tracking import MlflowClient
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from plotly.offline import get_plotlyjs

from experiments.figures import interactive, settings, study, study_page, trials
from experiments.figures.album import Album
from experiments.figures.interactive import Panel
from experiments.progress import Console
from experiments.tracking import open_run

pytest_plugins = ["experiment_fixtures"]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
RATE, SIZE = FloatDistribution(1e-4, 1e-1, log=True), CategoricalDistribution((256, 64, 128))
DRAWERS = (study.history, study.importances, study.pareto, settings.slices, settings.parallel)


def _study(found: Sequence[FrozenTrial], directions: Sequence[str] = ("maximize",)) -> optuna.Study:
    made = optuna.create_study(directions=list(directions))
    made.add_trials(list(found))
    return made


def _trial(*values: float, state: TrialState = TrialState.COMPLETE, **params: Any) -> FrozenTrial:
    kinds: dict[str, BaseDistribution] = {"rate": RATE, "size": SIZE, "other": FloatDistribution(0, 1)}
    return create_trial(
        state=state,
        values=list(values) or None,
        params=params,
        distributions={name: kinds[name] for name in params},
        intermediate_values={1: values[0]} if state == TrialState.PRUNED and values else {},
    )


def _full(count: int, directions: Sequence[str] = ("maximize",)) -> optuna.Study:
    """The rate alone matters: the nearer to 0.01 the better. Every fifth trial is pruned, every ninth fails."""
    generator = np.random.default_rng(0)
    found = []
    for number in range(count):
        params = {
            "rate": 10 ** generator.uniform(-4, -1),
            "size": int(generator.choice(SIZE.choices)),
            "other": generator.uniform(),
        }
        value = 1 - abs(math.log10(params["rate"]) + 2)
        values = [value, float(params["size"]), number % 7.0][: len(directions)]
        state = TrialState.COMPLETE
        if len(directions) == 1 and number and number % 9 == 0:
            state, values = TrialState.FAIL, []
        elif len(directions) == 1 and number and number % 5 == 0:
            state = TrialState.PRUNED
        found.append(_trial(*values, state=state, **params))
    return _study(found, directions)


def _names(made: optuna.Study) -> list[str]:
    return [f"objective {number}" for number in range(len(made.directions))]


ODD: dict[str, Callable[[], optuna.Study]] = {
    "no trial": lambda: _study([]),
    "one trial": lambda: _study([_trial(0.5, rate=0.01, size=64)]),
    "one trial that failed": lambda: _study([_trial(state=TrialState.FAIL, rate=0.01)]),
    "all failed": lambda: _study([_trial(state=TrialState.FAIL, rate=0.01) for _ in range(3)]),
    "all pruned": lambda: _study([_trial(0.1 * n, state=TrialState.PRUNED, rate=0.01) for n in (1, 2, 3)]),
    "pruned without a value": lambda: _study([_trial(state=TrialState.PRUNED, rate=0.01) for _ in range(3)]),
    "two trials": lambda: _study([_trial(0.5, rate=0.01, size=64), _trial(0.5, rate=0.01, size=256)]),
    "three alike": lambda: _study([_trial(0.5, rate=0.01, size=64) for _ in range(3)]),
    "no settings": lambda: _study([_trial(0.1 * number) for number in range(12)]),
    "one setting": lambda: _study([_trial(0.1 * number, rate=10.0**-number) for number in range(1, 4)]),
    "settings that not all have": lambda: _study(
        [_trial(0.1, rate=0.01, other=0.2), _trial(0.3, rate=0.02), _trial(0.2, rate=0.03, other=0.5)]
    ),
    "still running": lambda: _study([_trial(0.5, rate=0.01), _trial(state=TrialState.RUNNING, rate=0.02)]),
    "endless values": lambda: _study([_trial(math.inf, rate=0.01), _trial(0.2, rate=0.02), _trial(0.1, rate=0.03)]),
    "two objectives, one trial": lambda: _study([_trial(1.0, 2.0, rate=0.01)], ["maximize", "minimize"]),
    "two objectives, none": lambda: _study([], ["maximize", "minimize"]),
    "two objectives, pruned": lambda: _study(
        [_trial(state=TrialState.PRUNED, rate=0.01)] * 3, ["maximize", "minimize"]
    ),
    "four objectives": lambda: _study(
        [_trial(1.0 * n, 2.0, -n, n % 3, rate=0.01 + n / 100) for n in range(3)], ["maximize"] * 4
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_what_a_study_has_not_got_is_left_out(name: str) -> None:
    made = ODD[name]()
    for draw in DRAWERS:
        figure = draw(made, _names(made), f"{name}, " * 40)
        if figure is not None:
            figure.savefig(io.BytesIO())
    page = study_page.made(made, _names(made), name)
    enough = len(trials.complete(made)) > 1
    assert (page is not None) == enough
    if not enough:
        assert settings.slices(made, _names(made), name) is None
        assert settings.parallel(made, _names(made), name) is None


def test_the_history_shows_every_trial_in_its_place() -> None:
    made = _study(
        [
            _trial(0.2, rate=0.01),
            _trial(0.1, rate=0.02, state=TrialState.PRUNED),
            _trial(state=TrialState.FAIL, rate=0.03),
            _trial(0.1, rate=0.02),
            _trial(0.4, rate=0.02),
        ]
    )
    figure = study.history(made, ["NDCG"], "known")
    assert figure is not None
    lines = {line.get_label(): line.get_xydata().tolist() for line in figure.axes[0].lines}
    assert lines["complete"] == [[1, 0.2], [4, 0.1], [5, 0.4]]
    assert lines["pruned, last value"] == [[2, 0.1]]
    assert lines["best so far, at last 0.4"] == [[1, 0.2], [4, 0.2], [5, 0.4], [5, 0.4]]
    assert [x for x, _ in lines["failed"]] == [3]


def test_what_is_to_be_small_is_best_when_small() -> None:
    made = _study([_trial(value, rate=value) for value in (0.03, 0.01, 0.02)], ["minimize"])
    figure = study.history(made, ["loss"], "known")
    assert figure is not None
    assert figure.axes[0].lines[1].get_ydata().tolist() == [0.03, 0.01, 0.01, 0.01]
    best = trials.best_of(made, trials.complete(made))
    assert best.number == 1
    parallel = settings.parallel(made, ["loss"], "known")
    assert parallel is not None
    assert parallel.axes[0].lines[0].get_label() == "best: trial 2"


def test_importance_goes_to_what_matters() -> None:
    found = trials.importances(_full(60))
    assert next(iter(found)) == "rate"
    assert found["rate"] > 0.8
    assert sum(found.values()) == pytest.approx(1)
    assert trials.importances(_full(trials.FEWEST - 1)) == {}  # would be chance


def test_settings_lie_where_their_kind_says() -> None:
    made = _study([_trial(0.1, rate=0.001, size=256, other=0.2), _trial(0.2, rate=0.1, size=64, other=0.2)])
    found = {setting.name: setting for setting in trials.settings(trials.complete(made))}
    assert set(found) == {"rate", "size"}  # the other is the same in both
    assert found["size"].choices == (64, 256)
    assert found["size"].place(256) == 1
    assert found["rate"].place(0.001) == pytest.approx(-3)
    mixed = trials.Setting("mixed", tuple(sorted((None, "a", 3, True, 2.5), key=trials._in_order)), False)
    assert mixed.choices == (True, 2.5, 3, None, "a")


def test_the_front_is_what_none_surpasses() -> None:
    made = _study(
        [_trial(a, b, rate=0.01) for a, b in ((1.0, 1.0), (2.0, 2.0), (0.5, 3.0), (2.0, 1.5))],
        ["maximize", "minimize"],
    )
    figure = study.pareto(made, ["quality", "seconds"], "known")
    assert figure is not None
    others, front = figure.axes[0].collections
    assert sorted(front.get_offsets().tolist()) == [[1.0, 1.0], [2.0, 1.5]]
    assert sorted(others.get_offsets().tolist()) == [[0.5, 3.0], [2.0, 2.0]]
    assert figure.axes[0].get_xlabel() == "quality (higher is better)"
    assert figure.axes[0].get_ylabel() == "seconds (lower is better)"


def test_of_very_many_trials_the_best_are_followed() -> None:
    made = _full(300)
    figure = settings.parallel(made, ["NDCG"], "known")
    assert figure is not None
    [lines] = figure.axes[0].collections
    assert len(lines.get_segments()) == settings.LINES
    assert "the best 100 of 214 complete trials" in figure.axes[0].get_legend().get_title().get_text()


def _payload(page: str, name: str) -> str:
    [found] = re.findall(rf'<script type="[a-z/-]+" id="{name}">(.*?)</script>', page, re.DOTALL)
    return str(found)


def test_a_page_holds_all_that_it_needs_once() -> None:
    title = 'a <script>alert("x")</script> & co'
    figure = {"data": [{"type": "bar", "x": ["</script>"], "y": [1]}], "layout": {}}
    page = interactive.page(title, "about", [Panel(title, title, figure), Panel("b", "b", figure)])
    assert gzip.decompress(base64.b64decode(_payload(page, "library"))).decode() == get_plotlyjs()
    assert json.loads(_payload(page, "figure-1"))["data"][0]["x"] == ["</script>"]
    shown = page.replace(_payload(page, "library"), "")
    assert "alert(" in shown
    assert "<script>alert" not in shown
    assert not re.search(r"""(src|href)\s*=|https?://""", shown)  # nothing is fetched
    assert len(page) < 2_100_000


@pytest.mark.parametrize("directions", [("maximize",), ("maximize", "minimize")])
def test_a_search_is_logged_with_everything_that_it_has(
    store: MlflowClient, monkeypatch: pytest.MonkeyPatch, directions: tuple[str, ...]
) -> None:
    monkeypatch.setenv("WIDEDEEP_FIGURES", "strict")
    with open_run("tune", "figures") as run:
        study.log(
            _full(40, directions), Album(run, Console()), "a search", ["NDCG@10", "cost"][: len(directions)]
        )
        files = {Path(file.path).name for file in store.list_artifacts(run.id, "figures")}
    found = {"search.png", "search_importances.png", "search_slices.png", "search_parallel.png", "study.html"}
    assert files == (found if len(directions) == 1 else found | {"search_pareto.png"})


def test_the_page_draws_itself_without_a_network(tmp_path: Path) -> None:
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    page = study_page.made(_full(40), ["NDCG@10"], "a search")
    assert page is not None
    file = tmp_path / "study.html"
    file.write_text(page, encoding="utf-8")
    frame = tmp_path / "frame.html"  # as MLflow's UI shows it
    frame.write_text('<iframe sandbox="allow-scripts" src="study.html" width="1000" height="800"></iframe>')
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            tab = browser.new_page()
            errors: list[str] = []
            tab.on("pageerror", lambda error: errors.append(str(error)))
            tab.goto(frame.as_uri())
            inner = tab.frame_locator("iframe")
            inner.locator("#wait").wait_for(state="detached", timeout=120_000)
            assert inner.locator("[data-figure] .main-svg").count() > 0
            headings = inner.locator("h2").all_inner_texts()
            drawn = inner.locator("[data-figure].js-plotly-plot").count()
        finally:
            browser.close()
    assert headings == ["History", "Parallel coordinates", "Slices", "Importances"]
    assert drawn == len(headings)
    assert errors == []
