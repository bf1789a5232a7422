"""COCO's scores of VOC detections, and where its matching and VOC's part ways."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from bench.metrics import registry
from bench.metrics.coco import coco_scores, load

A, B, BETWEEN = (1, 1, 10, 10), (1, 4, 10, 13), (1, 2, 10, 11)


def main_score(predicted):
    """VOC's average precision, area under the envelope, in points."""
    return registry.value(registry.get("AP50_area"), predicted)


def predictions(detections, objects, images=1):
    """Detections (image, label, box, score) and objects (image, label, box, difficult)."""
    d, o = list(zip(*detections, strict=True)) or [()] * 4, list(zip(*objects, strict=True))
    return {
        "ids": np.arange(images).astype(str),
        "classes": np.array(["cat", "dog"]),
        "counted": np.unique(o[1]),
        "image": np.array(d[0], dtype=np.int32),
        "label": np.array(d[1], dtype=np.int16),
        "box": np.array(d[2], dtype=np.float32).reshape(-1, 4),
        "score": np.array(d[3], dtype=np.float32),
        "true_image": np.array(o[0], dtype=np.int32),
        "true_class": np.array(o[1], dtype=np.int16),
        "true_box": np.array(o[2], dtype=np.float32),
        "true_difficult": np.array(o[3], dtype=bool),
    }


def test_a_second_detection_is_false_for_voc_and_finds_the_neighbor_for_coco():
    """A second detection between two objects overlaps the first most."""
    both = [(0, 1, A, False), (0, 1, B, False)]
    predicted = predictions([(0, 1, A, 0.9), (0, 1, BETWEEN, 0.8)], both)
    assert main_score(predicted) == pytest.approx(50)
    assert coco_scores(predicted)["COCO_AP50"] == pytest.approx(100)


def test_where_no_detection_has_two_objects_to_choose_from_they_agree():
    rng = np.random.default_rng(0)
    for _ in range(20):
        objects = [(k, int(rng.integers(2)), A, False) for k in range(6)]
        scores = rng.permutation(12) / 12
        detections = [
            (
                int(rng.integers(6)),
                int(rng.integers(2)),
                A if rng.random() < 0.6 else (50, 50, 60, 60),
                s,
            )
            for s in scores
        ]
        predicted = predictions(detections, objects, images=6)
        # COCO reads the envelope at 101 recalls, VOC takes its whole area.
        assert coco_scores(predicted)["COCO_AP50"] == pytest.approx(main_score(predicted), abs=1.0)


def test_a_difficult_object_counts_neither_way():
    alone = predictions([(0, 1, A, 0.9)], [(0, 1, A, False)])
    beside = predictions(
        [(0, 1, A, 0.9), (1, 1, A, 0.95)],
        [(0, 1, A, False), (1, 1, A, True)],
        images=2,
    )
    for predicted in (alone, beside):
        assert main_score(predicted) == pytest.approx(100)
        assert coco_scores(predicted)["COCO_AP"] == pytest.approx(100)


def test_a_part_of_a_difficult_object_is_false():
    whole, part = (1, 1, 100, 100), (1, 1, 10, 10)
    predicted = predictions(
        [(0, 1, A, 0.8), (1, 1, part, 0.9)], [(0, 1, A, False), (1, 1, whole, True)], images=2
    )
    assert main_score(predicted) == pytest.approx(50)
    assert coco_scores(predicted)["COCO_AP"] == pytest.approx(50, abs=1)


def test_no_detection_at_all_scores_nothing(capsys):
    predicted = predictions([], [(0, 1, A, False)])
    assert main_score(predicted) == 0
    assert coco_scores(predicted) == {"COCO_AP": 0, "COCO_AP50": 0, "COCO_AP75": 0}
    assert capsys.readouterr().out == ""


def test_scores_are_those_of_the_whole_summary():
    """Of which only one range of areas and one number of detections are computed here."""
    rng = np.random.default_rng(0)

    def box():
        low = rng.integers(1, 60, 2)
        return (*low.tolist(), *(low + rng.integers(5, 120, 2)).tolist())

    objects = [(k % 5, k % 2, box(), bool(rng.random() < 0.2)) for k in range(30)]
    near = [(k, label, tuple(np.array(b) + rng.integers(0, 3, 4))) for k, label, b, _ in objects]
    detections = [(*line, rng.random()) for line in near]
    detections += [(k % 5, k % 2, box(), rng.random()) for k in range(1500)]  # 100 of 150 count
    predicted = predictions(detections, objects, images=5)
    peer = COCOeval(*load(predicted), "bbox")
    peer.params.catIds = [0, 1]
    peer.evaluate()
    peer.accumulate()
    peer.summarize()
    assert list(coco_scores(predicted).values()) == [100 * value for value in peer.stats[:3]]


