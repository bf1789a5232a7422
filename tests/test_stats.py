import numpy as np
import pytest

from bench import metrics, stats


def problem(seed=0, n=60, classes=3):
    rng = np.random.default_rng(seed)
    truth = rng.choice([1, -1, 0], p=[0.25, 0.65, 0.1], size=(n, classes)).astype(np.int8)
    scores = (truth + rng.normal(size=(n, classes))).round(1)  # rounded: ties
    return scores, truth


def test_resamples_are_n_draws_each_and_repeatable():
    counts = stats.resamples(50, 20, seed=3)
    assert counts.shape == (20, 50) and counts.dtype == np.uint16
    assert (counts.sum(axis=1) == 50).all()
    np.testing.assert_array_equal(counts, stats.resamples(50, 20, seed=3))
    assert (counts != stats.resamples(50, 20, seed=4)).any()


@pytest.mark.parametrize("kind", ["area", "step", "11-point"])
@pytest.mark.parametrize("difficult", ["ignore", "negative"])
def test_a_resample_scores_as_the_images_repeated(kind, difficult):
    scores, truth = problem()
    counts = stats.resamples(len(scores), 2 * stats.CHUNK + 1, seed=0)  # a partial chunk too
    values = stats.bootstrap_map(scores, truth, counts, kind, difficult)
    expected = [
        metrics.mean_average_precision(
            np.repeat(scores, copies, axis=0), np.repeat(truth, copies, axis=0), kind, difficult
        )
        for copies in counts
    ]
    np.testing.assert_allclose(values, expected, atol=1e-9, rtol=0)


def test_a_class_absent_from_a_resample_is_left_out_of_its_mean():
    scores = np.array([[2.0, 1.0], [1.0, 2.0], [0.0, 3.0]])
    truth = np.array([[1, 1], [1, -1], [-1, -1]], dtype=np.int8)
    counts = np.array([[0, 1, 2], [1, 1, 1], [0, 0, 3]], dtype=np.uint16)
    values = stats.bootstrap_map(scores, truth, counts)
    np.testing.assert_allclose(values, [1, (1 + 1 / 3) / 2, np.nan])


def test_rows_alike_differ_by_exactly_nothing():
    scores, truth = problem()
    counts = stats.resamples(len(scores), 100, seed=1)
    one = stats.bootstrap_map(scores, truth, counts)
    difference = one - stats.bootstrap_map(2 * scores + 1, truth, counts)
    assert stats.interval(difference, 0) == (0, 0)


def test_pairing_narrows_the_interval_of_a_difference():
    scores, truth = problem(n=300)
    other = scores + 0.1 * np.random.default_rng(1).normal(size=scores.shape)
    counts, fresh = (stats.resamples(len(scores), 400, seed=seed) for seed in (0, 1))
    one = stats.bootstrap_map(scores, truth, counts)
    paired = one - stats.bootstrap_map(other, truth, counts)
    unpaired = one - stats.bootstrap_map(other, truth, fresh)
    assert np.ptp(stats.interval(paired, 0)) < np.ptp(stats.interval(unpaired, 0)) / 2


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    scores, labels = problem(seed=7, n=20_000, classes=1)
    truth = metrics.mean_average_precision(scores, labels)
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(100):
        rows = rng.integers(len(labels), size=300)
        counts = stats.resamples(300, 200, seed=trial)
        samples = stats.bootstrap_map(scores[rows], labels[rows], counts)
        value = metrics.mean_average_precision(scores[rows], labels[rows])
        low, high = stats.interval(samples, value)
        covered += low <= truth <= high
    assert 85 <= covered <= 100


def test_interval_is_the_percentiles_of_what_is_finite_moved_onto_the_value():
    samples = [*range(101), np.nan]
    assert stats.interval(samples, 50, level=0.9) == pytest.approx((5, 95))
    assert stats.interval(samples, 40, level=0.9) == pytest.approx((-5, 85))


def test_mistakes_are_named():
    scores, truth = problem(n=5)
    with pytest.raises(ValueError, match=r"counts \(2, 4\) must be \(B, 5\)"):
        stats.bootstrap_map(scores, truth, np.ones((2, 4), dtype=np.uint16))
    with pytest.raises(ValueError, match="3 resamples of 0 images"):
        stats.resamples(0, 3, seed=0)
    with pytest.raises(ValueError, match="of 0 finite samples"):
        stats.interval([np.nan], 0)
    with pytest.raises(ValueError, match=r"cannot take a 95 interval"):
        stats.interval([1.0], 1, level=95)
