import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, jaccard_score
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix

from bench.metrics import (
    NothingToScoreError,
    average_precision,
    class_average_precisions,
    class_ious,
    confusion_matrix,
    detection_average_precision,
    mean_average_precision,
    mean_iou,
)
from bench.metrics.average_precision import weighted_average_precision

KINDS = ("area", "11-point", "11-point-exact", "step")
# Few distinct scores, so that ties are the rule.
rankings = st.lists(st.tuples(st.integers(-2, 3), st.booleans()), min_size=1, max_size=40).filter(
    lambda images: any(positive for _, positive in images)
)


def eleven_points(points, total, kind):
    """The mean of the best precisions of (hits, precision), by the loop of voc_eval.py."""
    if kind == "11-point":
        recalls = [
            [p for h, p in points if h / float(total) >= t] for t in np.arange(0.0, 1.1, 0.1)
        ]
    else:
        recalls = [[p for h, p in points if 10 * h >= k * total] for k in range(11)]
    return sum(max([*own, 0]) for own in recalls) / 11


def naive(scores, positive, kind):
    """VOC's definitions, threshold by threshold."""
    points = []
    for threshold in sorted(set(scores), reverse=True):
        taken = scores >= threshold
        hits = int((taken & positive).sum())
        points.append((hits, hits / taken.sum()))
    total = int(positive.sum())
    if kind.startswith("11-point"):
        return eleven_points(points, total, kind)
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
    assert average_precision(scores, positive, kind) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("found", range(1, 10))
def test_the_eleven_recalls_are_compared_as_released_evaluators_do_it(found):
    # Some of ten positives are found at precision 1, the others last. 3 * .1 > .3, so that a
    # recall of .3 does not reach it; of .6 and .7 the same is true.
    scores = -np.arange(110.0)
    positive = np.zeros(110, dtype=bool)
    positive[:found] = positive[found - 10 :] = True
    exactly = average_precision(scores, positive, "11-point-exact")
    assert exactly == pytest.approx((found + 1 + (10 - found) * 10 / 110) / 11)
    reached = found - (found in (3, 6, 7))
    released = average_precision(scores, positive, "11-point")
    assert released == pytest.approx((reached + 1 + (10 - reached) * 10 / 110) / 11)


def voc_ap(rec, prec):
    """As py-faster-rcnn and detectron2 have it, with `use_07_metric`."""
    ap = 0.0
    for t in np.arange(0.0, 1.1, 0.1):
        p = 0 if np.sum(rec >= t) == 0 else np.max(prec[rec >= t])
        ap = ap + p / 11.0
    return ap


def test_eleven_points_are_those_of_released_evaluators():
    rng = np.random.default_rng(0)
    differ = 0
    for _ in range(400):
        total = int(rng.integers(1, 5)) * int(rng.choice([1, 10]))
        positive = rng.permutation(np.arange(total + rng.integers(0, 40)) < total)
        tp, fp = positive.cumsum().astype(float), (~positive).cumsum().astype(float)
        peer = voc_ap(tp / float(total), tp / np.maximum(tp + fp, np.finfo(np.float64).eps))
        scores = -np.arange(len(positive))
        value = average_precision(scores, positive, "11-point")
        assert value == pytest.approx(peer, abs=1e-12)
        differ += value < average_precision(scores, positive, "11-point-exact") - 1e-9
    assert differ > 50


@pytest.mark.parametrize("kind", KINDS)
def test_the_ends_of_the_scale(kind):
    assert average_precision([2, 1, 0], [1, 1, 0], kind) == 1
    assert average_precision([1, 1, 1, 1], [1, 0, 0, 0], kind) == pytest.approx(0.25)
    with pytest.raises(NothingToScoreError, match="positive has no true value among 2"):
        average_precision([2, 1], [0, 0], kind)


@given(rankings)
def test_step_is_scikit_learns(images):
    scores, positive = map(np.array, zip(*images, strict=True))
    expected = average_precision_score(positive, scores)
    assert average_precision(scores, positive, "step") == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", ["area", "11-point"])
@given(images=rankings)
def test_voc_kinds_agree_with_the_definition(kind, images):
    scores, positive = map(np.array, zip(*images, strict=True))
    expected = naive(scores, positive, kind)
    assert average_precision(scores, positive, kind) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@given(images=rankings, seed=st.integers(0, 2**32 - 1))