def peer_scores(predicted, crowd):
    """AP, AP50 and AP75 of pycocotools, of objects of which some are crowds."""

    def boxes(kind, image, label, **columns):
        low, high = np.split(predicted[kind].astype(float), 2, axis=1)
        sides = np.hstack([low - 1, high - low + 1])
        places = zip(predicted[image].tolist(), predicted[label].tolist(), strict=True)
        return [
            {"id": k + 1, "image_id": i, "category_id": c, "bbox": box.tolist()}
            | {"area": float(box[2:].prod())}
            | {key: column[k].item() for key, column in columns.items()}
            for k, ((i, c), box) in enumerate(zip(places, sides, strict=True))
        ]

    truth = COCO()
    truth.dataset = {
        "images": [{"id": k} for k in range(len(predicted["ids"]))],
        "categories": [{"id": int(k)} for k in predicted["counted"]],
        "annotations": boxes("true_box", "true_image", "true_class", iscrowd=crowd.astype(int)),
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        lines = boxes("box", "image", "label", score=predicted["score"])
        peer = COCOeval(truth, truth.loadRes(lines), "bbox")
        peer.evaluate()
        peer.accumulate()
        peer.summarize()
    return [100 * value for value in peer.stats[:3]]


def with_crowds(predicted, crowd):
    """Predictions of which some objects are crowds, which are difficult too."""
    crowd = np.array(crowd, dtype=bool)
    return predicted | {
        "true_crowd": crowd,
        "true_difficult": predicted["true_difficult"] | crowd,
    }


def test_no_detection_in_a_crowd_counts_however_many():
    whole, inside = (50, 50, 150, 150), [(60, 60, 70, 70), (80, 60, 90, 70), (60, 80, 70, 99)]
    detections = [(0, 1, A, 0.5), *((0, 1, box, 0.9) for box in inside)]
    objects = predictions(detections, [(0, 1, A, False), (0, 1, whole, True)])
    crowds = with_crowds(objects, [False, True])
    assert coco_scores(crowds) == pytest.approx(
        {"COCO_AP": 100, "COCO_AP50": 100, "COCO_AP75": 100}
    )
    assert main_score(crowds) == pytest.approx(100)
    assert peer_scores(objects, crowds["true_crowd"]) == pytest.approx([100] * 3)
    assert coco_scores(objects)["COCO_AP50"] == pytest.approx(25, abs=1), "of a difficult object"


def test_where_only_crowds_are_nothing_can_be_scored():
    crowd = with_crowds(predictions([(0, 1, A, 0.9)], [(0, 1, A, True)]), [True])
    assert [*coco_scores(crowd).values()] == [None] * 3


@pytest.mark.parametrize("seed", range(4))
def test_crowds_score_as_in_pycocotools(seed):
    rng = np.random.default_rng(seed)

    def box(least, most):
        low = rng.integers(1, 80, 2)
        return (*low.tolist(), *(low + rng.integers(least, most, 2)).tolist())

    objects = [(k % 6, k % 2, box(8, 40), False) for k in range(30)]
    objects += [(k, k % 2, box(50, 120), True) for k in range(6)]
    near = [(k, c, tuple(np.array(b) + rng.integers(0, 4, 4))) for k, c, b, _ in objects]
    detections = [(*line, rng.random()) for line in near]
    detections += [(k % 6, k % 2, box(5, 30), rng.random()) for k in range(90)]
    predicted = predictions(detections, objects, images=6)
    crowd = predicted["true_difficult"]
    scores = [*coco_scores(with_crowds(predicted, crowd)).values()]
    assert scores == pytest.approx(peer_scores(predicted, crowd))
    assert scores != pytest.approx([*coco_scores(predicted).values()], abs=0.1), "crowds matter"


def test_no_crowd_at_all_changes_nothing():
    objects = [(0, 1, A, False), (0, 1, B, True)]
    predicted = predictions([(0, 1, A, 0.9), (0, 1, BETWEEN, 0.95)], objects)
    assert coco_scores(with_crowds(predicted, [False, False])) == coco_scores(predicted)


@pytest.mark.parametrize(
    ("crowd", "message"),
    [
        ([True], r"true_difficult 2, true_crowd 1: they must be as many each"),
        ([[True, False]], r"true_crowd \(1, 2\) must be \(T,\)"),
        ([0, 2], r"true_crowd holds 2 at 1; expected true and false"),
    ],
)
def test_crowds_that_do_not_fit_the_objects_are_refused(crowd, message):
    predicted = predictions([(0, 1, A, 0.9)], [(0, 1, A, False), (0, 1, B, False)])
    for score in (coco_scores, main_score):
        with pytest.raises(ValueError, match=message):
            score(predicted | {"true_crowd": np.array(crowd)})
