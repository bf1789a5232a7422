"""The evaluators: average precision of pictures and of detections, mean intersection over union.

All functions are pure and need numpy only; anybody's scores, boxes and label maps will do. One
core, `weighted_average_precision`, serves the plain value (every picture once) and the bootstrap
(every picture as often as it was drawn).
"""

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.boxes import match

Kind = Literal["area", "11-point", "step"]
Difficult = Literal["ignore", "negative", "positive"]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
VOID = 255  # label of a pixel that does not count, VOC devkit


def weighted_average_precision(
    scores: ArrayLike,
    positive: ArrayLike,
    weights: NDArray[np.integer],
    kind: Kind = "area",
    total: ArrayLike | None = None,
) -> Floats:
    """Average precision of one ranking under many integer weightings of its pictures.

    Precision and recall are taken only at distinct scores, after all pictures of equal score, so
    the order of tied pictures never matters. A weight k equals k copies of the picture.

    Kinds: "area" is the area under the monotone envelope of precision (VOC2010 devkit, section
    3.4.1; Goyal et al. 2019); "11-point" the mean over recall 0, .1, ..., 1 of the best precision
    at that recall or more (VOC2007 devkit), with recalls compared exactly, as integers; "step" the
    area without an envelope (scikit-learn's `average_precision_score`).

    Args:
        scores: (N,) finite, higher is more positive; of a signed type.
        positive: (N,) true where the picture shows the class.
        weights: (B, N) integers >= 0. Fortran order is the fast one.
        kind: how the curve becomes a number.
        total: (B,) weight of all positives where some were not ranked at all, as objects that no
            detection found; by default what `positive` holds.

    Returns:
        (B,) values in 0..1; nan where the total is 0.

    Raises:
        ValueError: shapes that do not fit, a score that is not finite, an unknown kind.
    """
    scores, positive = np.asarray(scores), np.asarray(positive, dtype=bool)
    _check_choice("kind", kind, get_args(Kind))
    _check_scores(scores)
    if scores.ndim != 1 or positive.shape != scores.shape or weights.shape[1:] != scores.shape:
        shapes = f"scores {scores.shape}, positive {positive.shape}, weights {weights.shape}"
        raise ValueError(f"expected scores (N,), positive (N,), weights (B, N); got {shapes}")
    if not positive.any():
        nothing = np.zeros(len(weights)) if total is None else np.asarray(total)
        return np.where(nothing > 0, 0.0, np.nan)
    precision, hits = _curve(scores, positive, weights)
    found = hits.cumsum(axis=0)
    total = found[-1] if total is None else np.asarray(total)
    if kind != "step":
        precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    if kind == "11-point":
        # The first threshold of at least that recall; past the last one precision counts as 0.
        reached = [(10 * found < step * total).sum(axis=0) for step in range(11)]
        padded = np.vstack([precision, np.zeros_like(precision[:1])])
        value: Floats = np.take_along_axis(padded, np.array(reached), axis=0).mean(axis=0)
    else:
        value = (precision * hits).sum(axis=0) / np.maximum(total, 1)
    return np.where(total > 0, value, np.nan)


def average_precision(scores: ArrayLike, positive: ArrayLike, kind: Kind = "area") -> float:
    """Average precision of one ranking, in 0..1; nan without a positive picture.

    The value does not depend on the order of tied pictures; see `weighted_average_precision` for
    the kinds, the arguments and the errors.
    """
    once = np.ones((1, np.size(scores)), dtype=np.uint8)
    return float(weighted_average_precision(scores, positive, once, kind)[0])


def labels(truth: ArrayLike, difficult: Difficult = "ignore") -> tuple[Bools, Bools]:
    """Split VOC image labels into what is positive and what counts at all.

    Args:
        truth: (N, C) of 1 (shows the class), -1 (does not), 0 (only instances marked difficult), as
            in VOC's ImageSets/Main.
        difficult: what a 0 is. "ignore" leaves the picture out of that class (VOC; Goyal et al.
            2019 at test time), "negative" is Ericsson et al. 2021, "positive" is for completeness.

    Returns:
        positive (N, C) and counted (N, C), both bool.

    Raises:
        ValueError: a label other than 1, -1, 0, or an unknown choice for `difficult`.
    """
    truth = np.asarray(truth)
    _check_choice("difficult", difficult, get_args(Difficult))
    if not np.isin(truth, (1, -1, 0)).all():
        raise ValueError("truth must hold 1, -1 and 0 only")
    positive = truth >= 0 if difficult == "positive" else truth > 0
    counted = truth != 0 if difficult == "ignore" else np.ones(truth.shape, dtype=bool)
    return positive, counted


def class_average_precisions(
    scores: ArrayLike, truth: ArrayLike, kind: Kind = "area", difficult: Difficult = "ignore"
) -> Floats:
    """Average precision of every class, (C,), each in 0..1 or nan for a class with no positive.

    Args:
        scores: (N, C) finite, of a signed type.
        truth: (N, C) of 1, -1, 0; see `labels`.
        kind: see `weighted_average_precision`.
        difficult: see `labels`.

    Raises:
        ValueError: shapes that differ or are not (N, C), a score that is not finite, a bad label.
    """
    scores, positive, counted = checked(scores, truth, difficult)
    return np.array(
        [
            average_precision(scores[keep, c], positive[keep, c], kind)
            for c, keep in enumerate(counted.T)
        ]
    )


