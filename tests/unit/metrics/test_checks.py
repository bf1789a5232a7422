"""What the evaluators refuse, each in one line that names the argument, and what they read."""

import numpy as np
import pytest
import torch

from bench.metrics import (
    NothingToScoreError,
    average_precision,
    class_average_precisions,
    confusion_matrix,
    detection_average_precision,
    mean_average_precision,
    mean_iou,
    registry,
    resampled,
)
from bench.metrics.average_precision import mean_average_precisions, weighted_average_precision
from bench.metrics.coco import coco_scores

BOX = [[1, 1, 10, 10]]
RANKING = {"scores": [2.0, 1.0, 0.0], "positive": [1, 0, 0]}
IMAGES = {"scores": np.array([[2.0], [1.0], [0.0]]), "truth": np.array([[1], [-1], [0]])}
DETECTIONS = {
    "boxes": BOX,
    "scores": [0.5],
    "images": [0],
    "true_boxes": BOX,
    "true_images": [0],
    "difficult": [False],
}
MAPS = {"truth": [0, 1, 255], "predicted": [0, 0, 9], "classes": 2}
CONFUSION = np.array([[6, 1], [1, 2]])


def refusal(function, **arguments):
    """The message of a refusal: one line."""
    with pytest.raises(ValueError) as refused:
        function(**arguments)
    message = str(refused.value)
    assert "\n" not in message and len(message) < 250
    return message


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64", "int8", "int64"])
def test_integers_rank_by_their_value(dtype):
    least = np.iinfo(dtype).min if dtype == "int8" else 0
    scores = np.array([2, 1, least], dtype=dtype)
    assert average_precision(scores, [1, 0, 0]) == 1
    assert average_precision(scores, [0, 0, 1]) == pytest.approx(1 / 3)
    arguments = DETECTIONS | {"boxes": BOX * 3, "images": [0] * 3, "scores": scores[::-1]}
    assert detection_average_precision(**arguments, kind="area") == 1


@pytest.mark.parametrize(
    "read",
    [
        torch.tensor,
        lambda values: torch.tensor(values, dtype=torch.float32, requires_grad=True),
        lambda values: torch.tensor(values, dtype=torch.bfloat16),
        np.float16,
        tuple,
        np.ma.MaskedArray,
    ],
)
def test_whatever_holds_the_same_numbers_scores_the_same(read):
    assert average_precision(read(RANKING["scores"]), read([0, 1, 0])) == 0.5


def test_tensors_are_read_by_every_evaluator():
    images = {name: torch.from_numpy(values) for name, values in IMAGES.items()}
    assert mean_average_precision(**images) == mean_average_precision(**IMAGES)
    boxes = {name: torch.tensor(values) for name, values in DETECTIONS.items()}
    assert detection_average_precision(**boxes) == detection_average_precision(**DETECTIONS) == 1
    maps = {name: torch.tensor(MAPS[name]) for name in ("truth", "predicted")}
    matrix = confusion_matrix(**maps, classes=2)
    assert matrix.tolist() == confusion_matrix(**MAPS).tolist() == [[1, 0], [1, 0]]
    assert mean_iou(torch.from_numpy(CONFUSION)) == mean_iou(CONFUSION)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"scores": ["2", "1", "0"]}, "scores holds text; expected an array of numbers"),
        ({"scores": [2, 1j, 0]}, "scores holds complex numbers"),
        ({"scores": [2, None, 0]}, "scores holds object"),
        ({"scores": [True, False, False]}, "scores holds booleans"),
        ({"scores": [2**60, 1, 0]}, "scores holds 1152921504606846976 at 0; expected integers of"),
        ({"scores": [np.inf, 1, 0]}, "scores holds inf at 0; expected finite numbers"),
        ({"scores": [[2], [1, 0]]}, "scores cannot be read as an array of numbers"),
        ({"scores": np.ma.MaskedArray([2, 1, 0], [0, 0, 1])}, "scores has masked values"),
        ({"scores": [[2, 1, 0]]}, "scores (1, 3) must be (N,)"),
        ({"scores": [2, 1]}, "scores 2, positive 3: they must be as many each"),
        ({"positive": [1, -1, -1]}, "positive holds -1 at 1; expected true and false, or 1 and 0"),
        ({"positive": [0.9, 0, 0]}, "positive holds 0.9 at 0"),
        ({"positive": ["True", "", ""]}, "positive holds text"),
        ({"positive": [1, np.nan, 0]}, "positive holds nan at 1"),
        ({"kind": ["area"]}, "unknown kind ['area']; known: area"),
    ],
)
def test_a_ranking_that_is_none_is_refused(change, says):
    assert says in refusal(average_precision, **RANKING | change)


