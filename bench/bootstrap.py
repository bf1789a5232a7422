"""The headline of a record's predictions, whole and on every bootstrap resample, many at once.

`rescore` computes the same values one metric call after another; this does it as matrix products of
pictures with resamples, which a board of hundreds of records needs. Needs numpy and scipy only.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from bench.boxes import IGNORED, match
from bench.metrics import Difficult, Floats, Kind, checked

Predictions = Mapping[str, NDArray[Any]]
Weights = NDArray[np.float32]
OVERLAP = 0.5  # VOC devkit, VOCinit.m: minoverlap
READS = (
    *("ids", "kind", "counted", "scores", "truth", "confusion"),
    *("box", "label", "score", "image"),
    *("true_box", "true_class", "true_image", "true_difficult"),
)  # what is needed of a record's predictions


def drawn_values(predictions: Predictions, weights: Weights) -> Floats:
    """The headline in points of every resample, (B,); which metric shows in what they hold.

    Args:
        predictions: boxes, confusion matrices or scores of N pictures, as a record keeps them.
        weights: (N, B), how often each picture counts, see `weights_of`; a column of ones gives
            the value itself.

    Returns:
        (B,) in 0..100; nan where a resample holds no positive of any class.

    Raises:
        ValueError: shapes that do not fit, a score that is not finite, a bad label.
    """
    if "confusion" in predictions:
        values = _ious(predictions, weights)
    elif "box" in predictions:
        values = _detection_precisions(predictions, weights)
    else:
        scores, truth = predictions["scores"], predictions["truth"]
        kind = _kind(predictions, "area")
        values = class_precisions(scores, truth, weights, kind)
    return 100 * mean_of_present(values)


def weights_of(counts: NDArray[np.integer]) -> Weights:
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
        weights: (N, B), see `weights_of`.
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
    pictures: NDArray[np.integer],
    weights: Weights,
    kind: Kind,
    total: Floats | None = None,
) -> Floats:
    """Average precision of one ranking on every resample of its pictures, (B,).

    The definitions are those of `metrics.weighted_average_precision`.

    Args:
        scores: (D,) finite, of pictures or of detections in them.
        positive: (D,).
        pictures: (D,) 0..N-1, the picture that each belongs to.
        weights: (N, B), how often each picture was drawn, see `weights_of`.
        kind: how the curve becomes a number.
        total: (B,) how many positives there are to find; what was ranked if not given.
    """
    if not positive.any():
        nothing = np.zeros(weights.shape[1]) if total is None else total
        return np.where(nothing > 0, 0.0, np.nan)
    order = np.argsort(-scores, kind="stable")
    falling, positive, pictures = -scores[order], positive[order], pictures[order]
    hit = np.flatnonzero(positive)
    # Thresholds that gain no positive lower precision and add no recall: no kind sees them.
    ends = np.unique(np.searchsorted(falling, falling[hit], side="right"))
    hits = _sums(pictures[hit], np.searchsorted(hit, ends), weights)
    precision, found = _sums(pictures[: ends[-1]], ends, weights), hits.copy()
    _accumulate(np.add, precision)
    _accumulate(np.add, found)
    every = found[-1] if total is None else total
    np.maximum(precision, 1, out=precision)
    np.divide(found, precision, out=precision)
    if kind != "step":
        _accumulate(np.maximum, precision[::-1])
    if kind == "11-point":
        value = _at_eleven_recalls(precision, found, every)
    else:
        value = np.einsum("tb,tb->b", precision, hits) / np.maximum(every, 1)
    return np.where(every > 0, value, np.nan)


def _sums(pictures: NDArray[np.integer], ends: NDArray[np.integer], weights: Weights) -> Floats:
    """Weights summed over pictures[0:ends[0]], pictures[ends[0]:ends[1]] ...: (T, B)."""
    where = (np.ones(ends[-1], np.float32), pictures, np.concatenate([[0], ends]))
    sums: Weights = csr_array(where, shape=(len(ends), len(weights))) @ weights
    return sums.astype(np.float64)


def _accumulate(operation: np.ufunc, rows: Floats) -> None:
    """`operation.accumulate` down the rows in place, three times as fast: whole rows at a time."""
    for above, row in pairwise(rows):
        operation(above, row, out=row)


def _at_eleven_recalls(envelope: Floats, found: Floats, total: Floats) -> Floats:
    """Mean precision at recall 0, .1, ... 1, (B,); past the last threshold it counts as 0."""
    thresholds, drawn = found.shape
    wanted = np.ceil(np.arange(11)[:, None] * total / 10)
    place, columns = np.zeros(wanted.shape, dtype=np.int64), np.arange(drawn)
    # How many thresholds found fewer than wanted: a binary search in every column at once.
    for step in 2 ** np.arange(thresholds.bit_length())[::-1]:
        probe = place + step
        fewer = found[np.minimum(probe, thresholds) - 1, columns] < wanted
        place = np.where((probe <= thresholds) & fewer, probe, place)
    best = np.take_along_axis(envelope, np.minimum(place, thresholds - 1), axis=0)
    value: Floats = np.where(place < thresholds, best, 0).mean(axis=0)
    return value


def _detection_precisions(predictions: Predictions, weights: Weights) -> Floats:
    """Of every class that counts, (C, B); see `metrics.detection_average_precision`."""
    values = []
    for label in predictions["counted"]:
        mine, true = predictions["label"] == label, predictions["true_class"] == label
        scores, pictures = predictions["score"][mine], predictions["image"][mine]
        places, hard = predictions["true_image"][true], predictions["true_difficult"][true]
        boxes = predictions["box"][mine], predictions["true_box"][true]
        verdicts = match(boxes[0], scores, pictures, boxes[1], places, hard, OVERLAP)
        kept = verdicts != IGNORED
        counted = places[~hard]
        objects = _sums(counted, np.array([len(counted)]), weights)[0]
        ranked = scores[kept], verdicts[kept] > 0, pictures[kept]
        values.append(ranked_precisions(*ranked, weights, _kind(predictions, "11-point"), objects))
    return np.array(values)


def _ious(predictions: Predictions, weights: Weights) -> Floats:
    """Intersection over union of every class on every resample, (C, B); nan where it is absent."""
    each = predictions["confusion"].astype(np.float64)
    both = np.diagonal(each, axis1=1, axis2=2)
    sides = each.sum(1) + each.sum(2) - both
    shared, union = (part.T @ weights.astype(np.float64) for part in (both, sides))
    return np.where(union > 0, shared / np.maximum(union, 1), np.nan)


def _kind(predictions: Predictions, default: Kind) -> Kind:
    return cast(Kind, str(predictions["kind"][0])) if "kind" in predictions else default
