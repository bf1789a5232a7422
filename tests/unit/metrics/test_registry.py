"""Metrics by name: those that ship, those of installed packages, and what all of them must do."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from bench.errors import UserError
from bench.metrics import (
    NothingToScoreError,
    class_average_precisions,
    class_ious,
    detection_average_precision,
    mean_average_precision,
    registry,
)
from bench.metrics.resampled import resampling_weights

CLASSES = np.array(["cat", "dog", "yak"])


@pytest.fixture
def images():
    """Scores and labels of 50 images; the last class is nowhere."""
    rng = np.random.default_rng(0)
    truth = rng.choice([1, -1, 0], p=[0.3, 0.6, 0.1], size=(50, 3))
    truth[:, 2] = -1
    scores = truth + rng.normal(size=truth.shape).round(1)
    return {"ids": np.arange(50), "classes": CLASSES, "scores": scores, "truth": truth}


@pytest.fixture
def boxes():
    """Detections and objects in 20 images; the class of index 1 does not count."""
    rng = np.random.default_rng(0)
    corners = rng.integers(1, 40, size=(60, 2))
    true_box = np.hstack([corners, corners + rng.integers(8, 30, size=(60, 2))]).astype(float)
    source = rng.integers(60, size=90)
    true_class = rng.integers(3, size=60)
    true_image = rng.integers(20, size=60)
    return {
        "ids": np.arange(20),
        "classes": CLASSES,
        "counted": np.array([0, 2]),
        "box": true_box[source] + rng.integers(0, 6, size=(90, 1)),
        "score": rng.random(90).round(2),
        "label": true_class[source],
        "image": true_image[source],
        "true_box": true_box,
        "true_class": true_class,
        "true_image": true_image,
        "true_difficult": rng.random(60) < 0.2,
    }


@pytest.fixture
def masks():
    """Confusion matrices of 12 images; the last class is nowhere."""
    confusion = np.random.default_rng(0).integers(0, 50, size=(12, 3, 3))
    confusion[:, 2] = confusion[:, :, 2] = 0
    return {"ids": np.arange(12), "classes": CLASSES, "confusion": confusion}


@pytest.fixture
def choices():
    """The predicted and the true class of 40 images."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 5, size=40)
    predicted = np.where(rng.random(40) < 0.6, label, rng.integers(0, 5, size=40))
    return {"ids": np.arange(40), "predicted": predicted, "label": label}


class Top9:
    """A metric of somebody's own."""

    name = "top9"
    label = "top-9"
    arrays = ("right",)

    def per_class(self, predictions, weights):
        return (predictions["right"] @ weights / weights.sum(0))[None]

    def classes(self, predictions):
        return ["all"]

    def ground_truth(self, predictions):
        return []


def test_an_unknown_metric_names_the_near_ones():
    assert registry.find("mAPP") is None
    with pytest.raises(UserError, match="unknown metric 'mAPP': did you mean mAP"):
        registry.get("mAPP")


def test_a_metric_of_ones_own_is_known_once_registered(own_plugins):
    registry.register(Top9())
    registry.register(Top9())  # the same file, read again
    predictions = {"ids": np.arange(4), "right": np.array([1.0, 1.0, 0.0, 1.0])}
    assert registry.value(registry.get("top9"), predictions) == 75
    assert registry.per_class(registry.get("top9"), predictions) == {"all": 75}


def test_a_name_that_another_metric_has_is_refused(own_plugins):
    other = type("Other", (Top9,), {"name": "mIoU"})
    with pytest.raises(UserError, match="metric 'mIoU' exists already; use another name"):
        registry.register(other())
    assert registry.get("mIoU").label == "mIoU"


@pytest.mark.parametrize(("name", "kind"), [("mAP", "area"), ("mAP_step", "step")])
def test_average_precisions_of_images_are_those_of_the_evaluator(images, name, kind):
    metric = registry.get(name)
    expected = 100 * class_average_precisions(images["scores"], images["truth"], kind)
    values = registry.per_class(metric, images)
    assert list(values) == ["cat", "dog"]
    assert list(values.values()) == pytest.approx(list(expected[:2]), abs=1e-9)
    mean = 100 * mean_average_precision(images["scores"], images["truth"], kind)
    assert registry.value(metric, images) == pytest.approx(mean, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("AP50", "11-point"), ("AP50_exact", "11-point-exact"), ("AP50_area", "area")],
)
def test_average_precisions_of_boxes_are_those_of_the_evaluator(boxes, name, kind):
    expected = {}
    for index in boxes["counted"]:
        detected = boxes["label"] == index
        true = boxes["true_class"] == index
        expected[str(CLASSES[index])] = 100 * detection_average_precision(
            boxes["box"][detected],
            boxes["score"][detected],
            boxes["image"][detected],
            boxes["true_box"][true],
            boxes["true_image"][true],
            boxes["true_difficult"][true],
            kind,
        )
    metric = registry.get(name)
    assert registry.per_class(metric, boxes) == pytest.approx(expected, abs=1e-9)
    assert registry.value(metric, boxes) == pytest.approx(np.mean([*expected.values()]), abs=1e-9)
    assert len({*expected.values()}) == 2


