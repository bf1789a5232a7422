"""COCO's scores of VOC detections, and where its matching and VOC's part ways."""

import numpy as np
import pytest
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
