"""The metrics on many weightings of the images at once. Needs numpy and scipy only.

The sums over images are matrix products of images with weightings.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from bench.metrics.average_precision import Difficult, Floats, Kind, checked
from bench.metrics.detection import IGNORED, match

Predictions = Mapping[str, NDArray[Any]]
Weights = NDArray[np.float32]
OVERLAP = 0.5  # VOC devkit, VOCinit.m: minoverlap
NONE = np.zeros(0, dtype=np.int64)


def resampling_weights(counts: NDArray[np.integer]) -> Weights:
    """Counts (B, N) as the (N, B) that the others take, float32: sums are exact up to 2^24."""
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
        weights: (N, B), see `resampling_weights`.
        kind: see `metrics.weighted_average_precision`.
        difficult: see `metrics.labels`.

    Raises:
        ValueError: shapes that do not fit, a score that is not finite, a bad label.
    """
    scores, positive, counted = checked(scores, truth, difficult)
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
    """Average precision of one ranking on every resample of its images, (B,).

    The definitions are those of `metrics.weighted_average_precision`.

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
    falling, positive, images = -scores[order], positive[order], images[order]
    hit = np.flatnonzero(positive)
    # Thresholds that gain no positive lower precision and add no recall: no kind sees them.
    ends = np.unique(np.searchsorted(falling, falling[hit], side="right"))
    hits = _sums(images[hit], np.searchsorted(hit, ends), weights)
    seen, found = _sums(images[: ends[-1]], ends, weights), hits.copy()
    _accumulate(np.add, seen)
    _accumulate(np.add, found)
    every = found[-1] if total is None else total
    precision = np.divide(found, np.maximum(seen, 1, out=seen), dtype=np.float64)
    if kind != "step":
        _accumulate(np.maximum, precision[::-1])
    gained, of = (_recalls_reached(found, every), 11) if kind == "11-point" else (hits, every)
    value = np.einsum("tb,tb->b", precision, gained) / np.maximum(of, 1)
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


def _recalls_reached(found: Weights, total: Floats) -> NDArray[np.int8]:
    """How many of the recalls 0, .1, ... 1 each threshold is the first to reach, (T, B)."""
    tenths = np.multiply(found, 10, dtype=np.float64)
    tenths /= np.maximum(total, 1)
    reached: NDArray[np.int8] = tenths.astype(np.int8)
    reached[1:] -= reached[:-1].copy()
    reached[0] += 1  # the recall 0
    return reached


def detection_precisions(
    predictions: Predictions, weights: Weights, kind: Kind = "11-point"
) -> Floats:
    """Average precision of the boxes of every class that counts, on every resample, (C, B).

    See `metrics.detection_average_precision`.

    Args:
        predictions: `box`, `score`, `label`, `image`, the objects as `true_*`, and `counted`.
        weights: (N, B), see `resampling_weights`.
        kind: see `metrics.weighted_average_precision`.
    """
    values = []
    mine, true = (_by_label(predictions[name]) for name in ("label", "true_class"))
    for label in predictions["counted"]:
        found, objects = mine.get(label, NONE), true.get(label, NONE)
        scores, images = predictions["score"][found], predictions["image"][found]
        places = predictions["true_image"][objects]
        hard = predictions["true_difficult"][objects]
        boxes = predictions["box"][found], predictions["true_box"][objects]
        verdicts = match(boxes[0], scores, images, boxes[1], places, hard, OVERLAP)
        kept = verdicts != IGNORED
        counted = places[~hard]
        total = _sums(counted, np.array([len(counted)]), weights)[0]
        ranked = scores[kept], verdicts[kept] > 0, images[kept]
        values.append(ranked_precisions(*ranked, weights, kind, total))
    return np.array(values)


def _by_label(labels: NDArray[np.integer]) -> dict[int, NDArray[np.int64]]:
    """The indices of each label, in order."""
    order = np.argsort(labels, kind="stable")
    found, starts = np.unique(labels[order], return_index=True)
    return dict(zip(found.tolist(), np.split(order, starts)[1:], strict=True))


def intersections_over_union(confusion: NDArray[np.integer], weights: Weights) -> Floats:
    """Intersection over union of every class on every resample, (C, B); nan where it is absent.

    Args:
        confusion: (N, C, C) pixels of each image, rows true and columns predicted.
        weights: (N, B), see `resampling_weights`.
    """
    each = confusion.astype(np.float64)
    both = np.diagonal(each, axis1=1, axis2=2)
    sides = each.sum(1) + each.sum(2) - both
    shared, union = (part.T @ weights.astype(np.float64) for part in (both, sides))
    return np.where(union > 0, shared / np.maximum(union, 1), np.nan)