def test_nothing_to_score_is_an_error_of_its_own():
    with pytest.raises(NothingToScoreError):
        average_precision([], [])
    with pytest.raises(NothingToScoreError):
        detection_average_precision([], [], [], [], [])


@pytest.mark.parametrize("function", [mean_average_precision, class_average_precisions])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"truth": [[1], [0], [0]]}, "truth holds 1 and 0 but no -1, and 0 means difficult"),
        ({"truth": [[True], [False], [False]]}, "truth holds booleans; expected 1, -1 and 0 only"),
        ({"truth": [[1], [0.5], [-1]]}, "truth holds 0.5 at (1, 0); expected 1, -1 and 0 only"),
        ({"truth": np.array([[1], [255], [255]], dtype=np.uint8)}, "truth holds 255 at (1, 0)"),
        ({"scores": np.zeros((0, 1)), "truth": np.zeros((0, 1))}, "at least one image and class"),
        ({"scores": [[True], [False], [False]]}, "scores holds booleans"),
    ],
)
def test_labels_that_are_not_vocs_are_refused(function, change, says):
    assert says in refusal(function, **IMAGES | change)


def test_zeros_are_read_where_every_reading_agrees():
    zeros = np.array([[1], [0], [0]])
    negative = mean_average_precision(IMAGES["scores"], zeros, difficult="negative")
    assert negative == mean_average_precision(IMAGES["scores"], 2 * zeros - 1)
    # One -1 shows that the codes are VOC's: the class of index 1 has a difficult image.
    truth = np.array([[1, 1], [-1, 0], [-1, 1]])
    assert class_average_precisions(np.eye(3, 2), truth).tolist() == [1, 1]


def test_what_has_no_value_is_none_or_masked():
    nowhere = np.full((3, 1), -1)
    assert {*mean_average_precisions(IMAGES["scores"], nowhere).values()} == {None}
    assert class_average_precisions(IMAGES["scores"], nowhere).tolist() == [None]


@pytest.mark.parametrize(
    ("weights", "total", "says"),
    [
        (np.array([[1, -1, 1]]), None, "weights must be integers of at least 0"),
        (np.array([[1.0, 0.5, 1.0]]), None, "weights must be integers of at least 0"),
        (np.array([[1, 1, 1]]), [0], "total is less than the weight of the positives"),
        (np.array([[1, 1, 1]]), [1, 1], "total (2,) must be (B,)"),
    ],
)
def test_weights_that_are_no_counts_are_refused(weights, total, says):
    arguments = RANKING | {"weights": weights, "total": total}
    assert says in refusal(weighted_average_precision, **arguments)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"boxes": np.ones((4, 8)), "scores": [1] * 8, "images": [0] * 8}, "boxes (4, 8) must be"),
        ({"boxes": [1, 1, 10, 10]}, "boxes (4,) must be (D, 4)"),
        ({"boxes": [[0.1, 0.1, 0.5, 0.5]]}, "boxes holds shares of the image"),
        ({"true_boxes": [[20, 20, 10, 10]]}, "true_boxes holds [20.0, 20.0, 10.0, 10.0] at 0"),
        ({"boxes": [["1", "1", "10", "10"]]}, "boxes holds text"),
        ({"scores": ["0.5"]}, "scores holds text"),
        ({"scores": [np.nan]}, "scores holds nan at 0; expected finite numbers"),
        ({"images": [0.5]}, "images holds 0.5 at 0; expected integers"),
        ({"true_images": [np.nan]}, "true_images holds nan at 0; expected integers"),
        ({"difficult": [-1]}, "difficult holds -1 at 0"),
        ({"difficult": ["false"]}, "difficult holds text"),
        ({"overlap": 50}, "overlap is 50; expected a number in 0..1"),
        ({"overlap": "0.5"}, "overlap is '0.5'"),
        ({"true_images": [0, 1]}, "true_boxes 1, true_images 2, difficult 1"),
    ],
)
def test_detections_that_are_none_are_refused(change, says):
    assert says in refusal(detection_average_precision, **DETECTIONS | change)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"truth": [0, 0.5, 1]}, "truth holds 0.5 at 1; expected integers"),
        ({"predicted": [0, np.nan, 0]}, "predicted holds nan at 1"),
        ({"predicted": [0, -1, 0]}, "the prediction holds label -1"),
        ({"classes": 2.0}, "classes is 2.0; expected an integer of at least 1"),
        ({"classes": True}, "classes is True"),
        ({"classes": 300}, "classes is 300; expected at most 255"),
    ],
)
def test_label_maps_that_are_none_are_refused(change, says):
    assert says in refusal(confusion_matrix, **MAPS | change)


