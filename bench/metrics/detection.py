"""Boxes: overlap, and which detection matches which object by the rules of PASCAL VOC.

Boxes are (xmin, ymin, xmax, ymax) in inclusive pixels, so that one of equal corners has one pixel
(VOC devkit, VOCevaldet.m: widths are xmax - xmin + 1). Needs numpy only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.metrics.average_precision import Kind, check_scores, weighted_average_precision

# Outcomes of a detection.
TRUE_POSITIVE = 1
FALSE_POSITIVE = 0
IGNORED = -1


def areas(boxes: NDArray[np.floating]) -> NDArray[np.floating]:
    """Pixels in boxes (..., 4)."""
    pixels: NDArray[np.floating] = (boxes[..., 2:] - boxes[..., :2] + 1).prod(-1)
    return pixels


def overlaps(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.floating]:
    """Intersection over union of boxes (..., 4) with boxes (..., 4), each with each, in 0..1."""
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    shared = np.maximum(high - low + 1, 0).prod(-1)
    share: NDArray[np.floating] = shared / (areas(a) + areas(b) - shared)
    return share


def match(
    boxes: ArrayLike,
    scores: ArrayLike,
    images: ArrayLike,
    true_boxes: ArrayLike,
    true_images: ArrayLike,
    difficult: ArrayLike,
    overlap: float,
) -> NDArray[np.int8]:
    """Outcome of each detection of one class: `TRUE_POSITIVE`, `FALSE_POSITIVE` or `IGNORED`.

    A detection, from the highest score down, belongs to the object of its image that it overlaps
    most, difficult or not. Up to `overlap` it is false; on a difficult object it is ignored; the
    first on any other object finds it, later ones are false, even if they overlap a free object
    too (VOC devkit; overlap strictly above the threshold as in py-faster-rcnn's voc_eval.py, where
    the devkit's own Matlab takes equality too).

    Args:
        boxes: (D, 4).
        scores: (D,), signed; among equal ones the earlier goes first, which changes no count.
        images: (D,) integers.
        true_boxes: (T, 4).
        true_images: (T,) integers.
        difficult: (T,) bool.
        overlap: intersection over union, 0..1.

    Returns:
        (D,) int8, in the order of the detections.

    Raises:
        ValueError: shapes that do not fit, or a box whose corners are not in order.
    """
    boxes, true_boxes = (np.asarray(b, dtype=float).reshape(-1, 4) for b in (boxes, true_boxes))
    scores, images, true_images = (np.asarray(a).reshape(-1) for a in (scores, images, true_images))
    difficult = np.asarray(difficult, dtype=bool).reshape(-1)
    detections = [len(boxes), len(scores), len(images)]
    objects = [len(true_boxes), len(true_images), len(difficult)]
    if len({*detections}) > 1 or len({*objects}) > 1:
        raise ValueError(f"detections {detections} and objects {objects} must be as many each")
    for name, corners in (("a detection", boxes), ("an object", true_boxes)):
        if not (corners[:, 2:] >= corners[:, :2]).all():
            raise ValueError(f"{name}: corners that are not in order, or not numbers")
    best, iou = _best(boxes, images, true_boxes, true_images)
    outcomes = np.full(len(boxes), FALSE_POSITIVE, dtype=np.int8)
    hit = np.flatnonzero(iou > overlap)
    order = hit[np.argsort(-scores[hit], kind="stable")]
    outcomes[order[difficult[best[order]]]] = IGNORED
    free = order[~difficult[best[order]]]
    outcomes[free[np.unique(best[free], return_index=True)[1]]] = TRUE_POSITIVE
    return outcomes


def _best(
    boxes: NDArray[np.floating],
    images: NDArray[np.integer],
    true_boxes: NDArray[np.floating],
    true_images: NDArray[np.integer],
) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
    """The object that each detection overlaps most (the first of equals), and by how much."""
    by_image = np.argsort(true_images, kind="stable")
    starts = np.searchsorted(true_images[by_image], images)
    counts = np.searchsorted(true_images[by_image], images, side="right") - starts
    best, iou = np.zeros(len(boxes), dtype=np.int64), np.zeros(len(boxes))
    some = np.flatnonzero(counts)
    if not some.size:
        return best, iou
    # One line for each pair of a detection and an object of its image.
    firsts = np.concatenate([[0], counts[some].cumsum()[:-1]])
    pair = np.repeat(np.arange(len(some)), counts[some])
    place = np.arange(len(pair)) - firsts[pair]
    thing = by_image[starts[some][pair] + place]
    overlap = overlaps(boxes[some][pair], true_boxes[thing])
    most = np.maximum.reduceat(overlap, firsts)
    equal = np.flatnonzero(overlap == most[pair])
    chosen = equal[np.unique(pair[equal], return_index=True)[1]]
    best[some], iou[some] = thing[chosen], most
    return best, iou


def detection_average_precision(
    boxes: ArrayLike,
    scores: ArrayLike,
    images: ArrayLike,
    true_boxes: ArrayLike,
    true_images: ArrayLike,
    difficult: ArrayLike | None = None,
    kind: Kind = "11-point",
    overlap: float = 0.5,
) -> float:
    """Average precision of the detections of one class, matched as PASCAL VOC does (`match`).

    Detections of equal score share a threshold, so their order never matters; where scores are
    distinct the curve is the devkit's. Recalls of 11-point are compared exactly: where one falls on
    a tenth, released Python evaluators can lose that point to rounding (3 of 10 detected: 4 / 11
    here, 3 / 11 there).

    Args:
        boxes: (D, 4) detections: xmin, ymin, xmax, ymax in inclusive pixels, any origin.
        scores: (D,) finite, higher is more certain; of any type.
        images: (D,) integers, the image of each.
        true_boxes: (T, 4) objects, in the same convention.
        true_images: (T,) integers.
        difficult: (T,) bool, objects that count neither way; none if not given.
        kind: "11-point" is VOC 2007's, "area" that of 2010 and later.
        overlap: intersection over union above which a detection finds an object.

    Returns:
        A value in 0..1; nan without an object that counts.

    Raises:
        ValueError: shapes that do not fit, or a score that is not finite.
    """
    scores = np.asarray(scores, dtype=float)
    check_scores(scores)
    missing = np.zeros(len(np.atleast_1d(true_images)))
    ignored = np.asarray(missing if difficult is None else difficult, dtype=bool)
    outcomes = match(boxes, scores, images, true_boxes, true_images, ignored, overlap)
    evaluated = outcomes != IGNORED
    once = np.ones((1, int(evaluated.sum())), dtype=np.uint8)
    total = np.array([(~ignored).sum()])
    positive = outcomes[evaluated] == TRUE_POSITIVE
    return float(weighted_average_precision(scores[evaluated], positive, once, kind, total)[0])
