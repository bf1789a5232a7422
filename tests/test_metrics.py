import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from bench import metrics

KINDS = ("area", "11-point", "step")
# Few distinct scores, so that ties are the rule.
rankings = st.lists(st.tuples(st.integers(-2, 3), st.booleans()), min_size=1, max_size=40).filter(
    lambda pictures: any(positive for _, positive in pictures)
)


def naive(scores, positive, kind):
    """VOC's definitions, threshold by threshold."""
    points = []
    for threshold in sorted(set(scores), reverse=True):
        taken = scores >= threshold
        hits = int((taken & positive).sum())
        points.append((hits, hits / taken.sum()))
    total = int(positive.sum())
    if kind == "11-point":
        best = [max(p for hits, p in points if 10 * hits >= k * total) for k in range(11)]
        return sum(best) / 11
    area, before = 0.0, 0
    for i, (hits, _) in enumerate(points):
        area += (hits - before) / total * max(p for _, p in points[i:])
        before = hits
    return area


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # Ranked + - - + +: precision 1, 2/4, 3/5 at the positives; the envelope lifts 2/4 to 3/5.
        ("area", (1 + 3 / 5 + 3 / 5) / 3),
        ("step", (1 + 2 / 4 + 3 / 5) / 3),
        # Recall 0 to .3 (four points) at precision 1; .4 to 1 (seven points) at 3/5.
        ("11-point", (4 * 1 + 7 * 3 / 5) / 11),
    ],
)
def test_a_case_computed_by_hand(kind, expected):
    scores = [5, 4, 3, 2, 1]
    positive = [True, False, False, True, True]
    assert metrics.average_precision(scores, positive, kind) == pytest.approx(expected, abs=1e-12)


def test_the_eleven_recalls_are_compared_exactly():
    # Three of ten positives are found at precision 1: recall .3 counts, though 3 * .1 > .3.
    scores = -np.arange(110.0)
    positive = np.zeros(110, dtype=bool)
    positive[:3] = positive[-7:] = True
    value = metrics.average_precision(scores, positive, "11-point")
    assert value == pytest.approx((4 + 7 * 10 / 110) / 11)


@pytest.mark.parametrize("kind", KINDS)
def test_the_ends_of_the_scale(kind):
    assert metrics.average_precision([2, 1, 0], [1, 1, 0], kind) == 1
    assert metrics.average_precision([1, 1, 1, 1], [1, 0, 0, 0], kind) == pytest.approx(0.25)
    assert np.isnan(metrics.average_precision([2, 1], [0, 0], kind))


@given(rankings)
def test_step_is_scikit_learns(pictures):
    scores, positive = map(np.array, zip(*pictures, strict=True))
    expected = average_precision_score(positive, scores)
    assert metrics.average_precision(scores, positive, "step") == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", ["area", "11-point"])
@given(pictures=rankings)
def test_voc_kinds_agree_with_the_definition(kind, pictures):
    scores, positive = map(np.array, zip(*pictures, strict=True))
    expected = naive(scores, positive, kind)
    assert metrics.average_precision(scores, positive, kind) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@given(pictures=rankings, seed=st.integers(0, 2**32 - 1))
def test_the_order_of_the_pictures_never_matters(kind, pictures, seed):
    scores, positive = map(np.array, zip(*pictures, strict=True))
    order = np.random.default_rng(seed).permutation(len(scores))
    shuffled = metrics.average_precision(scores[order], positive[order], kind)
    assert shuffled == metrics.average_precision(scores, positive, kind)


@pytest.mark.parametrize("kind", KINDS)
@given(pictures=rankings, seed=st.integers(0, 2**32 - 1))
def test_a_weight_is_a_number_of_copies(kind, pictures, seed):
    scores, positive = map(np.array, zip(*pictures, strict=True))
    weights = np.random.default_rng(seed).integers(0, 4, size=(5, len(scores))).astype(np.uint16)
    values = metrics.weighted_average_precision(scores, positive, weights, kind)
    for value, copies in zip(values, weights, strict=True):
        expected = metrics.average_precision(
            np.repeat(scores, copies), np.repeat(positive, copies), kind
        )
        assert value == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_what_is_done_with_difficult_pictures():
    truth = np.array([[1], [0], [-1], [1]], dtype=np.int8)
    scores = np.array([[4.0], [3.0], [2.0], [1.0]])

    def value(difficult):
        return metrics.mean_average_precision(scores, truth, "step", difficult)

    assert value("ignore") == pytest.approx((1 + 2 / 3) / 2)
    assert value("negative") == pytest.approx((1 + 2 / 4) / 2)
    assert value("positive") == pytest.approx((1 + 1 + 3 / 4) / 3)


def test_a_class_without_positives_is_left_out_of_the_mean():
    scores = np.array([[2.0, 1.0], [1.0, 2.0]])
    truth = np.array([[1, -1], [-1, -1]], dtype=np.int8)
    np.testing.assert_equal(metrics.class_average_precisions(scores, truth), [1.0, np.nan])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert metrics.mean_average_precision(scores, truth) == 1
        assert np.isnan(metrics.mean_average_precision(scores, -np.ones((2, 2), dtype=np.int8)))


@pytest.mark.parametrize(
    ("scores", "truth", "options", "message"),
    [
        (np.zeros((2, 1)), np.ones((3, 1)), {}, r"scores \(2, 1\) and truth \(3, 1\)"),
        (np.zeros(2), np.ones(2), {}, r"must be \(N, C\)"),
        (np.array([[0.0], [np.nan]]), np.ones((2, 1)), {}, r"1 scores are not finite.*\(1, 0\)"),
        (np.zeros((1, 1)), np.full((1, 1), 2), {}, "1, -1 and 0 only"),
        (np.zeros((1, 1)), np.ones((1, 1)), {"kind": "auc"}, "unknown kind 'auc'; known: area"),
        (np.zeros((1, 1)), np.ones((1, 1)), {"difficult": "drop"}, "unknown difficult 'drop'"),
    ],
)
def test_what_cannot_be_scored_is_refused(scores, truth, options, message):
    with pytest.raises(ValueError, match=message):
        metrics.mean_average_precision(scores, truth, **options)


def test_weights_must_fit_the_pictures():
    with pytest.raises(ValueError, match=r"weights \(1, 3\)"):
        metrics.weighted_average_precision([1, 2], [1, 0], np.ones((1, 3), dtype=int))
