"""COCO's average precision of VOC detections, by pycocotools as it is."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

BEYOND = 1e11  # square pixels; the range "all" ends at 1e10 (pycocotools, Params.setDetParams)


def coco_scores(predictions: Mapping[str, np.ndarray]) -> dict[str, float | None]:
    """AP over overlaps of .50 to .95, AP50 and AP75, each in points 0-100.

    COCO differs from VOC: a detection takes the best object that is still free, overlaps are of
    continuous boxes, the curve is read at 101 recalls, 100 detections of an image count. A
    difficult object is given an area beyond all ranges, so that neither it nor the detection that
    finds it counts; a second detection of it is false, as of any object.

    Args:
        predictions: as `tasks/voc_det.py` saves them; classes of index `counted` enter the mean.
    """
    quiet = io.StringIO()
    with contextlib.redirect_stdout(quiet):
        evaluation = COCOeval(*load(predictions), "bbox")
        evaluation.params.catIds = [int(c) for c in predictions["counted"]]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    names = ("COCO_AP", "COCO_AP50", "COCO_AP75")
    return {k: 100 * float(v) for k, v in zip(names, evaluation.stats, strict=False)}


def load(predictions: Mapping[str, np.ndarray]) -> tuple[COCO, COCO]:
    """Objects and detections as pycocotools has them; it prints while it does so."""
    truth = COCO()
    truth.dataset = _dataset(predictions)
    truth.createIndex()
    lines = _lines(predictions)
    return truth, truth.loadRes(lines) if lines else COCO()


def _dataset(predictions: Mapping[str, np.ndarray]) -> dict[str, Any]:
    difficult = predictions["true_difficult"]
    annotations = [
        {
            "id": k + 1,
            "image_id": int(predictions["true_image"][k]),
            "category_id": int(predictions["true_class"][k]),
            "bbox": box,
            "area": BEYOND if difficult[k] else box[2] * box[3],
            "iscrowd": 0,
        }
        for k, box in enumerate(_continuous(predictions["true_box"]))
    ]
    return {
        "images": [{"id": k} for k in range(len(predictions["ids"]))],
        "categories": [{"id": k} for k in range(len(predictions["classes"]))],
        "annotations": annotations,
    }


def _lines(predictions: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    columns = (predictions[name].tolist() for name in ("image", "label", "score"))
    boxes = _continuous(predictions["box"])
    return [
        {"image_id": image, "category_id": label, "score": score, "bbox": box}
        for image, label, score, box in zip(*columns, boxes, strict=True)
    ]


def _continuous(boxes: np.ndarray) -> list[list[float]]:
    """VOC's inclusive corners, from 1, as COCO's corner, from 0, and size."""
    low, high = boxes[:, :2].astype(float) - 1, boxes[:, 2:].astype(float)
    rows: list[list[float]] = np.hstack([low, high - low]).tolist()
    return rows
