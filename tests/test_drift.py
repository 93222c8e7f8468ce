"""Drift between data sets of which it is known how far they are apart."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from boards import checkerboard

from experiments import drift, psi
from experiments.drift import Drift
from experiments.jobs import JobConfig
from experiments.measures import Measure
from experiments.profiling import Examined, examine
from widedeep import datasets
from widedeep.config import DataConfig
from widedeep.datasets import Dataset
from widedeep.interactions import Interactions

pytest_plugins = ["experiment_fixtures"]
MONTH = 30 * 86_400


@pytest.fixture(scope="module")
def data() -> Dataset:
    return datasets.load(DataConfig(dataset="synthetic", users=300, items=200, interactions=12_000))


@pytest.fixture(scope="module")
def reference(data: Dataset) -> Examined:
    return examine(data, DataConfig())


def of(data: Dataset, rows: Interactions) -> Examined:
    return examine(dataclasses.replace(data, interactions=rows), DataConfig())


def named(found: Drift) -> dict[str, Measure]:
    return {measure.name: measure for measure in found.measures}


def test_the_index_is_what_comes_out_by_hand() -> None:
    found = psi.psi(np.array([50, 50]), np.array([25, 75]))
    assert found == pytest.approx(0.25 * math.log(2) + 0.25 * math.log(1.5))
    assert psi.psi(np.array([25, 75]), np.array([50, 50])) == pytest.approx(found)
    assert psi.psi(np.array([1, 2, 0]), np.array([10, 20, 0])) == 0


def test_an_empty_bin_counts_as_half_an_observation() -> None:
    q, p = 0.5 / 100.5, 0.5
    expected = (q - p) * math.log(q / p) + ((1 - q) - (1 - p)) * math.log((1 - q) / (1 - p))
    assert psi.psi(np.array([50, 50]), np.array([0, 100])) == pytest.approx(expected)


def test_chance_gives_what_samples_of_one_distribution_give() -> None:
    generator = np.random.default_rng(0)
    shares, n, m = [0.1, 0.2, 0.3, 0.4], 400, 250
    drawn = [psi.psi(generator.multinomial(n, shares), generator.multinomial(m, shares)) for _ in range(4000)]
    mean, high = psi.by_chance(4, n, m)
    assert mean == pytest.approx(3 * (1 / n + 1 / m))
    assert np.mean(drawn) == pytest.approx(mean, rel=0.06)
    assert np.mean(np.array(drawn) > high) == pytest.approx(0.01, abs=0.006)


def test_neighbours_are_put_together_until_there_is_enough_in_each_bin() -> None:
    assert psi.together(np.array([1, 1, 3, 0, 90, 4, 1])).tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert psi.together(np.array([96, 2, 2])).tolist() == [0, 0, 0]
    assert psi.together(np.array([7])).tolist() == [0]


def test_the_same_data_have_not_drifted_at_all(reference: Examined) -> None:
    found = drift.compare(reference, reference, same_name=True)
    assert (found.verdict, found.sentence()) == ("none", "no drift")
    assert {measure.value for measure in found.measures} == {0}
    assert len(found.measures) == 20


@pytest.mark.parametrize("rows", [1440, 400, 200])
def test_two_halves_at_random_have_not_drifted_even_if_small(rows: int) -> None:
    board = checkerboard()
    verdicts = []
    for seed in range(15):
        order = np.random.default_rng(seed).permutation(1440)[:rows]
        halves = [of(board, board.interactions.take(np.sort(half))) for half in np.split(order, 2)]
        verdicts.append(drift.compare(*halves).verdict)
    assert "significant" not in verdicts
    assert verdicts.count("none") >= 14


@pytest.mark.parametrize("share", [0.7, 0.8, 0.9])
def test_data_that_only_grow_have_not_drifted(data: Dataset, reference: Examined, share: float) -> None:
    assert data.interactions.timestamp is not None
    order = np.argsort(data.interactions.timestamp, kind="stable")[: int(share * len(data.interactions))]
    found = drift.compare(of(data, data.interactions.take(np.sort(order))), reference)
    assert found.verdict == "none"
    assert named(found)["new_users"].value > 0.8 * (1 - share)
    assert named(found)["vanished_users"].value == named(found)["lost_rows"].value == 0


def _rated(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Interactions], Interactions]:
    def changed(rows: Interactions) -> Interactions:
        assert rows.rating is not None
        return dataclasses.replace(rows, rating=change(rows.rating).astype(np.float32))

    return changed


def _timed(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Interactions], Interactions]:
    def changed(rows: Interactions) -> Interactions:
        assert rows.timestamp is not None
        return dataclasses.replace(rows, timestamp=change(rows.timestamp.astype(np.int64)))

    return changed


def _shuffled(ids: np.ndarray) -> np.ndarray:
    values = np.unique(ids)
    return np.random.default_rng(0).permutation(values)[np.searchsorted(values, ids)]


def _first(share: float) -> Callable[[Interactions], Interactions]:
    return lambda rows: rows.take(np.arange(int(share * len(rows))))


def _until(share: float) -> Callable[[Interactions], Interactions]:
    def taken(rows: Interactions) -> Interactions:
        assert rows.timestamp is not None
        return rows.take(rows.timestamp <= np.quantile(rows.timestamp, share))

    return taken


BROKEN: dict[str, tuple[Callable[[Interactions], Interactions], str]] = {
    "ratings of 1 to 5 as 2 to 10": (_rated(lambda rating: rating * 2), "rating_psi"),
    "ratings of 1 to 5 as 0 to 1": (_rated(lambda rating: rating / 5), "rating_psi"),
    "ratings upside down": (_rated(lambda rating: 6 - rating), "rating_psi"),
    "likes alone": (lambda rows: rows.take(rows.liked(4)), "like_share"),
    "no ratings": (lambda rows: dataclasses.replace(rows, rating=None), "kinds"),
    "no times": (lambda rows: dataclasses.replace(rows, timestamp=None), "kinds"),
    "days for seconds": (_timed(lambda time: time // 86_400), "lost_time"),
    "a hole longer than all before": (_timed(lambda time: time + 400 * MONTH), "hole_in_time"),
    "users renamed": (lambda rows: dataclasses.replace(rows, user_id=rows.user_id + 10**6), "vanished_users"),
    "users mixed up": (lambda rows: dataclasses.replace(rows, user_id=_shuffled(rows.user_id)), "user_psi"),
    "items mixed up": (
        lambda rows: dataclasses.replace(rows, item_id=_shuffled(rows.item_id)),
        "popularity_psi",
    ),
    "half of the items gone": (lambda rows: rows.take(rows.item_id % 2 == 0), "vanished_items_interactions"),
    "the first 85% of the file": (_first(0.85), "lost_rows"),
    "the last 20% of the time gone": (_until(0.8), "lost_time"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_what_is_broken_has_drifted(data: Dataset, reference: Examined, broken: str) -> None:
    change, measure = BROKEN[broken]
    found = drift.compare(reference, of(data, change(data.interactions)))
    assert found.verdict == "significant"
    assert named(found)[measure].verdict == "significant"
    assert named(found)[measure].what in found.sentence()
    assert found.metrics()["drift/level"] == 2


def test_a_smaller_change_is_some_drift_and_says_its_limit(data: Dataset, reference: Examined) -> None:
    found = drift.compare(reference, of(data, _first(0.95)(data.interactions)))
    assert found.verdict == "some"
    assert "interactions lost 5.0% (limit 2.0%, 12,000 to 11,400)" in found.sentence()
    assert drift.compare(
        reference, of(data, _first(0.95)(data.interactions)), JobConfig(max_lost=0.03)
    ).verdict == ("significant")


def test_a_window_that_moves_by_a_month_in_a_year_is_not_refused(data: Dataset) -> None:
    time = data.interactions.timestamp
    assert time is not None
    early, late = np.quantile(time, [1 / 13, 12 / 13])
    found = drift.compare(
        of(data, data.interactions.take(time <= late)), of(data, data.interactions.take(time >= early))
    )
    assert found.verdict != "significant"


def test_another_data_set_is_told_by_its_name(reference: Examined) -> None:
    other = dataclasses.replace(reference, profile=dataclasses.replace(reference.profile, dataset="other"))
    assert drift.compare(reference, other).verdict == "none"
    found = drift.compare(reference, other, same_name=True)
    assert found.verdict == "significant"
    assert "other, not synthetic" in found.sentence()


def test_ids_as_text_are_the_same_ids(data: Dataset, reference: Examined) -> None:
    rows = data.interactions
    text = dataclasses.replace(
        rows, item_id=np.array([str(item) for item in rows.item_id.tolist()], dtype=object)
    )
    items = data.items.assign(item_id=data.items["item_id"].astype(str).astype(object))
    found = drift.compare(reference, of(dataclasses.replace(data, items=items), text))
    assert found.verdict == "none"
    assert named(found)["new_items"].value == 0


def test_titles_that_are_gone_are_drift(data: Dataset, reference: Examined) -> None:
    found = drift.compare(reference, of(dataclasses.replace(data, items=data.items[:0]), data.interactions))
    assert named(found)["lost_titles"].verdict == named(found)["kinds"].verdict == "significant"
    assert named(found)["kinds"].note == "no genres any more"


def test_another_threshold_is_a_setting_and_no_drift(data: Dataset, reference: Examined) -> None:
    assert drift.compare(reference, examine(data, DataConfig(like_threshold=2))).verdict == "none"


def test_one_draw_in_many_is_no_drift_where_few_have_been_drawn() -> None:
    assert Measure("a", "a", 0.3, 0.1, 0.25, chance=0.1, usual=0.35).verdict == "none"
    assert Measure("a", "a", 0.3, 0.1, 0.25, chance=0.1, usual=0.2).verdict == "some"
    assert Measure("a", "a", 0.3, 0.1, 0.25).verdict == "significant"


def test_the_table_of_measures_has_a_row_for_each(reference: Examined) -> None:
    found = drift.compare(reference, reference)
    assert isinstance(found.frame(), pd.DataFrame)
    assert found.frame()["name"].tolist() == [measure.name for measure in found.measures]
    assert len(found.rows()) == len(found.measures) + 1
    assert {len(row) for row in found.rows()} == {7}
