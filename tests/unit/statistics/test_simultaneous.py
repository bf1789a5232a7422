"""Families of differences: against a plain implementation, by simulation, at the edges."""

from itertools import combinations

import numpy as np
import pytest

from bench.statistics import intervals, simultaneous
from bench.statistics.simultaneous import Ranks


def step_down(samples, level):
    """Romano and Wolf's procedure in plain loops over comparisons and draws."""
    values = {key: float(np.mean(draws)) for key, draws in samples.items()}
    scales = {k: float(np.quantile(abs(d - values[k]), level)) for k, d in samples.items()}
    rejected = set()
    while len(rejected) < len(samples):
        rest = [key for key in samples if key not in rejected]
        largest = []
        for b in range(len(samples[rest[0]])):
            largest.append(max(abs(samples[k][b] - values[k]) / scales[k] for k in rest))
        critical = np.quantile(largest, level)
        more = {key for key in rest if abs(values[key]) / scales[key] > critical}
        if not more:
            break
        rejected |= more
    return rejected


def pairs(rows):
    """Every pair's samples, of rows (R, B)."""
    return {(i, j): rows[i] - rows[j] for i, j in combinations(range(len(rows)), 2)}


def ranks(rows):
    """The rank of every row by its samples, (R, B)."""
    family = pairs(rows)
    above = set()
    for i, j in simultaneous.different(family):
        first, second = (i, j) if family[i, j].mean() > 0 else (j, i)
        above.add((str(first), str(second)))
    return [simultaneous.from_pairs(str(i), len(rows), above) for i in range(len(rows))]


@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize("seed", range(8))
def test_the_family_is_that_of_plain_loops(seed, level):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=200)
    sds = rng.uniform(0.3, 2, size=(5, 1))
    rows = rng.normal(0, 3, size=(5, 1)) + images + sds * rng.normal(size=(5, 200))
    family = pairs(rows)
    assert simultaneous.different(family, level) == step_down(family, level)


def test_a_later_step_calls_what_the_first_one_does_not():
    """Without the row that moves by itself, the largest of the others is smaller."""
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(12, 4000))
    draws -= draws.mean(axis=1, keepdims=True)
    scale = np.quantile(abs(draws), 0.95, axis=1)
    first = np.quantile((abs(draws) / scale[:, None]).max(axis=0), 0.95)
    second = np.quantile((abs(draws) / scale[:, None])[:2].max(axis=0), 0.95)
    values = np.full(12, 10 * first)
    values[0] = (first + second) / 2  # of scale: between the critical values of both steps
    values[1] = 0.0
    family = dict(enumerate(values[:, None] * scale[:, None] + draws))
    assert second < first
    assert simultaneous.different(family) == {0, *range(2, 12)}


def test_equal_rows_are_seldom_called_different():
    """Ten rows, 45 pairs; one by one, more than a third of such tables has a false difference."""
    rng = np.random.default_rng(0)
    joint = 0
    marginal = 0
    for _ in range(400):
        images = 0.7 * rng.normal(size=(1, 501))
        moves = images + rng.normal(size=(10, 501))
        rows = moves[:, :1] + moves[:, 1:]
        family = pairs(rows)
        together = simultaneous.different(family)
        draws = np.stack(list(family.values()))
        values = draws.mean(axis=1, keepdims=True)
        beyond = abs(values[:, 0]) > np.quantile(abs(draws - values), 0.95, axis=1)
        alone = {key for key, is_beyond in zip(family, beyond, strict=True) if is_beyond}
        assert together <= alone
        joint += bool(together)
        marginal += bool(alone)
    assert joint / 400 <= 0.07
    assert marginal / 400 > 0.33


def test_a_family_of_one_is_its_interval():
    rng = np.random.default_rng(0)
    draws = rng.normal(size=4000)
    draws -= draws.mean()
    half = np.quantile(abs(draws), 0.95)
    for value, is_different in ((1.05 * half, True), (-1.05 * half, True), (0.95 * half, False)):
        assert bool(simultaneous.different({"gap": value + draws})) == is_different
        low, high = intervals.interval(value + draws, value)
        assert (low > 0 or high < 0) == is_different


def test_rows_far_apart_have_exact_ranks():
    rng = np.random.default_rng(0)
    rows = np.array([10.0, 40.0, 30.0, 20.0])[:, None] + rng.normal(size=(4, 500))
    assert ranks(rows) == [Ranks(4, 4), Ranks(1, 1), Ranks(2, 2), Ranks(3, 3)]


def test_rows_that_are_alike_share_their_ranks():
    rng = np.random.default_rng(0)
    rows = np.array([40.0, 20.0, 20.1, 0.0])[:, None] + rng.normal(size=(4, 500))
    assert ranks(rows) == [Ranks(1, 1), Ranks(2, 3), Ranks(2, 3), Ranks(4, 4)]


def test_rows_of_equal_samples_are_tied():
    same = np.random.default_rng(0).normal(size=500)
    assert ranks(np.stack([same, same, same + 5])) == [Ranks(2, 3), Ranks(2, 3), Ranks(1, 1)]


def test_what_never_varies_is_different_unless_it_is_nothing():
    family = {"fixed": np.full(100, 2.0), "nothing": np.zeros(100)}
    assert simultaneous.different(family) == {"fixed"}
    family["wide"] = np.random.default_rng(0).normal(size=100)
    assert simultaneous.different(family) == {"fixed"}
    assert simultaneous.different({}) == set()


def test_missing_samples_are_left_out():
    rng = np.random.default_rng(0)
    family = {"far": 9 + rng.normal(size=400), "near": rng.normal(size=400)}
    family["near"] -= family["near"].mean()
    family["far"][::7] = np.nan
    assert simultaneous.different(family) == {"far"}
    family["near"][::7] = np.nan  # draws that no difference has
    assert simultaneous.different(family) == {"far"}
    assert simultaneous.different({"far": family["far"]}) == {"far"}


def test_ranks_count_who_is_above_and_below():
    above = {("a", "b"), ("a", "c"), ("a", "d"), ("b", "d")}
    assert simultaneous.from_pairs("a", 4, above) == (1, 1)
    assert simultaneous.from_pairs("b", 4, above) == (2, 3)
    assert simultaneous.from_pairs("c", 4, above) == (2, 4)
    assert simultaneous.from_pairs("d", 4, above) == (3, 4)
    assert simultaneous.from_pairs("alone", 1, set()) == (1, 1)
