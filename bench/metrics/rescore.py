"""A headline computed again from the predictions beside a record, whole or resampled.

Which metric it is shows in what the predictions hold: boxes, confusion matrices, or scores of
images. Needs numpy only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from bench.metrics.average_precision import (
    Floats,
    Kind,
    mean_average_precision,
    weighted_average_precision,
)
from bench.metrics.detection import match
from bench.metrics.segmentation import class_ious
from bench.statistics.intervals import CHUNK, bootstrap_map

Predictions = Mapping[str, NDArray[Any]]
OVERLAP = 0.5  # VOC devkit, VOCinit.m: minoverlap


def images(predictions: Predictions) -> int:
    """How many test images the predictions are of."""
    return len(predictions["ids"])


def headline(predictions: Predictions) -> float:
    """The value in points 0-100."""
    once = np.ones((1, images(predictions)), dtype=np.uint16)
    if "box" in predictions or "confusion" in predictions:
        return float(bootstrap(predictions, once)[0])
    kind = _kind(predictions, "area")
    return 100 * mean_average_precision(predictions["scores"], predictions["truth"], kind)


def bootstrap(predictions: Predictions, counts: NDArray[np.integer]) -> Floats:
    """The value in points of every resample, (B,); `counts` (B, N) as `stats.resamples` gives."""
    if "box" in predictions:
        kind = _kind(predictions, "11-point")
        drawn = detection_precisions(predictions, kind, counts)
    elif "confusion" in predictions:
        drawn = _ious(predictions, counts)
    else:
        kind = _kind(predictions, "area")
        return 100 * bootstrap_map(predictions["scores"], predictions["truth"], counts, kind)
    some = np.isfinite(drawn).any(0)
    means = np.full(drawn.shape[1], np.nan)
    means[some] = np.nanmean(drawn[:, some], axis=0)
    return 100 * means


def detection_precisions(
    predictions: Predictions, kind: Kind, counts: NDArray[np.integer] | None = None
) -> Floats:
    """Average precision of every class that counts, (C,); of every resample with `counts`, (C, B).

    See `metrics.detection_average_precision`.
    """
    once = np.ones((1, images(predictions)), dtype=np.uint16)
    drawn = np.array(
        [
            _class_precisions(predictions, label, kind, once if counts is None else counts)
            for label in predictions["counted"]
        ]
    )
    return drawn[:, 0] if counts is None else drawn


def _class_precisions(
    predictions: Predictions, label: int, kind: Kind, counts: NDArray[np.integer]
) -> Floats:
    mine, true = predictions["label"] == label, predictions["true_class"] == label
    scores, image = predictions["score"][mine], predictions["image"][mine]
    places, hard = predictions["true_image"][true], predictions["true_difficult"][true]
    verdicts = match(
        predictions["box"][mine],
        scores,
        image,
        predictions["true_box"][true],
        places,
        hard,
        OVERLAP,
    )
    counted = verdicts >= 0
    scores, found, image = scores[counted], verdicts[counted] > 0, image[counted]
    objects = np.bincount(places[~hard], minlength=counts.shape[1])
    values = [
        weighted_average_precision(
            scores,
            found,
            np.asfortranarray(part[:, image]),
            kind,
            part.astype(np.int64) @ objects,
        )
        for part in np.split(counts, range(CHUNK, len(counts), CHUNK))
    ]
    return np.concatenate(values)


def _ious(predictions: Predictions, counts: NDArray[np.integer]) -> Floats:
    """Intersection over union of every class on every resample, (C, B); nan where it is absent."""
    each = predictions["confusion"].astype(np.float64)
    size = each.shape[-1]
    whole = (counts.astype(np.float64) @ each.reshape(len(each), -1)).reshape(-1, size, size)
    found: Floats = class_ious(whole).T
    return found


def _kind(predictions: Predictions, default: Kind) -> Kind:
    return cast(Kind, str(predictions["kind"][0])) if "kind" in predictions else default
