"""Intersection over union of label maps."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.metrics import checks
from bench.metrics.average_precision import Floats
from bench.metrics.checks import NothingToScoreError

VOID = 255  # label of a pixel that does not count, VOC devkit


def confusion_matrix(truth: ArrayLike, predicted: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Confusion matrix: pixels of each true class that got each label, (classes, classes).

    Args:
        truth: integers of any shape, 0..classes-1, or 255 for a pixel that does not count. Floats
            and booleans of the same values will do.
        predicted: integers 0..classes-1, of the same shape; whatever where `truth` is 255.
        classes: background included; 1 to 255, as 255 is the label of what does not count.

    Raises:
        ValueError: shapes that differ, a label that is no integer or out of range, or a number of
            classes out of range.
    """
    classes = checks.number("classes", classes, 1)
    if classes > VOID:
        raise ValueError(f"classes is {classes}; expected at most {VOID}, the label of no class")
    truth = checks.integers("truth", truth)
    predicted = checks.integers("predicted", predicted)
    if truth.shape != predicted.shape:
        raise ValueError(f"truth {truth.shape} and prediction {predicted.shape} differ in shape")
    counted = truth != VOID
    rows = truth[counted]
    columns = predicted[counted]
    for name, labels in (("truth", rows), ("prediction", columns)):
        if labels.size and not 0 <= labels.min() <= labels.max() < classes:
            odd = next(int(v) for v in labels if not 0 <= v < classes)
            raise ValueError(f"the {name} holds label {odd}, there are {classes} classes")
    flat = np.bincount(rows * classes + columns, minlength=classes**2)
    return flat.reshape(classes, classes)


def class_ious(confusion: ArrayLike) -> Floats:
    """Intersection over union of every class, (C,), each in 0..1.

    Args:
        confusion: (C, C) numbers of pixels, summed over the whole set: rows are true, columns
            predicted. Integers >= 0, of any numeric type; a normalized matrix is refused.

    Returns:
        A masked array where some classes are in neither, which are masked.

    Raises:
        ValueError: another shape, as of a matrix for each image, or a value that is no count.
    """
    return checks.masked(_ious(confusion))


def _ious(confusion: ArrayLike) -> Floats:
    """`class_ious`, with nan for a class that is in neither."""
    pixels = checks.confusion("confusion", confusion, "(C, C)")
    both = np.diagonal(pixels)
    union = pixels.sum(-1) + pixels.sum(-2) - both
    return np.where(union > 0, both / np.maximum(union, 1), np.nan)


def mean_iou(confusion: ArrayLike) -> float:
    """Mean of `class_ious` over the classes present, in 0..1 (Long et al. 2015, section 5).

    Args:
        confusion: (C, C) numbers of pixels, summed over the whole set; see `class_ious`.

    Raises:
        NothingToScoreError: there is no pixel; a ValueError too.
        ValueError: another shape, as of a matrix for each image, or a value that is no count.
    """
    values = _ious(confusion)
    if not np.isfinite(values).any():
        raise NothingToScoreError("confusion has no pixel: nothing to score")
    return float(np.nanmean(values))
