"""The figures of a run: what is in them, and that nothing odd in a report keeps them from being drawn."""

from __future__ import annotations

import io
import math
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure
from mlflow.tracking import MlflowClient
from PIL import Image

from experiments import gate, tracking
from experiments.figures import catalogue, forest, likes, report, style, training
from experiments.figures.album import Album
from experiments.progress import Console
from experiments.tracking import Run, open_run
from widedeep.bootstrap import NOT_APPLICABLE, Interval
from widedeep.errors import ConfigError, TrackingError
from widedeep.report import METRICS, Report, Slice
from widedeep.training import Step

pytest_plugins = ["experiment_fixtures"]
LONG = "a data set whose name is very long " * 6
BINS = 1000


def _report(model: str = "ours", value: float = 0.3, users: int = 20, **odd: Interval) -> Report:
    """Of users whose NDCG@10 is `value`, with a like-probability of 0.25 for 30 rows and 0.75 for 70."""
    interval = Interval(value, value - 0.05, value + 0.05)
    per_user = pd.DataFrame(
        {"ndcg_at_10": [value] * users, "relevant": 3, "history": range(users)},
        index=pd.Index(range(users), name="user"),
    )
    slices = [
        Slice("history", name, users, "ndcg_at_10", interval) for name in ("short (1-19)", "long (100+)")
    ]
    slices.append(Slice("popularity", "head (first third)", 40, "recall_at_20", odd.get("slice", interval)))
    liked: list[float | None] = [0.0] * BINS
    not_liked = list(liked)
    liked[250], not_liked[250], liked[750], not_liked[750] = 10.0, 20.0, 50.0, 20.0
    reliability: dict[str, list[float | None]] = {
        "low": [0.0, 0.5],
        "high": [0.5, 1.0],
        "count": [30.0, 70.0],
        "mean_probability": [0.25, 0.75],
        "positive_rate": [1 / 3, 5 / 7],
    }
    return Report(
        model=model,
        metrics={name: odd.get(name, interval) for name in METRICS},
        users=users,
        rows=100,
        slices=slices,
        curves={"reliability": reliability, "thresholds": {"liked": liked, "not_liked": not_liked}},
        per_user=per_user,
    )


def _without_likes(found: Report) -> Report:
    return Report(found.model, found.metrics, found.users, found.rows, found.slices, {}, found.per_user)


def _drawn(figure: Figure | None) -> Figure:
    """It can be drawn, and is neither tiny nor huge."""
    assert figure is not None
    file = io.BytesIO()
    figure.savefig(file)
    with Image.open(file) as picture:
        assert 300 < picture.width <= 1400
        assert 150 < picture.height <= 1700
    return figure


def _texts(figure: Figure) -> str:
    found = figure.findobj(lambda artist: hasattr(artist, "get_text"))
    return "\n".join(artist.get_text() for artist in found)


def test_precision_and_recall_of_a_known_case() -> None:
    """Of the 70 above 0.75, 50 are liked; of all 100, 60."""
    figure = _drawn(likes.precision_recall([_report(), _without_likes(_report("popularity"))], "tiny"))
    curve, base = figure.axes[0].lines
    points = set(zip(curve.get_xdata(), curve.get_ydata(), strict=True))
    assert {(round(x, 6), round(y, 6)) for x, y in points} == {
        (round(50 / 60, 6), round(50 / 70, 6)),
        (1.0, 0.6),
    }
    assert set(base.get_ydata()) == {0.6}
    expected = 50 / 60 * 50 / 70 + 10 / 60 * 0.6
    assert f"ours: average precision {expected:.3f}" in _texts(figure)
    assert "popularity" not in _texts(figure)
    assert likes.average_precision(_report()) == pytest.approx(expected)


def test_the_table_of_thresholds_of_a_known_case() -> None:
    table = likes.at_thresholds(_report())
    assert table is not None
    row = table[table["threshold"] == 0.5].iloc[0]
    assert (row["true positives"], row["false positives"]) == (50, 20)
    assert (row["false negatives"], row["true negatives"]) == (10, 20)
    assert (row["precision"], row["recall"]) == (0.7143, 0.8333)
    [best] = table[table["note"] == "highest F1"]["F1"]
    assert best == table["F1"].max() == round(2 * 50 / (70 + 60), 4)
    none = table[table["threshold"] == 0.9].iloc[0]
    assert (none["predicted liked"], none["F1"]) == (0, 0)
    assert pd.isna(none["precision"])
    total = table[["true positives", "false positives", "false negatives", "true negatives"]].sum(axis=1)
    assert set(total) == {100}


