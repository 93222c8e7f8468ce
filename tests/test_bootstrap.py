import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from widedeep.bootstrap import (
    Interval,
    auc_interval,
    coverage_interval,
    interval,
    paired_difference,
    ratio_intervals,
    resample_counts,
)
from widedeep.errors import DataError


def test_resamples_draw_every_unit_as_often_as_any_other():
    counts = np.concatenate(list(resample_counts(50, 2000, seed=0)))
    assert counts.shape == (2000, 50)
    assert (counts.sum(1) == 50).all()
    assert np.abs(counts.mean(0) - 1).max() < 0.1
    assert counts.var() == pytest.approx(1 - 1 / 50, abs=0.02)


def test_resamples_do_not_depend_on_how_many_are_held_at_once():
    at_once = np.concatenate(list(resample_counts(30, 40, seed=3)))
    in_parts = list(resample_counts(30, 40, seed=3, width=2**20))
    assert len(in_parts) == 10
    assert np.array_equal(at_once, np.concatenate(in_parts))


def test_interval_of_a_mean_is_the_normal_one():
    values = np.random.default_rng(0).exponential(size=2000)
    (found,) = ratio_intervals(values[:, None], np.ones((2000, 1)), samples=4000, seed=0)
    spread = 1.96 * values.std() / np.sqrt(2000)
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - spread, abs=0.1 * spread)
    assert found.high == pytest.approx(values.mean() + spread, abs=0.1 * spread)


def test_a_figure_that_does_not_apply_is_nan_and_goes_through_json():
    (nothing,) = ratio_intervals(np.zeros((5, 1)), np.zeros((5, 1)), samples=10, seed=0)
    assert np.isnan([nothing.value, nothing.low, nothing.high]).all()
    assert nothing.to_dict() == {"value": None, "low": None, "high": None}
    assert np.isnan(Interval.from_dict(nothing.to_dict()).value)


def test_no_resamples_no_interval():
    (found,) = ratio_intervals(np.ones((5, 1)), np.ones((5, 1)), samples=0, seed=0)
    assert found.value == 1
    assert np.isnan(found.low)


def test_coverage_interval_is_that_of_resampled_lists():
    generator = np.random.default_rng(1)
    lists = np.minimum(generator.geometric(0.02, size=(80, 5)), 400)  # popular items and rare ones
    lists[:3] = 0
    found = coverage_interval(lists, 400, samples=300, seed=5)
    draws = np.array(
        [
            len(np.setdiff1d(lists[counts > 0], [0])) / 400
            for counts in np.concatenate(list(resample_counts(80, 300, seed=5)))
        ]
    )
    value = len(np.setdiff1d(lists, [0])) / 400
    expected = interval(value, draws, centred=True)
    assert found.value == value
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.low < value < found.high


def test_coverage_of_one_list_for_all_is_certain():
    found = coverage_interval(np.tile([1, 2, 3], (100, 1)), 10, samples=50, seed=0)
    assert (found.value, found.low, found.high) == (0.3, 0.3, 0.3)


def test_auc_interval_is_that_of_resampled_users():
    generator = np.random.default_rng(2)
    unit = np.repeat(np.arange(30), generator.integers(1, 20, size=30))
    score = generator.integers(8, size=len(unit)) / 8  # ties
    positive = generator.random(len(unit)) < 0.2 + 0.6 * score
    value = roc_auc_score(positive, score)
    found = auc_interval(score, positive, unit, value, samples=200, seed=4)
    draws = np.array(
        [
            roc_auc_score(positive, score, sample_weight=counts[unit])
            for counts in np.concatenate(list(resample_counts(30, 200, seed=4)))
        ]
    )
    expected = interval(value, draws)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_paired_interval_holds_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(0)
    inside = relative_inside = 0
    runs = 400
    for run in range(runs):
        reference = generator.gamma(2.0, 1.0, size=200)  # mean 2
        result = reference + generator.exponential(0.1, size=200)  # 0.1 and 5% better
        found = paired_difference(pd.Series(result), pd.Series(reference), samples=1000, seed=run)
        inside += found.absolute.low <= 0.1 <= found.absolute.high
        relative_inside += found.relative.low <= 0.05 <= found.relative.high
    assert 0.90 <= inside / runs <= 0.98
    assert 0.90 <= relative_inside / runs <= 0.98


def test_pairing_makes_a_small_difference_certain():
    reference = np.random.default_rng(1).random(100)
    found = paired_difference(pd.Series(reference + 0.01), pd.Series(reference))
    assert found.absolute.low == pytest.approx(0.01)
    assert found.absolute.high == pytest.approx(0.01)
    assert found.relative.value == pytest.approx(0.01 / reference.mean())
    assert found.probability_better == 1
    assert (found.users, found.samples) == (100, 10_000)


def test_no_difference():
    series = pd.Series(np.random.default_rng(2).random(50))
    found = paired_difference(series, series)
    assert found.absolute == Interval(0, 0, 0)
    assert found.relative == Interval(0, 0, 0)
    assert found.probability_better == 0.5


def test_a_worse_result_is_below_zero():
    generator = np.random.default_rng(3)
    reference = pd.Series(generator.random(300))
    found = paired_difference(reference * 0.8, reference)
    assert found.absolute.high < 0
    assert found.relative.value == pytest.approx(-0.2)
    assert found.probability_better == 0


def test_users_are_aligned_whatever_their_order():
    reference = pd.Series([0.1, 0.5, 0.9], index=["a", "b", "c"])
    result = pd.Series([0.9, 0.1, 0.5], index=["c", "a", "b"])
    assert paired_difference(result, reference).absolute == Interval(0, 0, 0)


def test_the_seed_decides():
    generator = np.random.default_rng(4)
    result, reference = pd.Series(generator.random(50)), pd.Series(generator.random(50))
    first = paired_difference(result, reference, seed=1)
    assert paired_difference(result, reference, seed=1) == first
    assert paired_difference(result, reference, seed=2).absolute != first.absolute


def test_a_reference_of_zero_has_no_relative_difference():
    found = paired_difference(pd.Series([1.0, 0.0]), pd.Series([0.0, 0.0]))
    assert found.absolute.value == 0.5
    assert found.to_dict()["relative"]["value"] is None


@pytest.mark.parametrize(
    ("result", "reference", "message"),
    [
        (
            pd.Series([1.0], index=["a"]),
            pd.Series([1.0], index=["b"]),
            "not of the same users: 1 only in the result",
        ),
        (pd.Series([1.0, 2.0], index=["a", "a"]), pd.Series([1.0], index=["a"]), "twice: 'a'"),
        (pd.Series([np.nan]), pd.Series([1.0]), "NaN for 1 users"),
        (pd.Series([], dtype=float), pd.Series([], dtype=float), "no users"),
    ],
)
def test_results_that_cannot_be_compared_are_refused(result, reference, message):
    with pytest.raises(DataError, match=message):
        paired_difference(result, reference)
