"""The metrics on many weightings of the images at once. Needs numpy and scipy only.

The sums over images are matrix products of images with weightings.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from bench.metrics import checks
from bench.metrics.average_precision import LATE, Difficult, Floats, Kind, checked
from bench.metrics.detection import IGNORED, TRUE_POSITIVE, boxes_of, match_checked

Predictions = Mapping[str, NDArray[Any]]
Weights = NDArray[np.float32]
OVERLAP = 0.5  # VOC devkit, VOCinit.m: minoverlap
NONE = np.zeros(0, dtype=np.int64)
EXACT = 2**24  # integers up to this are exact as float32


def resampling_weights(counts: NDArray[np.integer]) -> Weights:
    """How often each image counts in each resample, as the others take it.

    Args:
        counts: (B, N) integers >= 0, of at most 2^24 in a resample.

    Returns:
        (N, B) float32, whose sums are exact.

    Raises:
        ValueError: another shape or type, a negative count, or more in a resample.
    """
    if counts.ndim != 2 or counts.dtype.kind not in "iu":
        raise ValueError(f"counts {counts.shape} of {counts.dtype} must be (B, N) integers")
    if counts.size and (counts.min() < 0 or counts.sum(axis=1, dtype=np.int64).max() > EXACT):
        raise ValueError(f"counts must be at least 0, and at most {EXACT} in a resample")
    return np.ascontiguousarray(counts.T, dtype=np.float32)


def mean_of_present(values: Floats) -> Floats:
    """Mean of (C, B) over the classes that are not nan, (B,); nan where none is."""
    present = np.isfinite(values)
    total = np.where(present, values, 0).sum(axis=0)
    mean: Floats = np.where(present.any(0), total / np.maximum(present.sum(0), 1), np.nan)
    return mean


def class_precisions(
    scores: ArrayLike,
    truth: ArrayLike,
    weights: Weights,
    kind: Kind = "area",
    difficult: Difficult = "ignore",
) -> Floats:
    """Average precision of every class on every resample, (C, B), in 0..1 or nan.

    Args:
        scores: (N, C) finite.
        truth: (N, C) of 1, -1, 0; see `metrics.labels`.
        weights: (N, B) finite, >= 0, see `resampling_weights`.
        kind: see `metrics.weighted_average_precision`.
        difficult: see `metrics.labels`.

    Raises:
        ValueError: shapes that do not fit, a score that is not finite, a bad label or weight.
    """
    checks.choice("kind", kind, get_args(Kind))
    scores, positive, counted = checked(scores, truth, difficult)
    _check_weights(weights, "scores", len(scores))
    return np.array(
        [
            ranked_precisions(scores[kept, c], positive[kept, c], kept, weights, kind)
            for c, kept in enumerate(map(np.flatnonzero, counted.T))
        ]
    )


def ranked_precisions(
    scores: NDArray[np.floating],
    positive: NDArray[np.bool_],
    images: NDArray[np.integer],
    weights: Weights,
    kind: Kind,
    total: Floats | None = None,
) -> Floats:
    """Average precision of one ranking on every resample of its images, (B,), in 0..1 or nan.

    The definitions are those of `metrics.weighted_average_precision`. The arguments are not
    checked here, but once for all classes by those who call this.

    Args:
        scores: (D,) finite, of images or of detections in them.
        positive: (D,).
        images: (D,) 0..N-1, the image that each belongs to.
        weights: (N, B), how often each image was drawn, see `resampling_weights`.
        kind: how the curve becomes a number.
        total: (B,) how many positives there are to find; what was ranked if not given.
    """
    if not positive.any():
        nothing = np.zeros(weights.shape[1]) if total is None else total
        return np.where(nothing > 0, 0.0, np.nan)
    order = np.argsort(-scores, kind="stable")
    falling = -scores[order]
    positive = positive[order]
    images = images[order]
    hit = np.flatnonzero(positive)
    # Thresholds that gain no positive lower precision and add no recall: no kind sees them.
    ends = np.unique(np.searchsorted(falling, falling[hit], side="right"))
    hits = _sums(images[hit], np.searchsorted(hit, ends), weights)
    seen = _sums(images[: ends[-1]], ends, weights)
    recalled = hits.copy()
    _accumulate(np.add, seen)
    _accumulate(np.add, recalled)
    every = recalled[-1] if total is None else total
    precision = np.divide(recalled, np.maximum(seen, 1, out=seen), dtype=np.float64)
    if kind != "step":
        _accumulate(np.maximum, precision[::-1])
    if kind in ("11-point", "11-point-exact"):
        late = LATE if kind == "11-point" else []
        value = np.einsum("tb,tb->b", precision, _recalls_reached(recalled, every, late)) / 11
    else:
        value = np.einsum("tb,tb->b", precision, hits) / np.maximum(every, 1)
    return np.where(every > 0, value, np.nan)


def _sums(images: NDArray[np.integer], ends: NDArray[np.integer], weights: Weights) -> Weights:
    """Weights summed over images[0:ends[0]], images[ends[0]:ends[1]] ...: (T, B)."""
    if images.size and not 0 <= images.min() <= images.max() < len(weights):
        raise ValueError(f"an image's number is not in 0..{len(weights) - 1}")
    where = (np.ones(ends[-1], np.float32), images, np.concatenate([[0], ends]))
    sums: Weights = csr_array(where, shape=(len(ends), len(weights))) @ weights
    return sums


def _accumulate(operation: np.ufunc, rows: NDArray[np.floating]) -> None:
    """`operation.accumulate` down the rows in place, three times as fast: whole rows at a time."""
    for above, row in pairwise(rows):
        operation(above, row, out=row)


def _recalls_reached(recalled: Weights, total: Floats, late: list[int]) -> NDArray[np.int8]:
    """Number of the recalls 0, .1, ... 1 that each threshold is the first to reach, (T, B).

    A quotient of integers up to 2^24 is a tenth as a float only where it is one exactly.

    Args:
        recalled: weight of the positives at each threshold, (T, B).
        total: of all of them, (B,).
        late: the tenths that a recall must exceed, as a float of them does, see `LATE`.
    """
    tenths = np.multiply(recalled, 10, dtype=np.float64)
    tenths /= np.maximum(total, 1)
    reached: NDArray[np.int8] = tenths.astype(np.int8)
    for tenth in late:
        reached -= tenths == tenth
    reached[1:] -= reached[:-1].copy()
    reached[0] += 1  # the recall 0
    return reached


def detection_precisions(
    predictions: Predictions, weights: Weights, kind: Kind = "11-point"
) -> Floats:
    """Average precision of the boxes of every class that counts, on every resample, (C, B).

    See `metrics.detection_average_precision`.

    Args:
        predictions: see `metrics.detection.boxes_of`.
        weights: (N, B) finite, >= 0, see `resampling_weights`.
        kind: see `metrics.weighted_average_precision`.

    Returns:
        In 0..1; nan on a resample without an object of the class that counts.

    Raises:
        ValueError: an array is missing, does not fit the others or holds a wrong value; names it.
    """
    checks.choice("kind", kind, get_args(Kind))
    boxes = boxes_of(predictions, len(weights))
    _check_weights(weights)
    values = []
    detections_of = _by_label(boxes.label)
    objects_of = _by_label(boxes.true_class)
    for label in boxes.counted.tolist():
        detections = detections_of.get(label, NONE)
        objects = objects_of.get(label, NONE)
        scores = boxes.score[detections]
        images = boxes.image[detections]
        true_images = boxes.true_image[objects]
        difficult = boxes.true_difficult[objects]
        outcomes = match_checked(
            boxes.box[detections],
            scores,
            images,
            boxes.true_box[objects],
            true_images,
            difficult,
            OVERLAP,
            boxes.true_crowd[objects],
        )
        kept = outcomes != IGNORED
        evaluated = true_images[~difficult]
        total = _sums(evaluated, np.array([len(evaluated)]), weights)[0]
        positive = outcomes[kept] == TRUE_POSITIVE
        precisions = ranked_precisions(scores[kept], positive, images[kept], weights, kind, total)
        values.append(precisions)
    return np.array(values)


def _by_label(labels: NDArray[np.integer]) -> dict[int, NDArray[np.int64]]:
    """The indices of each label, in order."""
    order = np.argsort(labels, kind="stable")
    present, starts = np.unique(labels[order], return_index=True)
    return dict(zip(present.tolist(), np.split(order, starts)[1:], strict=True))


def intersections_over_union(confusion: ArrayLike, weights: Weights) -> Floats:
    """Intersection over union of every class on every resample, (C, B); nan where it is absent.

    Args:
        confusion: (N, C, C) pixels of each image, rows true and columns predicted; integers >= 0,
            of any numeric type.
        weights: (N, B) finite, >= 0, see `resampling_weights`.

    Raises:
        ValueError: shapes that do not fit, or a value that is no count.
    """
    each = checks.confusion("confusion", confusion, "(N, C, C)")
    _check_weights(weights, "confusion", len(each))
    both = np.diagonal(each, axis1=1, axis2=2)
    sides = each.sum(1) + each.sum(2) - both
    shared, union = (part.T @ weights.astype(np.float64) for part in (both, sides))
    return np.where(union > 0, shared / np.maximum(union, 1), np.nan)


def accuracies(predicted: ArrayLike, label: ArrayLike, weights: Weights) -> Floats:
    """Share of the images whose predicted class is theirs, on every resample, (B,).

    Args:
        predicted: (N,) class numbers, integers >= 0, of any numeric type.
        label: (N,) likewise, the true ones.
        weights: (N, B) finite, >= 0, see `resampling_weights`.

    Returns:
        In 0..1; nan on a resample without an image.

    Raises:
        ValueError: shapes that do not fit, or a value that is no class number.
    """
    classes, truth = (
        checks.integers(name, value, "(N,)", checks.EXACT)
        for name, value in (("predicted", predicted), ("label", label))
    )
    checks.alike(predicted=classes, label=truth)
    _check_weights(weights, "label", len(truth))
    images = weights.sum(axis=0, dtype=np.float64)
    right = (classes == truth) @ weights.astype(np.float64)
    return np.where(images > 0, right / np.maximum(images, 1), np.nan)


def _check_weights(weights: Weights, name: str = "", images: int | None = None) -> None:
    """Refuse weights that are no counts, or of another number of images than an argument is."""
    if images is not None and weights.ndim == 2 and len(weights) != images:
        raise ValueError(
            f"{name} is of {images} images, and weights {weights.shape} of {len(weights)}: "
            f"an image's number is not in 0..{len(weights) - 1}"
        )
    # The least is nan where one is.
    if weights.ndim != 2 or (weights.size and not 0 <= weights.min() <= weights.max() < np.inf):
        raise ValueError(f"weights {weights.shape} must be (N, B), finite and at least 0")