def test_without_probabilities_there_are_no_figures_of_them() -> None:
    plain = _without_likes(_report())
    assert likes.precision_recall([plain], "x") is None
    assert likes.thresholds(plain, "x") is None
    assert likes.at_thresholds(plain) is None
    assert likes.average_precision(plain) is None
    assert report.reliability(plain, "x") is None


def test_every_figure_of_a_report_names_every_model() -> None:
    reports = [_report("ours"), _report("popularity", 0.2), _report("EASE", 0.25)]
    for figure in (
        report.by_model(reports, "ndcg_at_10", "tiny"),
        report.by_slice(reports, "tiny"),
        catalogue.trade_offs(reports, "tiny"),
    ):
        for found in reports:
            assert found.model in _texts(_drawn(figure))
    _drawn(report.reliability(reports[0], "tiny"))
    _drawn(likes.thresholds(reports[0], "tiny"))


@pytest.mark.parametrize("models", [1, 12])
def test_a_report_may_be_odd(models: int) -> None:
    """No interval, nothing measured, long names, one user, many models."""
    bare = Interval(0.1, math.nan, math.nan)
    odd = {
        "coverage_at_10": bare,
        "novelty_at_10": NOT_APPLICABLE,
        "diversity_at_10": NOT_APPLICABLE,
        "slice": bare,
    }
    reports = [
        _report(f"model number {number} by the name of {LONG}"[:60], 0.1, 1, **odd)
        for number in range(models)
    ]
    _drawn(report.by_model(reports, "coverage_at_10", LONG))
    _drawn(report.by_slice(reports, LONG))
    _drawn(report.reliability(reports[0], LONG))
    _drawn(likes.precision_recall(reports, LONG))
    _drawn(likes.thresholds(reports[0], LONG))
    figure = _drawn(catalogue.trade_offs(reports, LONG))
    assert len(figure.axes) == 1  # novelty and diversity apply to none
    figure = forest.against_others(reports, LONG, samples=20)
    assert (figure is None) == (models == 1)


def test_no_two_of_many_models_look_the_same() -> None:
    assert len({tuple(style.look(number).values()) for number in range(49)}) == 49


def _verdict(rule: str, candidate: float, champion: float | None) -> gate.Verdict:
    """Of users whose NDCG@10 swings around the given means."""

    def values(mean: float) -> pd.Series:
        return pd.Series([mean + (0.01 if user % 2 else -0.01) for user in range(200)])

    baselines = {"popularity": values(0.1), "EASE": values(0.3)}
    opponent = None if champion is None else ("the recipe of version 1", values(champion))
    return gate.judge(values(candidate), opponent, baselines, rule=rule, samples=200)


def test_the_verdict_shows_each_difference_with_what_was_needed() -> None:
    verdict = _verdict("not-worse", 0.298, 0.3)
    assert verdict.passed
    axis = _drawn(forest.verdict(verdict, "tiny")).axes[0]
    _zero, interval, value, needed = axis.lines
    relative = verdict.duels[0].difference.relative
    assert list(interval.get_xdata()) == [relative.low, relative.high]
    assert list(value.get_xdata()) == [relative.value]
    assert value.get_marker() == "o"
    assert set(needed.get_xdata()) == {-gate.MARGIN}


def test_a_refused_comparison_looks_another_way() -> None:
    verdict = _verdict("strict", 0.25, None)
    assert not verdict.passed
    figure = _drawn(forest.verdict(verdict, LONG))
    rows = dict(
        zip(
            (label.get_text() for label in figure.axes[0].get_yticklabels()),
            (line.get_marker() for line in figure.axes[0].lines if line.get_marker() in ("o", "X")),
            strict=True,
        )
    )
    assert rows == {"popularity": "o", "EASE": "X"}
    assert "refused" in _texts(figure)


def test_a_reference_of_nothing_is_compared_in_absolute_terms() -> None:
    verdict = _verdict("strict", 0.3, None)
    nothing = gate.judge(
        pd.Series([0.5, 0.4]), None, {"popularity": pd.Series([0.0, 0.0])}, rule="better", samples=100
    )
    assert "per cent" in _texts(_drawn(forest.verdict(verdict, "tiny")))
    assert "absolute" in _texts(_drawn(forest.verdict(nothing, "tiny")))
    assert forest.verdict(gate.Verdict(False, "better", "nothing to compare with"), "tiny") is None


def test_the_others_are_compared_user_by_user() -> None:
    ours, other = _report("ours", 0.3, 10), _report("other", 0.2, 10)
    other.per_user.loc[:1, "ndcg_at_10"] = 0.6
    figure = _drawn(forest.against_others([ours, other], "tiny", samples=50))
    [value] = figure.axes[0].lines[2].get_xdata()
    assert value == pytest.approx(0.3 - (0.2 * 8 + 0.6 * 2) / 10)
    assert "better for 80%" in _texts(figure)


