"""Metrics on many weightings at once, against the metrics, one resample after another."""

import numpy as np
import pytest

from bench.metrics import (
    average_precision,
    detection_average_precision,
    mean_average_precision,
    mean_iou,
    registry,
    resampled,
)
from bench.metrics.average_precision import weighted_average_precision
from bench.statistics import resampling


def counts_of(images, resamples=70, seed=0):
    """Any integer weights: some resamples lack most images, others repeat them."""
    return np.random.default_rng(seed).integers(0, 4, size=(resamples, images)).astype(np.uint16)


def resampled_scores(predictions, counts, metric):
    weights = resampled.resampling_weights(counts)
    return registry.resampled_values(metric, predictions, weights)


def mean_ap(kind):
    return registry.MeanAveragePrecision("metric", kind)


def detection_ap(kind="11-point"):
    return registry.DetectionAveragePrecision("metric", kind)


def classification(seed=0, n=60, classes=3):
    rng = np.random.default_rng(seed)
    truth = rng.choice([1, -1, 0], p=[0.25, 0.65, 0.1], size=(n, classes)).astype(np.int8)
    scores = (truth + rng.normal(size=(n, classes))).round(1)  # rounded: ties
    return {"ids": np.arange(n), "scores": scores, "truth": truth}


def detection(seed=0, n=40, classes=4):
    """Objects, detections near them and anywhere; the last class has no detection at all."""
    rng = np.random.default_rng(seed)
    objects = 3 * n
    corner = rng.integers(1, 60, size=(objects, 2))
    true_box = np.concatenate([corner, corner + rng.integers(8, 30, size=(objects, 2))], axis=1)
    source = rng.integers(objects, size=2 * objects)
    box = true_box[source] + rng.normal(0, 3, size=(len(source), 4))
    box[:, 2:] = np.maximum(box[:, 2:], box[:, :2] + 1)
    true_class = rng.integers(classes, size=objects)
    true_image = rng.integers(n, size=objects)
    label = np.where(rng.random(len(source)) < 0.8, true_class[source], 0)
    return {
        "ids": np.arange(n),
        "classes": np.array(["ape", "bee", "cat", "dog"][:classes]),
        "image": true_image[source],
        "label": np.minimum(label, classes - 2),
        "score": rng.random(len(source)).round(2),
        "box": box,
        "true_image": true_image,
        "true_class": true_class,
        "true_box": true_box.astype(float),
        "true_difficult": rng.random(objects) < 0.15,
        "counted": np.arange(classes),
    }


@pytest.mark.parametrize("kind", ["area", "step", "11-point", "11-point-exact"])
def test_images_score_as_if_they_were_repeated(kind):
    predictions = classification()
    counts = counts_of(60)
    expected = [
        100
        * mean_average_precision(
            np.repeat(predictions["scores"], copies, axis=0),
            np.repeat(predictions["truth"], copies, axis=0),
            kind,
        )
        for copies in counts
    ]
    values = resampled_scores(predictions, counts, mean_ap(kind))
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-9)


def copied(rows, images, copies):
    """Rows as often as their image is copied, and the number of the copy that each is in."""
    pairs = [
        (row, 1000 * i + k) for row, i in zip(rows, images, strict=True) for k in range(copies[i])
    ]
    return np.array(pairs, dtype=int).reshape(-1, 2).T


def class_average_precision(predictions, label, kind, copies):
    """Average precision of one class after every image was copied."""
    rows = np.flatnonzero(predictions["label"] == label)
    true_rows = np.flatnonzero(predictions["true_class"] == label)
    rows, images = copied(rows, predictions["image"][rows], copies)
    true_rows, true_images = copied(true_rows, predictions["true_image"][true_rows], copies)
    return detection_average_precision(
        predictions["box"][rows],
        predictions["score"][rows],
        images,
        predictions["true_box"][true_rows],
        true_images,
        predictions["true_difficult"][true_rows],
        kind,
    )


@pytest.mark.parametrize("kind", ["area", "11-point", "11-point-exact"])
@pytest.mark.parametrize("seed", range(3))
def test_detections_score_as_if_their_images_were_repeated(kind, seed):
    predictions = detection(seed)
    counts = counts_of(40, resamples=30)
    counts[0] = 0
    values = resampled_scores(predictions, counts, detection_ap(kind))
    assert np.isnan(values[0])
    for copies, value in zip(counts[1:], values[1:], strict=True):
        labels = predictions["counted"]
        by_class = [class_average_precision(predictions, c, kind, copies) for c in labels]
        assert value == pytest.approx(100 * np.nanmean(by_class), abs=1e-9)


def test_detections_in_a_crowd_count_on_no_resample():
    """Two images of one object that is found; the first has a crowd, the second false ones."""
    cat, many, inside = (1, 1, 10, 10), (50, 50, 150, 150), (60, 60, 70, 70)
    predictions = {
        "ids": np.arange(2),
        "classes": np.array(["cat"]),
        "counted": np.array([0]),
        "image": np.array([0, 0, 0, 1, 1]),
        "label": np.zeros(5, dtype=int),
        "score": np.array([0.5, 0.9, 0.8, 0.4, 0.9]),
        "box": np.array([cat, inside, inside, cat, inside], dtype=float),
        "true_image": np.array([0, 0, 1]),
        "true_class": np.zeros(3, dtype=int),
        "true_box": np.array([cat, many, cat], dtype=float),
        "true_difficult": np.array([False, True, False]),
    }
    weights = resampled.resampling_weights(np.array([[2, 0], [0, 2], [1, 1]]))
    crowd = predictions["true_difficult"]
    values = resampled.detection_precisions(predictions | {"true_crowd": crowd}, weights, "area")
    # Of both: the surest is false, so precision is 1/2 and 2/3; the envelope has 2/3 throughout.
    np.testing.assert_allclose(values, [[1, 1 / 2, 2 / 3]])
    without = resampled.detection_precisions(predictions, weights, "area")
    np.testing.assert_allclose(without, [[1 / 3, 1 / 2, 2 / 5]])
    none = {"true_crowd": np.zeros(3, dtype=bool)}
    again = resampled.detection_precisions(predictions | none, weights, "area")
    np.testing.assert_array_equal(again, without)


