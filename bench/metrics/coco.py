"""COCO's average precision of VOC detections, by pycocotools as it is."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from bench.metrics import checks
from bench.metrics.detection import Boxes, boxes_of

BEYOND = 1e11  # square pixels; the range "all" ends at 1e10 (pycocotools, Params.setDetParams)


def coco_scores(predictions: Mapping[str, np.ndarray]) -> dict[str, float | None]:
    """AP over overlaps of .50 to .95, AP50 and AP75, each in points 0-100.

    COCO differs from VOC: a detection takes the best object that is still free, overlaps are of
    continuous boxes, the curve is read at 101 recalls, 100 detections of an image count. A
    difficult object of VOC is given an area beyond all ranges, so that neither it nor the detection
    that finds it counts; a second detection of it is false, as of any object. A crowd of COCO is
    one: no detection in it counts.

    Args:
        predictions: `ids`, and what `metrics.detection.boxes_of` takes, as `tasks/voc_det.py` saves
            them; classes of index `counted` enter the mean. Corners are inclusive pixels from 1.

    Returns:
        `COCO_AP`, `COCO_AP50` and `COCO_AP75`; None where no object counts.

    Raises:
        ValueError: an array is missing, does not fit the others or holds a wrong value; names it.
    """
    quiet = io.StringIO()
    with contextlib.redirect_stdout(quiet):
        evaluation = COCOeval(*load(predictions), "bbox")
        parameters = evaluation.params
        parameters.catIds = [int(c) for c in predictions["counted"]]
        parameters.maxDets = parameters.maxDets[-1:]  # of 1, 10 and 100
        parameters.areaRng = parameters.areaRng[:1]  # "all"; small, medium and large follow
        parameters.areaRngLbl = parameters.areaRngLbl[:1]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"]  # overlaps .50, .55 ... .95 first
    parts = {"COCO_AP": precision, "COCO_AP50": precision[0], "COCO_AP75": precision[5]}
    scored = {name: part[part > -1] for name, part in parts.items()}  # -1 where no object counts
    return {name: 100 * float(part.mean()) if part.size else None for name, part in scored.items()}


def load(predictions: Mapping[str, np.ndarray]) -> tuple[COCO, COCO]:
    """Objects and detections as pycocotools has them; it prints while it does so.

    The argument and the errors are those of `coco_scores`.
    """
    num_images = len(checks.entry(predictions, "ids"))
    boxes = boxes_of(predictions, num_images)
    truth = COCO()
    truth.dataset = {
        "images": [{"id": k} for k in range(num_images)],
        "categories": [{"id": k} for k in range(len(predictions["classes"]))],
        "annotations": _annotations(boxes),
    }
    truth.createIndex()
    lines = _lines(boxes)
    return truth, truth.loadRes(lines) if lines else COCO()


def _annotations(boxes: Boxes) -> list[dict[str, Any]]:
    beyond = boxes.true_difficult & ~boxes.true_crowd
    columns = (boxes.true_image, boxes.true_class, beyond, boxes.true_crowd)
    return [
        {
            "id": k + 1,
            "image_id": image,
            "category_id": label,
            "bbox": box,
            "area": BEYOND if difficult else box[2] * box[3],
            "iscrowd": int(crowd),
        }
        for k, (image, label, difficult, crowd, box) in enumerate(
            zip(*(c.tolist() for c in columns), _continuous(boxes.true_box), strict=True)
        )
    ]


def _lines(boxes: Boxes) -> list[dict[str, Any]]:
    columns = (boxes.image.tolist(), boxes.label.tolist(), boxes.score.tolist())
    return [
        {"image_id": image, "category_id": label, "score": score, "bbox": box}
        for image, label, score, box in zip(*columns, _continuous(boxes.box), strict=True)
    ]


def _continuous(boxes: NDArray[np.float64]) -> list[list[float]]:
    """VOC's inclusive corners, from 1, as COCO's corner, from 0, and size."""
    low = boxes[:, :2] - 1
    high = boxes[:, 2:]
    rows: list[list[float]] = np.hstack([low, high - low]).tolist()
    return rows
