import numpy as np
import pytest

from bench.metrics.average_precision import mean_average_precision
from bench.metrics.resampled import class_precisions, mean_of_present, resampling_weights
from bench.statistics import intervals, resampling


def problem(seed=0, n=60, classes=3):
    rng = np.random.default_rng(seed)
    truth = rng.choice([1, -1, 0], p=[0.25, 0.65, 0.1], size=(n, classes)).astype(np.int8)
    scores = (truth + rng.normal(size=(n, classes))).round(1)  # rounded: ties
    return scores, truth


def resampled_map(scores, truth, counts, kind="area", difficult="ignore"):
    weights = resampling_weights(counts)
    return mean_of_present(class_precisions(scores, truth, weights, kind, difficult))


@pytest.mark.parametrize("images", [50, 51])
def test_resamples_are_halves_in_pairs_that_share_no_image(images):
    counts = resampling.resamples(images, 21, seed=3)
    assert counts.shape == (21, images) and counts.dtype == np.uint16
    assert (counts.sum(axis=1) == images // 2).all() and counts.max() == 1
    assert (counts[0:20:2] + counts[1:20:2]).max() == 1
    np.testing.assert_array_equal(counts, resampling.resamples(images, 21, seed=3))
    assert (counts != resampling.resamples(images, 21, seed=4)).any()


def test_halves_vary_as_samples_do():
    values = np.random.default_rng(0).normal(size=400)
    counts = resampling.resamples(400, 4000, seed=0)
    expected = values.std(ddof=1) / np.sqrt(400)
    assert (counts @ values / 200).std() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("kind", ["area", "step", "11-point", "11-point-exact"])
@pytest.mark.parametrize("difficult", ["ignore", "negative"])
def test_a_resample_scores_as_the_images_repeated(kind, difficult):
    scores, truth = problem()
    counts = np.random.default_rng(0).integers(0, 3, size=(40, len(scores))).astype(np.uint16)
    values = resampled_map(scores, truth, counts, kind, difficult)
    expected = [
        mean_average_precision(
            np.repeat(scores, copies, axis=0), np.repeat(truth, copies, axis=0), kind, difficult
        )
        for copies in counts
    ]
    np.testing.assert_allclose(values, expected, atol=1e-9, rtol=0)


def test_a_class_absent_from_a_resample_is_left_out_of_its_mean():
    scores = np.array([[2.0, 1.0], [1.0, 2.0], [0.0, 3.0]])
    truth = np.array([[1, 1], [1, -1], [-1, -1]], dtype=np.int8)
    counts = np.array([[0, 1, 2], [1, 1, 1], [0, 0, 3]], dtype=np.uint16)
    values = resampled_map(scores, truth, counts)
    np.testing.assert_allclose(values, [1, (1 + 1 / 3) / 2, np.nan])


def test_rows_alike_differ_by_exactly_nothing():
    scores, truth = problem()
    counts = resampling.resamples(len(scores), 100, seed=1)
    one = resampled_map(scores, truth, counts)
    difference = one - resampled_map(2 * scores + 1, truth, counts)
    assert intervals.interval(difference, 0) == (0, 0)
    assert intervals.probability_above(difference) == 0.5


def test_pairing_narrows_the_interval_of_a_difference():
    scores, truth = problem(n=300)
    other = scores + 0.1 * np.random.default_rng(1).normal(size=scores.shape)
    counts, fresh = (resampling.resamples(len(scores), 400, seed=seed) for seed in (0, 1))
    one = resampled_map(scores, truth, counts)
    paired = one - resampled_map(other, truth, counts)
    unpaired = one - resampled_map(other, truth, fresh)
    assert np.ptp(intervals.interval(paired, 0)) < np.ptp(intervals.interval(unpaired, 0)) / 2


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    scores, labels = problem(seed=7, n=20_000, classes=1)
    truth = mean_average_precision(scores, labels)
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(100):
        rows = rng.integers(len(labels), size=300)
        counts = resampling.resamples(300, 200, seed=trial)
        samples = resampled_map(scores[rows], labels[rows], counts)
        value = mean_average_precision(scores[rows], labels[rows])
        low, high = intervals.interval(samples, value)
        covered += low <= truth <= high
    assert 85 <= covered <= 100


def test_interval_is_the_percentiles_of_what_is_finite_moved_onto_the_value():
    samples = [*range(101), np.nan]
    assert intervals.interval(samples, 50, level=0.9) == pytest.approx((5, 95))
    assert intervals.interval(samples, 40, level=0.9) == pytest.approx((-5, 85))


def test_a_ratio_has_no_interval_where_its_denominator_may_be_nothing():
    rng = np.random.default_rng(0)
    part, noise = np.full(1000, 2.0), rng.normal(size=1000)
    assert intervals.ratio_interval(part, 1 + noise) is None
    assert intervals.ratio_interval(part, -9 + noise) is None
    assert intervals.ratio_interval(part, np.full(1000, 8.0)) == (0.25, 0.25)
    whole = 10 + noise
    low, high = intervals.ratio_interval(3 * whole, whole)
    assert (low, high) == pytest.approx((3, 3))
    low, high = intervals.ratio_interval(part, whole)
    assert low < 0.2 < high
    assert (low, high) == pytest.approx((2 / 11.96, 2 / 8.04), rel=0.05)


def test_a_chance_is_a_share_ties_by_half():
    assert intervals.probability_above([1.0, 2.0, 0.0, -1.0, np.nan]) == 0.625
    assert intervals.probability_above([1.0, 2.0]) == 1


def test_mistakes_are_named():
    scores, truth = problem(n=5)
    with pytest.raises(ValueError, match=r"number is not in 0\.\.3"):
        resampled_map(scores, truth, np.ones((2, 4), dtype=np.uint16))
    with pytest.raises(ValueError, match="3 resamples of 1 images"):
        resampling.resamples(1, 3, seed=0)
    with pytest.raises(ValueError, match="of 0 finite samples"):
        intervals.interval([np.nan], 0)
    with pytest.raises(ValueError, match=r"cannot take a 95 interval"):
        intervals.interval([1.0], 1, level=95)