@pytest.mark.parametrize("seed", range(3))
def test_detections_outside_of_all_crowds_score_as_without_them(seed):
    """Crowds beyond the border of the images are no objects, and excuse nothing."""
    predictions = detection(seed)
    counts = counts_of(40, resamples=20)
    plain = resampled_scores(predictions, counts, detection_ap())
    objects = len(predictions["true_image"])
    false = np.zeros(objects, dtype=bool)
    far = {
        "true_image": np.append(predictions["true_image"], [3, 4]),
        "true_class": np.append(predictions["true_class"], [0, 1]),
        "true_box": np.concatenate([predictions["true_box"], [[900, 900, 999, 999]] * 2]),
        "true_difficult": np.append(predictions["true_difficult"], [True, True]),
        "true_crowd": np.append(false, [True, True]),
    }
    for changes in ({"true_crowd": false}, far):
        found = resampled_scores(predictions | changes, counts, detection_ap())
        np.testing.assert_array_equal(found, plain)


def test_a_detector_that_finds_nothing_scores_nothing():
    predictions = detection()
    empty = predictions | {
        name: predictions[name][:0] for name in ("box", "label", "score", "image")
    }
    assert (resampled_scores(empty, counts_of(40), detection_ap()) == 0).all()
    nowhere = {name: predictions[name][:0] for name in predictions if name.startswith("true_")}
    assert np.isnan(resampled_scores(predictions | nowhere, counts_of(40), detection_ap())).all()


@pytest.mark.parametrize("place", [-1, 40])
def test_a_detection_in_a_image_that_is_not_there_is_refused(place):
    predictions = detection()
    image = np.where(np.arange(len(predictions["image"])) == 3, place, predictions["image"])
    with pytest.raises(ValueError, match=r"image holds .* at 3; expected a number in 0\.\.39"):
        resampled_scores(predictions | {"image": image}, counts_of(40), detection_ap())


def test_masks_score_as_the_metric_says():
    rng = np.random.default_rng(0)
    each = rng.integers(0, 50, size=(30, 5, 5))
    each[:, 3] = each[:, :, 3] = 0  # a class that is nowhere
    predictions = {"ids": np.arange(30), "confusion": each, "counted": np.arange(5)}
    counts = counts_of(30)
    expected = [100 * mean_iou((each * copies[:, None, None]).sum(axis=0)) for copies in counts]
    values = resampled_scores(predictions, counts, registry.get("mIoU"))
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["area", "step", "11-point", "11-point-exact"])
def test_every_image_once_is_the_main_score(kind):
    images = classification()
    expected = mean_average_precision(images["scores"], images["truth"], kind)
    assert registry.value(mean_ap(kind), images) == pytest.approx(100 * expected, abs=1e-9)
    boxes = detection()
    once = np.ones(40, dtype=int)
    by_class = [class_average_precision(boxes, label, kind, once) for label in boxes["counted"]]
    value = registry.value(detection_ap(kind), boxes)
    assert value == pytest.approx(100 * np.nanmean(by_class), abs=1e-9)


@pytest.mark.parametrize("found", range(1, 11))
@pytest.mark.parametrize("kind", ["11-point", "11-point-exact"])
def test_recalls_of_weighted_images_reach_what_those_of_copies_do(found, kind):
    """A tenth is one on every weighting: of `found` of ten, and of the same a million times."""
    positive = np.zeros(110, dtype=bool)
    positive[:found] = positive[100 + found :] = True
    weights = np.ones((110, 2), dtype=np.float32)
    weights[positive, 1] = 1_000_000
    scores = -np.arange(110.0)
    value = resampled.ranked_precisions(scores, positive, np.arange(110), weights, kind)
    plain = average_precision(scores, positive, kind)
    assert value[0] == pytest.approx(plain)
    counts = np.full((1, 110), 1)
    counts[0, positive] = 1_000_000
    (heavy,) = weighted_average_precision(scores, positive, counts, kind)
    assert value[1] == pytest.approx(heavy)
    assert heavy > plain or found == 10


def test_recalls_of_millions_are_compared_exactly():
    weights = np.array([[3_355_451], [3_728_279], [372_828]], dtype=np.float32)
    ranking = np.array([3.0, 2.0, 1.0]), np.array([True, False, True]), np.arange(3)
    value = resampled.ranked_precisions(*ranking, weights, "11-point")
    assert value == pytest.approx((9 + 2 * 0.5) / 11)  # one more found would reach recall .9


def test_as_many_images_as_sums_count_exactly():
    assert resampling.resamples(70_000, 1, seed=0).sum() == 35_000
    with pytest.raises(ValueError, match="16777217 images"):
        resampling.resamples(2**24 + 1, 2, seed=0)
