"""Metrics by name: what a task predicts, as a number of every class on any weighting of images.

A metric is a torch-free object. It comes from this package, from the entry-point group
`ssl_gap.metrics` of an installed package, or from a file beside a task that is given by path.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.errors import UserError, unknown
from bench.metrics import checks
from bench.metrics.average_precision import Floats, Kind
from bench.metrics.checks import NothingToScoreError
from bench.metrics.resampled import (
    Weights,
    accuracies,
    class_precisions,
    detection_precisions,
    intersections_over_union,
    mean_of_present,
)

Predictions = Mapping[str, NDArray[Any]]
GROUP = "ssl_gap.metrics"
ROUNDING = 1e-6  # by which a metric may leave 0..1


class Metric(Protocol):
    """One metric.

    Attributes:
        name: as tasks and records name it.
        label: as tables print it.
        arrays: what the predictions must contain, beside `ids`, the N names of the test images.
    """

    name: str
    label: str
    arrays: tuple[str, ...]

    def per_class(self, predictions: Predictions, weights: Weights) -> Floats:
        """The metric of every class on every weighting of the images.

        Args:
            predictions: the arrays of a record.
            weights: (N, B) how often each image counts; a column of ones gives the plain value.

        Returns:
            (C, B) in 0..1, higher is better; nan where a class has nothing to score.
        """
        ...

    def classes(self, predictions: Predictions) -> list[str]:
        """The names of the C classes."""
        ...

    def ground_truth(self, predictions: Predictions) -> list[NDArray[Any]]:
        """Ground truth in the predictions: equal for equal test splits."""
        ...


class MeanAveragePrecision:
    """Mean over classes of the average precision of image scores.

    Predictions: `scores` (N, C), finite; `truth` (N, C) of 1, -1 and 0, difficult and ignored (1
    and 0 without any -1 are refused, see `metrics.average_precision.labels`); `classes`, C names.
    """

    label = "mAP"
    arrays: tuple[str, ...] = ("scores", "truth", "classes")

    def __init__(self, name: str, kind: Kind) -> None:
        self.name = name
        self.kind: Kind = kind

    def per_class(self, predictions: Predictions, weights: Weights) -> Floats:
        """Average precision of every class, (C, B)."""
        scores = checks.entry(predictions, "scores")
        truth = checks.entry(predictions, "truth")
        return class_precisions(scores, truth, weights, self.kind)

    def classes(self, predictions: Predictions) -> list[str]:
        """The names of the C classes."""
        return _names(predictions)

    def ground_truth(self, predictions: Predictions) -> list[NDArray[Any]]:
        """The labels."""
        return [predictions["truth"]]


class SampledAveragePrecision(MeanAveragePrecision):
    """Mean over classes of the average precision, of the mean over several training samples.

    Predictions: as `MeanAveragePrecision`, but `scores` (S, N, C), of classifiers that were trained
    on S samples.
    """

    def per_class(self, predictions: Predictions, weights: Weights) -> Floats:
        """Mean over the samples of the average precision of every class, (C, B)."""
        scores = checks.array("scores", checks.entry(predictions, "scores"))
        checks.axes("scores", scores, "(S, N, C)")
        if not len(scores):
            raise ValueError("scores has no sample; expected (S, N, C) of at least one")
        truth = checks.entry(predictions, "truth")
        each = [class_precisions(own, truth, weights, self.kind) for own in scores]
        mean: Floats = np.mean(each, axis=0)
        return mean


class DetectionAveragePrecision:
    """Mean over classes of the average precision of boxes at an overlap of one half (PASCAL VOC).

    Predictions: `box` (D, 4), `score` (D,), `label` (D,), `image` (D,); `true_box` (T, 4),
    `true_class` (T,), `true_image` (T,), `true_difficult` (T,); `classes`, all names; `counted`,
    the indices of the classes of the mean. Their types and ranges: `metrics.detection.Boxes`.
    """

    label = "AP50"
    arrays: tuple[str, ...] = (
        *("box", "score", "label", "image", "classes", "counted"),
        *("true_box", "true_class", "true_image", "true_difficult"),
    )

    def __init__(self, name: str, kind: Kind) -> None:
        self.name = name
        self.kind: Kind = kind

    def per_class(self, predictions: Predictions, weights: Weights) -> Floats:
        """Average precision of every class that counts, (C, B)."""
        return detection_precisions(predictions, weights, self.kind)

    def classes(self, predictions: Predictions) -> list[str]:
        """The names of the classes that count."""
        names = _names(predictions)
        value = checks.entry(predictions, "counted")
        return [names[index] for index in checks.integers("counted", value, "(K,)", len(names))]

    def ground_truth(self, predictions: Predictions) -> list[NDArray[Any]]:
        """The objects."""
        return [predictions[name] for name in self.arrays if name.startswith("true_")]


class MeanIntersectionOverUnion:
    """Mean over classes of intersection over union, of pixels summed over the test split.

    Predictions: `confusion` (N, C, C) pixels, integers >= 0, rows true and columns predicted;
    `classes`, C names.
    """

    name = "mIoU"
    label = "mIoU"
    arrays: tuple[str, ...] = ("confusion", "classes")

    def per_class(self, predictions: Predictions, weights: Weights) -> Floats:
        """Intersection over union of every class, (C, B)."""
        return intersections_over_union(checks.entry(predictions, "confusion"), weights)

    def classes(self, predictions: Predictions) -> list[str]:
        """The names of the C classes, background included."""
        return _names(predictions)

    def ground_truth(self, predictions: Predictions) -> list[NDArray[Any]]:
        """Number of pixels of each class in every image."""
        return [predictions["confusion"].sum(-1)]


class Top1:
    """Share of the images whose predicted class is theirs, over all classes at once.

    Predictions: `predicted` (N,) and `label` (N,), integers >= 0.
    """

    name = "top1"
    label = "top-1"
    arrays: tuple[str, ...] = ("predicted", "label")

    def per_class(self, predictions: Predictions, weights: Weights) -> Floats:
        """The share of right images, (1, B)."""
        predicted = checks.entry(predictions, "predicted")
        return accuracies(predicted, checks.entry(predictions, "label"), weights)[None]

    def classes(self, predictions: Predictions) -> list[str]:
        """All classes together."""
        return ["all"]

    def ground_truth(self, predictions: Predictions) -> list[NDArray[Any]]:
        """The labels."""
        return [predictions["label"]]


SHIPPED: tuple[Metric, ...] = (
    MeanAveragePrecision("mAP", "area"),
    MeanAveragePrecision("mAP_step", "step"),
    SampledAveragePrecision("mAP_samples", "area"),
    DetectionAveragePrecision("AP50", "11-point"),
    DetectionAveragePrecision("AP50_exact", "11-point-exact"),
    DetectionAveragePrecision("AP50_area", "area"),
    MeanIntersectionOverUnion(),
    Top1(),
)
_registered: dict[str, Metric] = {metric.name: metric for metric in SHIPPED}


def register(metric: Metric) -> None:
    """Make a metric known in this process.

    Raises:
        UserError: another metric has its name.
    """
    known = _registered.get(metric.name)
    if known is not None and type(known).__qualname__ != type(metric).__qualname__:
        raise UserError(f"metric '{metric.name}' exists already; use another name")
    _registered[metric.name] = metric


def find(name: str) -> Metric | None:
    """A metric by name; None if neither this package nor an installed one has it."""
    if name not in _registered:
        for entry in entry_points(group=GROUP):
            if entry.name == name:
                loaded = entry.load()
                register(loaded() if isinstance(loaded, type) else loaded)
    return _registered.get(name)


def get(name: str) -> Metric:
    """A metric by name.

    Raises:
        UserError: there is none.
    """
    metric = find(name)
    if metric is None:
        raise unknown("metric", name, _registered)
    return metric


def per_class(metric: Metric, predictions: Predictions) -> dict[str, float]:
    """The metric of every class that has something to score, in points 0-100.

    Raises:
        ValueError: predictions that the metric refuses, or values that break its contract.
    """
    values = _values(metric, predictions, once(predictions))[:, 0]
    names = metric.classes(predictions)
    if len(names) != len(values) or len({*names}) < len(names):
        raise ValueError(
            f"{metric.name} has {len(values)} values for {len({*names})} names of classes; "
            "expected one each"
        )
    return {n: 100 * float(v) for n, v in zip(names, values, strict=True) if np.isfinite(v)}


def value(metric: Metric, predictions: Predictions) -> float:
    """The main score in points 0-100: the mean over the classes that have something to score.

    Raises:
        NothingToScoreError: no class has anything; a ValueError too.
        ValueError: predictions that the metric refuses, or values that break its contract.
    """
    weights = once(predictions)
    score = float(resampled_values(metric, predictions, weights)[0])
    if np.isnan(score):
        raise NothingToScoreError(
            f"no class has anything to score by {metric.name} in {len(weights)} images"
        )
    return score


def resampled_values(metric: Metric, predictions: Predictions, weights: Weights) -> Floats:
    """The main score in points on every weighting of the images, (B,).

    Args:
        metric: which.
        predictions: of N images.
        weights: (N, B), see `metrics.resampled.resampling_weights`.

    Returns:
        In 0-100; nan marks a weighting on which no class has anything to score.

    Raises:
        ValueError: predictions that the metric refuses, or values that break its contract.
    """
    scores: Floats = 100 * mean_of_present(_values(metric, predictions, weights))
    return scores


def _values(metric: Metric, predictions: Predictions, weights: Weights) -> Floats:
    """`metric.per_class`, checked: (C, B), each in 0..1 or nan."""
    values = checks.array(metric.name, metric.per_class(predictions, weights))
    if values.ndim != 2 or values.shape[1:] != weights.shape[1:]:
        raise ValueError(
            f"{metric.name} returns {values.shape}; expected (classes, {weights.shape[1]})"
        )
    outside = (values < -ROUNDING) | (values > 1 + ROUNDING)
    if outside.any():
        wrong = values[outside][0].item()
        raise ValueError(f"{metric.name} returns {wrong}; expected values in 0..1, or nan")
    return values


def _names(predictions: Predictions) -> list[str]:
    """The names of all classes.

    Raises:
        ValueError: there are none, or they are no list.
    """
    names = np.asarray(checks.entry(predictions, "classes"))
    checks.axes("classes", names, "(C,)")
    if names.dtype.kind == "S":  # text in bytes
        names = np.char.decode(names, "utf-8")
    return [str(name) for name in names]


def once(predictions: Predictions) -> Weights:
    """Weights (N, 1) that count every image once.

    Raises:
        ValueError: `ids` is missing, no list or empty.
    """
    ids = np.asarray(checks.entry(predictions, "ids"))
    checks.axes("ids", ids, "(N,)")
    if not len(ids):
        raise ValueError("ids is empty; expected predictions of at least one image")
    return np.ones((len(ids), 1), dtype=np.float32)