def test_curves_have_a_panel_for_each_metric() -> None:
    rows: list[dict[str, Any]] = [
        {"head": head, "epoch": epoch, "train_loss": 1 / epoch, name: epoch / 10}
        for head, name in (("ranking", "ndcg_at_10"), ("like", "auc"))
        for epoch in (1, 2, 3)
    ]
    figure = _drawn(training.curves(rows, {"ranking": 3, "like": 1}, "tiny"))
    assert len(figure.axes) == 4
    assert "like head: validation AUC" in _texts(figure)
    assert "kept: 1" in _texts(figure)
    one = training.curves([{"head": "like", "epoch": 1, "train_loss": math.nan}], {"like": 1}, LONG)
    _drawn(one)
    assert training.curves([], {}, "tiny") is None


def test_times_are_shown_with_their_shares_and_with_what_is_left() -> None:
    figure = _drawn(training.times({"evaluate": 20.0, "tune": 60.0}, {"wide": 30.0}, 100.0, "tiny"))
    upper = figure.axes[0]
    assert [bar.get_width() for bar in upper.patches] == [20, 20, 60]  # from below: rest, evaluate, tune
    assert "20 s, 20%" in _texts(figure)
    assert "wide and low-rank" in _texts(figure)
    assert training.times({}, {}, 0.0, "tiny") is None
    _drawn(training.times({"something new": 1e-9}, {}, 0.0, LONG))


def test_the_console_knows_what_head_the_time_of_trainings_went_to(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 100.0, 101.0, 103.0, 107.0, 115.0, 131.0, 163.0])
    console = Console()
    monkeypatch.setattr("experiments.progress.time", types.SimpleNamespace(monotonic=lambda: next(now)))
    with console.training("select") as show:
        for head, done in (
            ("wide", 0),
            ("wide", 1),
            ("ranking", 1),
            ("ranking", 2),
            ("like", 1),
            ("wide", 0),
        ):
            show(Step(head, 1, 1, done, 2))
    assert console.heads == {"other": 100 + 16 + 32, "wide": 1, "ranking": 2 + 4, "like": 8}


@pytest.fixture
def run(store: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    del store
    monkeypatch.setenv("WIDEDEEP_FIGURES", "strict")
    with open_run("train", "figures") as opened:
        yield opened


def _broken() -> Figure:
    raise ZeroDivisionError("nothing to divide")


def test_a_figure_that_cannot_be_drawn_does_not_cost_the_run(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ZeroDivisionError):
        Album(run, Console()).add("figures/broken.png", _broken)
    monkeypatch.delenv("WIDEDEEP_FIGURES")
    album = Album(run, Console())
    album.add("figures/broken.png", _broken)
    album.add("figures/whole.png", lambda: report.by_slice([_report()], "tiny"))
    album.add("figures/none.png", lambda: None)
    said = capsys.readouterr().err
    assert "figures/broken.png could not be drawn: ZeroDivisionError: nothing to divide" in said
    files = {Path(file.path).name for file in run.client.list_artifacts(run.id, "figures")}
    assert files == {"broken.failed.txt", "whole.png"}
    assert "_broken" in tracking.artifact(run.id, "figures/broken.failed.txt").read_text()
    assert run.client.get_run(run.id).data.tags["figures.failed"] == "true"
    assert run.seconds["figures"] > 0


def test_a_store_that_is_away_is_no_matter_of_figures(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> Figure:
        raise TrackingError("the store is away")

    monkeypatch.delenv("WIDEDEEP_FIGURES")
    with pytest.raises(TrackingError):
        Album(run, Console()).add("figures/any.png", away)


def test_figures_can_be_left_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WIDEDEEP_FIGURES", "off")
    Album(run, Console()).add("figures/broken.png", _broken)
    assert run.client.list_artifacts(run.id, "figures") == []
    assert run.seconds == {}
    monkeypatch.setenv("WIDEDEEP_FIGURES", "none")
    with pytest.raises(ConfigError, match="WIDEDEEP_FIGURES must be strict, off or empty, got 'none'"):
        Album(run, Console())


def test_pictures_are_small(run: Run) -> None:
    reports = [_report(f"model {number}") for number in range(6)]
    Album(run, Console()).add("figures/slices.png", lambda: report.by_slice(reports, "tiny"))
    file = tracking.artifact(run.id, "figures/slices.png")
    assert file.stat().st_size < 100_000
    with Image.open(file) as picture:
        assert picture.mode == "P"