def test_the_order_of_the_images_never_matters(kind, images, seed):
    scores, positive = map(np.array, zip(*images, strict=True))
    order = np.random.default_rng(seed).permutation(len(scores))
    shuffled = average_precision(scores[order], positive[order], kind)
    assert shuffled == average_precision(scores, positive, kind)


@pytest.mark.parametrize("kind", KINDS)
@given(images=rankings, seed=st.integers(0, 2**32 - 1))
def test_a_weight_is_a_number_of_copies(kind, images, seed):
    scores, positive = map(np.array, zip(*images, strict=True))
    weights = np.random.default_rng(seed).integers(0, 4, size=(5, len(scores))).astype(np.uint16)
    values = weighted_average_precision(scores, positive, weights, kind)
    for value, copies in zip(values, weights, strict=True):
        if np.isnan(value):
            assert not np.repeat(positive, copies).any()
            continue
        expected = average_precision(np.repeat(scores, copies), np.repeat(positive, copies), kind)
        assert value == pytest.approx(expected, abs=1e-12)


def test_what_is_done_with_difficult_images():
    truth = np.array([[1], [0], [-1], [1]], dtype=np.int8)
    scores = np.array([[4.0], [3.0], [2.0], [1.0]])

    def value(difficult):
        return mean_average_precision(scores, truth, "step", difficult)

    assert value("ignore") == pytest.approx((1 + 2 / 3) / 2)
    assert value("negative") == pytest.approx((1 + 2 / 4) / 2)
    assert value("positive") == pytest.approx((1 + 1 + 3 / 4) / 3)


def test_a_class_without_positives_is_left_out_of_the_mean():
    scores = np.array([[2.0, 1.0], [1.0, 2.0]])
    truth = np.array([[1, -1], [-1, -1]], dtype=np.int8)
    assert class_average_precisions(scores, truth).tolist() == [1.0, None]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mean_average_precision(scores, truth) == 1
        with pytest.raises(NothingToScoreError, match="no positive image in any class"):
            mean_average_precision(scores, -np.ones((2, 2), dtype=np.int8))


@pytest.mark.parametrize(
    ("scores", "truth", "options", "message"),
    [
        (np.zeros((2, 1)), np.ones((3, 1)), {}, r"scores \(2, 1\) and truth \(3, 1\)"),
        (np.zeros(2), np.ones(2), {}, r"must be \(N, C\)"),
        (
            np.array([[0.0], [np.nan]]),
            np.ones((2, 1)),
            {},
            r"scores holds nan at \(1, 0\)",
        ),
        (np.zeros((1, 1)), np.full((1, 1), 2), {}, "1, -1 and 0 only"),
        (np.zeros((1, 1)), np.ones((1, 1)), {"kind": "auc"}, "unknown kind 'auc'; known: area"),
        (np.zeros((1, 1)), np.ones((1, 1)), {"difficult": "drop"}, "unknown difficult 'drop'"),
    ],
)
def test_what_cannot_be_scored_is_refused(scores, truth, options, message):
    with pytest.raises(ValueError, match=message):
        mean_average_precision(scores, truth, **options)


def test_weights_must_fit_the_images():
    with pytest.raises(ValueError, match=r"weights \(1, 3\)"):
        weighted_average_precision([1, 2], [1, 0], np.ones((1, 3), dtype=int))


