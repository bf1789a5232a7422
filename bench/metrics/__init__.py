"""Evaluators in plain numpy, for anybody's scores, boxes and label maps.

Each takes what numpy reads as an array, or tensors of torch, and checks it. A value of another
type, shape, range or meaning is a ValueError of one line. No function returns nan or a sentinel.
"""

from bench.metrics.average_precision import (
    average_precision,
    class_average_precisions,
    mean_average_precision,
)
from bench.metrics.checks import NothingToScoreError
from bench.metrics.detection import detection_average_precision
from bench.metrics.segmentation import class_ious, confusion_matrix, mean_iou

__all__ = [
    "NothingToScoreError",
    "average_precision",
    "class_average_precisions",
    "class_ious",
    "confusion_matrix",
    "detection_average_precision",
    "mean_average_precision",
    "mean_iou",
]
