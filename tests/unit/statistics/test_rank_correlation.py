"""Kendall's tau-b: against scipy, by hand, with ties, and how often its interval holds."""

import numpy as np
import pytest
from scipy.stats import kendalltau

from bench.statistics import rank_correlation as found
from bench.statistics.intervals import center_on
from bench.statistics.model import NO_SPREAD, Kind, Seeds
from bench.statistics.scores import row_score
from bench.statistics.training_runs import Runs

FIXED = Runs(NO_SPREAD, source="fixed")
VARYING = Runs(Kind({"a": Seeds(9.0, 30)}).spread("a"), source="kind")


def row(method, value, rng, sd=0.1, runs=FIXED):
    """A score whose resamples have a standard deviation."""
    resampled = center_on(value, sd * rng.normal(size=1000))
    return row_score(method, [np.array([value, *resampled])], runs)


def task(values, seed=0, sd=0.1, runs=FIXED):
    rng = np.random.default_rng(seed)
    return {f"m{k}": row(f"m{k}", value, rng, sd, runs) for k, value in enumerate(values)}


@pytest.mark.parametrize("seed", range(20))
def test_tau_is_that_of_scipy_with_ties(seed):
    one, other = np.random.default_rng(seed).integers(0, 4, size=(2, 7))
    assert found.tau_b(one, other) == pytest.approx(kendalltau(one, other)[0], nan_ok=True)


def test_tau_by_hand():
    order = np.arange(4.0)
    assert found.tau_b(order, order) == 1
    assert found.tau_b(order, -order) == -1
    assert found.tau_b(order, [0, 1, 3, 2]) == pytest.approx((5 - 1) / 6)
    # One tie: five pairs left in the first task, all in the order of the other's six.
    assert found.tau_b([0, 0, 1, 2], order) == pytest.approx(5 / np.sqrt(5 * 6))
    assert np.isnan(found.tau_b([1, 1, 1], [1, 2, 3]))
    both = found.tau_b(np.stack([order, -order]), np.stack([order, order]))
    assert both.tolist() == [1, -1]


def test_scores_far_apart_leave_no_doubt():
    values = [10, 20, 30, 40, 50, 60]
    same = found.rank_correlation(task(values), task(values, 1), [f"m{k}" for k in range(6)])
    assert same.estimate.value == same.estimate.low == same.estimate.high == 1
    opposite = found.rank_correlation(task(values), task(values[::-1], 1), same.methods)
    assert opposite.estimate.value == opposite.estimate.low == opposite.estimate.high == -1


def test_scores_that_nothing_tells_apart_may_have_any_order():
    rng = np.random.default_rng(3)
    one, other = rng.normal(50, 0.01, size=(2, 8))
    near = found.rank_correlation(
        task(one, 0, 1.0), task(other, 1, 1.0), [f"m{k}" for k in range(8)]
    )
    assert near.estimate.low < -0.6
    assert near.estimate.high > 0.6


def test_training_runs_widen_the_interval():
    values = [10.0, 11.0, 12.5, 13.0, 15.0, 16.0, 18.0]
    names = [f"m{k}" for k in range(7)]
    images = found.rank_correlation(task(values), task(values, 1), names)
    runs = found.rank_correlation(task(values, runs=VARYING), task(values, 1, runs=VARYING), names)
    assert images.estimate.low > runs.estimate.low + 0.2
    assert runs.runs
    unknown = found.rank_correlation(task(values, runs=Runs(None)), task(values, 1), names)
    assert not unknown.runs
    assert unknown.estimate.low == pytest.approx(images.estimate.low, abs=0.15)


def test_methods_in_common_are_taken_and_few_have_no_number():
    one, other = task(range(10, 17)), task(range(20, 25), 1)
    taken = found.rank_correlation(one, other, [*one, "absent"])
    assert taken.methods == ("m0", "m1", "m2", "m3", "m4")
    assert taken.estimate is not None
    few = found.rank_correlation(one, other, list(one)[1:])
    assert (len(few.methods), few.estimate) == (4, None)
    assert found.rank_correlation({}, other, other) == found.RankCorrelation(())
    assert found.rank_correlation(one, task([5.0] * 7, 1), one).estimate is None, "one score"


def test_the_same_scores_give_the_same_interval():
    one, other = task([1, 4, 2, 8, 5, 7]), task([3, 1, 4, 1.5, 9, 2.6], 1, 2.0)
    first, second = (found.rank_correlation(one, other, one) for _ in range(2))
    assert first == second


def test_the_unit_of_a_task_and_its_level_change_nothing():
    rng = np.random.default_rng(5)
    values, moves = rng.normal(size=(2, 9)), 0.7 * rng.normal(size=(2, 9, 400))
    scale = np.array([[10.0], [0.1]])
    other = found.interval(values * scale + 40, moves * scale[:, :, None])
    assert other == pytest.approx(found.interval(values, moves))


def test_moves_that_both_tasks_share_are_no_agreement():
    """Noise common to both tasks correlates their scores, whose expected order has no relation."""
    rng = np.random.default_rng(8)
    expected = rng.normal(size=(2, 30))
    shared = np.sqrt(0.95) * rng.normal(size=(1, 30, 401)) * np.ones((2, 1, 1))
    noise = 2 * (shared + np.sqrt(0.05) * rng.normal(size=(2, 30, 401)))
    values, moves = expected + noise[..., 0], noise[..., 1:]
    assert found.tau_b(*values) > 0.3
    together = found.interval(values, moves)
    apart = found.interval(values, np.stack([moves[0], np.roll(moves[1], 7, axis=1)]))
    assert together.low < 0.2 < apart.low


@pytest.mark.parametrize("ratio", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_the_interval_holds_the_order_of_expected_scores(ratio, rho):
    """Expected scores of a normal law, noise of sd 1. The resampled tau would hold few of them."""
    rng = np.random.default_rng([int(10 * ratio), int(10 * rho)])
    held, naive = [], []
    for _ in range(60):
        expected = ratio * np.linalg.cholesky([[1, rho], [rho, 1]]) @ rng.normal(size=(2, 12))
        values = expected + rng.normal(size=(2, 12))
        moves = rng.normal(size=(2, 12, 300))
        true = found.tau_b(*expected)
        low, high = found.interval(values, moves)
        held.append(low - 1e-9 <= true <= high + 1e-9)
        resampled = found.tau_b(*np.moveaxis(values[..., None] + moves, -1, 1))
        naive.append(np.quantile(resampled, 0.025) <= true <= np.quantile(resampled, 0.975))
    assert np.mean(held) >= 0.88
    if (ratio, rho) == (1.0, 0.8):
        assert np.mean(naive) < 0.6