def naive_detection(detections, objects, kind, overlap):
    """VOC's matching, one detection after another; objects: image -> [(box, difficult)]."""
    taken, ranked, total = set(), [], 0
    for annotated in objects.values():
        total += sum(not difficult for _, difficult in annotated)
    for image, box, score in sorted(detections, key=lambda d: -d[2]):
        best, place = 0.0, None
        for k, (other, _) in enumerate(objects.get(image, [])):
            width = min(box[2], other[2]) - max(box[0], other[0]) + 1
            height = min(box[3], other[3]) - max(box[1], other[1]) + 1
            shared = max(width, 0) * max(height, 0)
            whole = sum((b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (box, other))
            if shared / (whole - shared) > best:
                best, place = shared / (whole - shared), k
        if best > overlap and objects[image][place][1]:
            continue
        first = best > overlap and (image, place) not in taken
        if first:
            taken.add((image, place))
        ranked.append((score, first))
    if not total:
        return float("nan")
    points = []
    for threshold in sorted({score for score, _ in ranked}, reverse=True):
        at = [first for score, first in ranked if score >= threshold]
        points.append((sum(at), sum(at) / len(at)))
    if kind.startswith("11-point"):
        return eleven_points(points, total, kind)
    area, before = 0.0, 0
    for i, (hits, _) in enumerate(points):
        area += (hits - before) / total * max(p for _, p in points[i:])
        before = hits
    return area


@pytest.mark.parametrize("kind", ["11-point", "11-point-exact", "area"])
def test_detections_score_as_a_naive_reading_of_the_devkit_says(kind):
    rng = np.random.default_rng(0)
    for _ in range(1500):
        objects, detections = {}, []
        for image in range(rng.integers(1, 5)):
            corners = rng.integers(0, 12, (rng.integers(0, 4), 2))
            boxes = np.hstack([corners, corners + rng.integers(0, 8, corners.shape)])
            hard = rng.random(len(boxes)) < 0.3
            objects[image] = [(tuple(b), h) for b, h in zip(boxes.tolist(), hard, strict=True)]
            for _ in range(rng.integers(0, 9)):
                low = rng.integers(0, 12, 2)
                box = (*low, *(low + rng.integers(0, 8, 2)))
                if len(boxes) and rng.random() < 0.6:  # near an object, or just on it
                    box = boxes[rng.integers(len(boxes))] + rng.integers(-1, 2, 4)
                    box = (*np.minimum(box[:2], box[2:]), *np.maximum(box[:2], box[2:]))
                detections.append((image, box, rng.integers(0, 5) / 4))
        flat = [(p, b, h) for p, annotated in objects.items() for b, h in annotated]
        expected = naive_detection(detections, objects, kind, 0.5)
        if np.isnan(expected):
            continue
        value = detection_average_precision(
            np.array([d[1] for d in detections]).reshape(-1, 4),
            [d[2] for d in detections],
            [d[0] for d in detections],
            np.array([f[1] for f in flat]).reshape(-1, 4),
            [f[0] for f in flat],
            [f[2] for f in flat],
            kind,
        )
        assert value == pytest.approx(expected, abs=1e-12)


def test_precision_beyond_the_recall_reached_is_nought():
    # One of two objects is found: recall .5 at precision 1, six of eleven points.
    box, far = [1, 1, 10, 10], [50, 50, 60, 60]
    value = detection_average_precision([box], [0.5], [0], [box, far], [0, 0])
    assert value == pytest.approx(6 / 11)
    area = detection_average_precision([box], [0.5], [0], [box, far], [0, 0], kind="area")
    assert area == pytest.approx(1 / 2)
    assert detection_average_precision([], [], [], [box], [0]) == 0
    with pytest.raises(NothingToScoreError, match="no object counts among 0"):
        detection_average_precision([box], [0.5], [0], [], [])
    with pytest.raises(NothingToScoreError, match="no object counts among 1"):
        detection_average_precision([box], [0.5], [0], [box], [0], [True])


def test_the_confusion_matrix_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 5, (2, 30, 40))
    truth[rng.random(truth.shape) < 0.2] = 255
    counted = truth != 255
    expected = sklearn_confusion_matrix(truth[counted], predicted[counted], labels=range(5))
    assert (confusion_matrix(truth, predicted, 5) == expected).all()
    scores = jaccard_score(truth[counted], predicted[counted], average=None)
    assert class_ious(expected) == pytest.approx(scores)
    assert mean_iou(expected) == pytest.approx(scores.mean())


def test_mean_iou_is_over_the_whole_set_and_the_classes_present():
    # Class 2 is nowhere; class 0: 6 of 8, class 1: 2 of 4.
    confusion = np.array([[6, 1, 0], [1, 2, 0], [0, 0, 0]])
    assert mean_iou(confusion) == pytest.approx((6 / 8 + 2 / 4) / 2)
    assert class_ious(confusion).tolist()[2] is None
    with pytest.raises(NothingToScoreError, match="confusion has no pixel"):
        mean_iou(np.zeros((3, 3)))


@pytest.mark.parametrize(
    ("truth", "predicted", "says"),
    [
        ([0, 7], [0, 0], "the truth holds label 7, there are 3 classes"),
        ([0, 1], [0, 255], "the prediction holds label 255"),
        ([0, 1], [[0, 1]], "differ in shape"),
    ],
)
def test_label_maps_that_do_not_fit_are_refused(truth, predicted, says):
    with pytest.raises(ValueError, match=says):
        confusion_matrix(truth, predicted, 3)
