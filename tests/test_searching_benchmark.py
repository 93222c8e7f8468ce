"""The benchmark of pruners, on trials whose fate is known."""

from __future__ import annotations

import pytest

from experiments.benchmarks import form, searching
from experiments.benchmarks.searching import Recorded, Replayed, replay


def trial(value: float, shown: float | None = None) -> Recorded:
    """Twenty epochs of a second each, of which the first is the best; `shown` is what they come near to."""
    near = value if shown is None else shown
    epochs = tuple((epoch, near - epoch / 1000, float(epoch)) for epoch in range(1, 21))
    return Recorded(epochs, value, 20.0)


TRIALS = [trial(0.4), trial(0.5), trial(0.1), trial(0.6)]


def test_a_pruner_has_time_for_more_trials() -> None:
    assert replay(TRIALS, (0, 1, 2, 3), "none", 20, [75.0, 80.0]) == [
        Replayed(0.5, 3, False),
        Replayed(0.6, 4, False),
    ]
    assert replay(TRIALS, (0, 1, 2, 3), "median", 20, [75.0]) == [Replayed(0.6, 4, False)]


def test_a_pruner_may_cut_the_best_short() -> None:
    late = trial(0.9, shown=0.1)
    assert replay([trial(0.4), trial(0.5), late], (0, 1, 2), "median", 20, [100.0]) == [
        Replayed(0.5, 3, True)
    ]


def test_the_report_names_every_pruner() -> None:
    report = form.Report("a", "b")
    searching.pruners(report, TRIALS, epochs=20, orders=3)
    found = {(row.name, row.metric): row.value for row in report.rows}
    assert found["all trials", "CPU time to their ends"] == 80
    for name in ("median", "hyperband", "none"):
        assert found[name, "short of the best of all, in 75% of the time"] == pytest.approx(0.1, abs=0.11)
        assert name in report.tables[0]
