"""Intersection over union of label maps."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.metrics.average_precision import Floats

VOID = 255  # label of a pixel that does not count, VOC devkit


def confusion_matrix(truth: ArrayLike, predicted: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Confusion matrix: pixels of each true class that got each label, (classes, classes).

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