@pytest.mark.parametrize(
    ("confusion", "says"),
    [
        (CONFUSION / CONFUSION.sum(1, keepdims=True), "expected counts, not shares"),
        (CONFUSION / CONFUSION.sum(), "confusion holds 0.6 at (0, 0); expected counts"),
        (-CONFUSION, "confusion holds -6 at (0, 0); expected counts of at least 0"),
        (CONFUSION * np.nan, "confusion holds nan"),
        (CONFUSION > 1, "confusion holds booleans"),
        (CONFUSION[None], "confusion (1, 2, 2) must be (C, C)"),
        (CONFUSION[:1], "confusion (1, 2) must be (C, C)"),
        (np.zeros((0, 0)), "confusion (0, 0) must be (C, C)"),
    ],
)
def test_a_matrix_that_does_not_count_is_refused(confusion, says):
    assert says in refusal(mean_iou, confusion=confusion)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
def test_counts_of_any_numeric_type_are_read(dtype):
    assert mean_iou(CONFUSION.astype(dtype)) == mean_iou(CONFUSION)


@pytest.fixture
def detections():
    """Predictions of one detection of one object, in two images."""
    return {
        "ids": np.array(["a", "b"]),
        "classes": np.array(["cat", "dog"]),
        "counted": np.array([1]),
        "box": np.array(BOX, dtype=np.float32),
        "score": np.array([0.5], dtype=np.float32),
        "label": np.array([1], dtype=np.int16),
        "image": np.array([1], dtype=np.int32),
        "true_box": np.array(BOX, dtype=np.float32),
        "true_class": np.array([1], dtype=np.int16),
        "true_image": np.array([1], dtype=np.int32),
        "true_difficult": np.array([False]),
    }


def test_coco_has_no_value_where_no_object_counts(detections):
    values = {"COCO_AP": None, "COCO_AP50": None, "COCO_AP75": None}
    assert coco_scores(detections | {"true_difficult": np.array([True])}) == values
    nowhere = {name: detections[name][:0] for name in detections if name.startswith("true_")}
    assert coco_scores(detections | nowhere) == values


@pytest.mark.parametrize("score", [coco_scores, lambda p: registry.value(registry.get("AP50"), p)])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"label": np.array([2])}, "label holds 2 at 0; expected a number in 0..1"),
        ({"true_image": np.array([-1])}, "true_image holds -1 at 0; expected a number in 0..1"),
        ({"score": np.array([np.nan])}, "score holds nan at 0; expected finite numbers"),
        ({"score": np.array([0.5, 0.4])}, "box 1, score 2, label 1, image 1"),
        ({"true_difficult": np.array([2])}, "true_difficult holds 2 at 0"),
        ({"counted": np.array([], dtype=int)}, "counted is []; expected at least one class"),
        ({"counted": np.array([1, 1])}, "counted is [1, 1]"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(detections, score, change, says):
    assert says in refusal(lambda: score(detections | change))


def test_flags_of_numbers_are_flags(detections):
    numbers = detections | {"true_difficult": np.array([0])}
    metric = registry.get("AP50")
    assert registry.value(metric, numbers) == registry.value(metric, detections) == 100


def test_predictions_that_lack_an_array_are_refused(detections):
    del detections["label"]
    assert "the predictions lack label; there is box" in refusal(lambda: coco_scores(detections))
    metric = registry.get("mAP")
    assert "lack ids; there is nothing" in refusal(registry.value, metric=metric, predictions={})
    message = refusal(registry.value, metric=metric, predictions={"ids": np.arange(3)})
    assert "the predictions lack scores" in message


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([[75.0]], "own returns 75.0; expected values in 0..1"),
        ([[np.inf]], "own returns inf"),
        ([0.5], "own returns (1,); expected (classes, 1)"),
        ([[0.5], [0.5]], "own has 2 values for 1 names"),
    ],
)
def test_a_metric_that_breaks_its_contract_is_refused(values, says):
    class Own:
        name = "own"
        label = "own"
        arrays = ()

        def per_class(self, predictions, weights):
            return np.array(values)

        def classes(self, predictions):
            return ["all"]

    predictions = {"ids": np.arange(2)}
    assert says in refusal(registry.per_class, metric=Own(), predictions=predictions)


@pytest.mark.parametrize(
    "counts", [np.array([[-1, 1]]), np.array([[0.5, 1]]), np.ones(2, int), np.array([[2**24, 1]])]
)
def test_counts_of_resamples_are_checked(counts):
    assert "counts" in refusal(resampled.resampling_weights, counts=counts)


def test_weights_that_are_not_numbers_are_refused():
    weights = np.array([[1], [np.nan], [1]], dtype=np.float32)
    message = refusal(resampled.class_precisions, **IMAGES, weights=weights)
    assert "weights (3, 1) must be (N, B), finite and at least 0" in message