def test_intersections_over_union_are_those_of_the_evaluator(masks):
    expected = 100 * class_ious(masks["confusion"].sum(0))
    values = registry.per_class(registry.get("mIoU"), masks)
    assert values == pytest.approx({"cat": expected[0], "dog": expected[1]}, abs=1e-9)
    assert registry.value(registry.get("mIoU"), masks) == pytest.approx(np.mean(expected[:2]))


def test_top1_is_the_share_of_right_images(choices):
    metric = registry.get("top1")
    expected = 100 * accuracy_score(choices["label"], choices["predicted"])
    assert registry.value(metric, choices) == pytest.approx(expected, abs=1e-9)
    assert registry.per_class(metric, choices) == pytest.approx({"all": expected})
    counts = np.random.default_rng(1).integers(0, 3, size=(7, 40))
    values = registry.resampled_values(metric, choices, resampling_weights(counts))
    expected = [
        100 * accuracy_score(choices["label"], choices["predicted"], sample_weight=own)
        for own in counts
    ]
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-9)
    nothing = registry.resampled_values(metric, choices, np.zeros((40, 1), np.float32))
    assert np.isnan(nothing).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": np.full(40, 0.5)}, "label holds 0.5 at 0; expected integers"),
        ({"predicted": np.full(40, -1)}, "predicted holds -1 at 0; expected a number in 0"),
        ({"predicted": np.zeros(39, int)}, "predicted 39, label 40: they must be as many each"),
        ({"ids": np.arange(39)}, "label is of 40 images, and weights"),
        ({"label": np.zeros((40, 2), int)}, r"label \(40, 2\) must be \(N,\)"),
    ],
)
def test_what_is_no_class_is_refused_by_top1(choices, changes, message):
    with pytest.raises(ValueError, match=message):
        registry.value(registry.get("top1"), choices | changes)


def test_a_value_is_no_number_where_no_class_has_anything_to_score(images):
    nothing = images | {"truth": np.full((50, 3), -1)}
    with pytest.raises(NothingToScoreError, match="no class has anything to score by mAP in 50"):
        registry.value(registry.get("mAP"), nothing)
    assert registry.per_class(registry.get("mAP"), nothing) == {}


def equal(metric, left, right):
    pairs = zip(metric.ground_truth(left), metric.ground_truth(right), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("name", "fixture", "predicted", "true"),
    [
        ("mAP", "images", ["scores"], ["truth"]),
        ("mAP_step", "images", ["scores"], ["truth"]),
        (
            *("AP50", "boxes", ["box", "score", "label", "image"]),
            ["true_box", "true_class", "true_image", "true_difficult"],
        ),
        ("AP50_area", "boxes", ["score"], ["true_difficult"]),
        ("top1", "choices", ["predicted"], ["label"]),
    ],
)
def test_ground_truth_is_equal_for_equal_test_splits_alone(name, fixture, predicted, true, request):
    predictions = request.getfixturevalue(fixture)
    metric = registry.get(name)
    assert equal(metric, predictions, {key: array.copy() for key, array in predictions.items()})
    for key in predicted:
        assert equal(metric, predictions, predictions | {key: predictions[key][::-1]})
    for key in true:
        assert not equal(metric, predictions, predictions | {key: predictions[key][::-1]})


def test_ground_truth_of_masks_is_how_many_pixels_of_each_class_an_image_has(masks):
    metric = registry.get("mIoU")
    confusion = masks["confusion"]
    assert equal(metric, masks, masks | {"confusion": confusion[:, :, ::-1]})  # other predictions
    assert not equal(metric, masks, masks | {"confusion": confusion[:, ::-1]})


ENTRY = "import sys; from bench.metrics import registry; m = registry.get('top9'); "


@pytest.mark.parametrize("value", ["top9:Top9", "top9:INSTANCE"])
def test_a_metric_of_an_installed_package_is_known_by_its_entry_point(tmp_path, value):
    source = "class Top9:\n    name = 'top9'\n    label = 'top-9'\n\n\nINSTANCE = Top9()\n"
    (tmp_path / "top9.py").write_text(source)
    info = tmp_path / "top9-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: top9\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[ssl_gap.metrics]\ntop9 = {value}\n")
    code = f"import sys; sys.path.append({str(tmp_path)!r}); {ENTRY} print(m.label)"
    command = [sys.executable, "-c", code]
    outcome = subprocess.run(command, capture_output=True, text=True, check=True)
    assert outcome.stdout == "top-9\n"
