"""Boxes: overlap, and which detection matches which object by the rules of PASCAL VOC.

Boxes are (xmin, ymin, xmax, ymax) in inclusive pixels, so that one of equal corners has one pixel
(VOC devkit, VOCevaldet.m: widths are xmax - xmin + 1). Needs numpy only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.metrics import checks
from bench.metrics.average_precision import Kind, weighted_average_precision
from bench.metrics.checks import NothingToScoreError

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


def shares_inside(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.floating]:
    """Share of boxes (..., 4) that is in boxes (..., 4), each in each, in 0..1."""
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    share: NDArray[np.floating] = np.maximum(high - low + 1, 0).prod(-1) / areas(a)
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
        boxes: (D, 4), finite, in pixels, corners in order.
        scores: (D,) finite, higher is more certain; floats, or integers of at most 2^53. Among
            equal ones the earlier goes first, which changes no count.
        images: (D,) integers.
        true_boxes: (T, 4), in the same convention.
        true_images: (T,) integers.
        difficult: (T,) true and false, or 1 and 0.
        overlap: intersection over union, in 0..1, below 1.

    Returns:
        (D,) int8, in the order of the detections.

    Raises:
        ValueError: shapes that do not fit, a box with corners out of order or as shares of the
            image, an image that is no integer, or any other value that is not as stated.
    """
    overlap = checks.share("overlap", overlap)
    boxes = checks.boxes("boxes", boxes)
    scores = checks.scores("scores", scores, "(D,)")
    images = checks.integers("images", images, "(D,)")
    checks.alike(boxes=boxes, scores=scores, images=images)
    true_boxes = checks.boxes("true_boxes", true_boxes)
    true_images = checks.integers("true_images", true_images, "(T,)")
    difficult = checks.flags("difficult", difficult, "(T,)")
    checks.alike(true_boxes=true_boxes, true_images=true_images, difficult=difficult)
    return match_checked(boxes, scores, images, true_boxes, true_images, difficult, overlap)


