"""Evaluators in plain numpy, for anybody's scores, boxes and label maps."""

from bench.metrics.average_precision import (
    average_precision,
    class_average_precisions,
    mean_average_precision,
)
from bench.metrics.detection import detection_average_precision
from bench.metrics.segmentation import class_ious, confusion_matrix, mean_iou

__all__ = [
    "average_precision",
    "class_average_precisions",
    "class_ious",
    "confusion_matrix",
    "detection_average_precision",
    "mean_average_precision",
    "mean_iou",
]