def mean_average_precision(
    scores: ArrayLike, truth: ArrayLike, kind: Kind = "area", difficult: Difficult = "ignore"
) -> float:
    """Mean of `class_average_precisions` over the classes that have a positive picture, in 0..1."""
    values = class_average_precisions(scores, truth, kind, difficult)
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def checked(
    scores: ArrayLike, truth: ArrayLike, difficult: Difficult
) -> tuple[NDArray[np.floating], Bools, Bools]:
    """Validate an (N, C) problem; return its scores, positive and counted (see `labels`).

    Raises:
        ValueError: shapes that differ or are not (N, C), a score that is not finite, a bad label.
    """
    scores = np.asarray(scores)
    if scores.ndim != 2 or scores.shape != np.shape(truth):
        raise ValueError(f"scores {scores.shape} and truth {np.shape(truth)} must be (N, C) alike")
    _check_scores(scores)
    return scores, *labels(truth, difficult)


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
    """Average precision of the detections of one class, matched as PASCAL VOC does (`boxes.match`).

    Detections of equal score share a threshold, so their order never matters; where scores are
    distinct the curve is the devkit's. Recalls of 11-point are compared exactly: where one falls on
    a tenth, released Python evaluators can lose that point to rounding (3 of 10 found: 4 / 11 here,
    3 / 11 there).

    Args:
        boxes: (D, 4) detections: xmin, ymin, xmax, ymax in inclusive pixels, any origin.
        scores: (D,) finite, higher is more certain; of any type.
        images: (D,) integers, the picture of each.
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
    scores, missing = np.asarray(scores, dtype=float), np.zeros(len(np.atleast_1d(true_images)))
    _check_scores(scores)
    hard = np.asarray(missing if difficult is None else difficult, dtype=bool)
    verdicts = match(boxes, scores, images, true_boxes, true_images, hard, overlap)
    counted = verdicts >= 0
    once = np.ones((1, int(counted.sum())), dtype=np.uint8)
    total = np.array([(~hard).sum()])
    found = verdicts[counted] > 0
    return float(weighted_average_precision(scores[counted], found, once, kind, total)[0])


def confusion_matrix(truth: ArrayLike, predicted: ArrayLike, classes: int) -> NDArray[np.int64]:
    """How many pixels of each true class were given each label, (classes, classes).

    Args:
        truth: integers of any shape, 0..classes-1, or 255 for a pixel that does not count.
        predicted: integers 0..classes-1, of the same shape.
        classes: background included.

    Raises:
        ValueError: shapes that differ, or a label out of range.
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    if truth.shape != predicted.shape:
        raise ValueError(f"truth {truth.shape} and prediction {predicted.shape} differ in shape")
    counted = truth != VOID
    rows, columns = truth[counted].astype(np.int64), predicted[counted].astype(np.int64)
    for name, labels in (("truth", rows), ("prediction", columns)):
        if labels.size and not 0 <= labels.min() <= labels.max() < classes:
            odd = next(int(v) for v in labels if not 0 <= v < classes)
            raise ValueError(f"the {name} holds label {odd}, there are {classes} classes")
    flat = np.bincount(rows * classes + columns, minlength=classes**2)
    return flat.reshape(classes, classes)


def class_ious(confusion: ArrayLike) -> Floats:
    """Intersection over union of every class, (..., C), each in 0..1.

    Args:
        confusion: (..., C, C) pixels, summed over the whole set: rows are true, columns predicted.

    Returns:
        nan for a class that is in neither.
    """
    confusion = np.asarray(confusion, dtype=float)
    both = np.diagonal(confusion, axis1=-2, axis2=-1)
    union = confusion.sum(-1) + confusion.sum(-2) - both
    return np.where(union > 0, both / np.maximum(union, 1), np.nan)


def mean_iou(confusion: ArrayLike) -> float:
    """Mean of `class_ious` over the classes present, in 0..1 (Long et al. 2015, section 5)."""
    values = class_ious(confusion)
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def _curve(
    scores: NDArray[np.floating], positive: Bools, weights: NDArray[np.integer]
) -> tuple[Floats, NDArray[np.int64]]:
    """Precision at, and positives gained since the last of, T thresholds: both (T, B).

    Thresholds that gain no positive are left out: they can only lower precision and add no recall,
    so no kind of average precision sees them. This is what makes the bootstrap fast.
    """
    order = np.argsort(-scores, kind="stable")
    scores, positive = scores[order], positive[order]
    drawn = weights.T[order]  # (N, B)
    hit = np.flatnonzero(positive)
    ends = np.unique(np.searchsorted(-scores, -scores[hit], side="right"))
    starts = np.concatenate([[0], ends[:-1]])
    seen = np.add.reduceat(drawn[: ends[-1]], starts, axis=0, dtype=np.int64).cumsum(axis=0)
    hits = np.add.reduceat(drawn[hit], np.searchsorted(hit, starts), axis=0, dtype=np.int64)
    return hits.cumsum(axis=0) / np.maximum(seen, 1), hits


def _check_scores(scores: NDArray[np.floating]) -> None:
    bad = np.argwhere(~np.isfinite(scores))
    if len(bad):
        raise ValueError(f"{len(bad)} scores are not finite, the first at {tuple(bad[0].tolist())}")


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"unknown {name} {value!r}; known: {', '.join(known)}")