def match_checked(
    boxes: NDArray[np.floating],
    scores: NDArray[np.floating],
    images: NDArray[np.integer],
    true_boxes: NDArray[np.floating],
    true_images: NDArray[np.integer],
    difficult: NDArray[np.bool_],
    overlap: float,
    crowd: NDArray[np.bool_] | None = None,
) -> NDArray[np.int8]:
    """`match` of arguments that were checked.

    Objects of `crowd` (T,) are regions of many: no detection of another object is false that has
    more than `overlap` of its area in one, as in COCO (pycocotools, COCOeval.evaluateImg).
    """
    if crowd is not None and crowd.any():
        alone = ~crowd
        true = (true_boxes[alone], true_images[alone], difficult[alone])
        outcomes = match_checked(boxes, scores, images, *true, overlap)
        groups = (true_boxes[crowd], true_images[crowd])
        _, inside = _best(boxes, images, *groups, shares_inside)
        outcomes[(outcomes == FALSE_POSITIVE) & (inside > overlap)] = IGNORED
        return outcomes
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
    measure: Callable[..., NDArray[np.floating]] = overlaps,
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
    overlap = measure(boxes[some][pair], true_boxes[thing])
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
    distinct the curve is the devkit's. Recalls of 11-point are compared as floats, as released
    Python evaluators do it: 3 of 10 detected are 3 / 11, and 4 / 11 by "11-point-exact".

    Args:
        boxes: (D, 4) detections: xmin, ymin, xmax, ymax in inclusive pixels, any origin. They are
            finite, with corners in order; shares of the image, 0..1, are refused.
        scores: (D,) finite, higher is more certain; floats, or integers of at most 2^53.
        images: (D,) integers, the image of each.
        true_boxes: (T, 4) objects, in the same convention.
        true_images: (T,) integers.
        difficult: (T,) true and false, or 1 and 0, objects that count neither way; none if not
            given.
        kind: "11-point" is VOC 2007's, "area" that of 2010 and later; see
            `metrics.weighted_average_precision`.
        overlap: intersection over union above which a detection finds an object, in 0..1, below 1.

    Returns:
        A value in 0..1; 0 without a detection.

    Raises:
        NothingToScoreError: no object counts; a ValueError too.
        ValueError: shapes that do not fit, or a value that is not as stated.
    """
    if difficult is None:
        difficult = np.zeros(np.shape(true_images), dtype=bool)
    outcomes = match(boxes, scores, images, true_boxes, true_images, difficult, overlap)
    ignored = checks.flags("difficult", difficult, "(T,)")
    if ignored.all():
        raise NothingToScoreError(f"no object counts among {len(ignored)}: nothing to score")
    evaluated = outcomes != IGNORED
    once = np.ones((1, int(evaluated.sum())), dtype=np.uint8)
    total = np.array([(~ignored).sum()])
    positive = outcomes[evaluated] == TRUE_POSITIVE
    ranked = checks.scores("scores", scores, "(D,)")[evaluated].astype(float)
    return float(weighted_average_precision(ranked, positive, once, kind, total)[0])


@dataclass(frozen=True)
class Boxes:
    """Detections and objects of all classes, checked (D detections, T objects).

    Attributes:
        box: (D, 4) float64.
        score: (D,) finite.
        label: (D,) 0..C-1.
        image: (D,) 0..N-1.
        true_box: (T, 4) float64.
        true_class: (T,) 0..C-1.
        true_image: (T,) 0..N-1.
        true_difficult: (T,) bool.
        true_crowd: (T,) bool, regions of many objects, which are difficult too.
        counted: the classes of the mean, each once, at least one.
    """

    box: NDArray[np.float64]
    score: NDArray[np.floating]
    label: NDArray[np.int64]
    image: NDArray[np.int64]
    true_box: NDArray[np.float64]
    true_class: NDArray[np.int64]
    true_image: NDArray[np.int64]
    true_difficult: NDArray[np.bool_]
    true_crowd: NDArray[np.bool_]
    counted: NDArray[np.int64]


def boxes_of(predictions: Mapping[str, Any], num_images: int) -> Boxes:
    """The detections and objects in predictions, checked.

    Args:
        predictions: `box`, `score`, `label`, `image`, the same of objects as `true_*`, `counted`,
            and `classes`, of which labels are indices. `true_crowd` may be absent: none.
        num_images: how many there are.

    Raises:
        ValueError: an array is missing, does not fit the others or holds a wrong value; names it.
    """
    given = {name: checks.entry(predictions, name) for name in ("classes", *_ARRAYS)}
    names = np.asarray(given["classes"])
    checks.axes("classes", names, "(C,)")
    num_classes = len(names)
    difficult = checks.flags("true_difficult", given["true_difficult"], "(T,)")
    crowd = np.zeros_like(difficult)
    if "true_crowd" in predictions:
        crowd = checks.flags("true_crowd", predictions["true_crowd"], "(T,)")
        checks.alike(true_difficult=difficult, true_crowd=crowd)
    boxes = Boxes(
        box=checks.boxes("box", given["box"]),
        score=checks.scores("score", given["score"], "(D,)"),
        label=checks.integers("label", given["label"], "(D,)", num_classes),
        image=checks.integers("image", given["image"], "(D,)", num_images),
        true_box=checks.boxes("true_box", given["true_box"]),
        true_class=checks.integers("true_class", given["true_class"], "(T,)", num_classes),
        true_image=checks.integers("true_image", given["true_image"], "(T,)", num_images),
        true_difficult=difficult | crowd,
        true_crowd=crowd,
        counted=checks.integers("counted", given["counted"], "(C,)", num_classes),
    )
    checks.alike(box=boxes.box, score=boxes.score, label=boxes.label, image=boxes.image)
    checks.alike(
        true_box=boxes.true_box,
        true_class=boxes.true_class,
        true_image=boxes.true_image,
        true_difficult=boxes.true_difficult,
    )
    if not len(boxes.counted) or len(np.unique(boxes.counted)) < len(boxes.counted):
        indices = boxes.counted.tolist()
        raise ValueError(f"counted is {indices}; expected at least one class, and each once")
    return boxes


_ARRAYS = tuple(name for name in Boxes.__dataclass_fields__ if name != "true_crowd")
