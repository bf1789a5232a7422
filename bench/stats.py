"""Paired bootstrap intervals over test images, for mAP and for differences of mAP.

Two rows of a table are compared on the same resamples: `bootstrap_map(a, ...) - bootstrap_map(b,
...)` with one and the same `counts`. What varies is the test images, not the training.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.metrics import Difficult, Floats, Kind, checked, weighted_average_precision

CHUNK = 64  # resamples at a time: 4,952 pictures x 64 x 2 bytes stay in a core's cache


def resamples(n_images: int, n_resamples: int, seed: int) -> NDArray[np.uint16]:
    """How often each image is drawn in each bootstrap resample (n draws with replacement).

    Args:
        n_images: N, 1 to 65,535 (a count must fit 16 bits).
        n_resamples: B >= 1.
        seed: of numpy's default generator; the same seed gives the same counts.

    Returns:
        (B, N) counts; every row sums to N.

    Raises:
        ValueError: a size out of range.
    """
    if not 1 <= n_images <= np.iinfo(np.uint16).max or n_resamples < 1:
        raise ValueError(f"cannot draw {n_resamples} resamples of {n_images} images")
    rng = np.random.default_rng(seed)
    counts = np.empty((n_resamples, n_images), dtype=np.uint16)
    for row in counts:
        row[:] = np.bincount(rng.integers(n_images, size=n_images), minlength=n_images)
    return counts


def bootstrap_map(
    scores: ArrayLike,
    truth: ArrayLike,
    counts: NDArray[np.integer],
    kind: Kind = "area",
    difficult: Difficult = "ignore",
) -> Floats:
    """Mean average precision of every resample.

    Args:
        scores: (N, C) finite.
        truth: (N, C) of 1, -1, 0; see `metrics.labels`.
        counts: (B, N) from `resamples`.
        kind: see `metrics.weighted_average_precision`.
        difficult: see `metrics.labels`.

    Returns:
        (B,) in 0..1: the mean over the classes with a positive image in that resample; nan where
        there is none.

    Raises:
        ValueError: shapes that do not fit, a score that is not finite, a bad label.
    """
    scores, positive, counted = checked(scores, truth, difficult)
    if counts.ndim != 2 or counts.shape[1] != len(scores):
        raise ValueError(f"counts {counts.shape} must be (B, {len(scores)}), as the scores' rows")
    mean = np.empty(len(counts))
    for start in range(0, len(counts), CHUNK):
        chunk = np.asfortranarray(counts[start : start + CHUNK])
        values = np.array(
            [
                weighted_average_precision(scores[keep, c], positive[keep, c], chunk[:, keep], kind)
                for c, keep in enumerate(counted.T)
            ]
        )
        present = np.isfinite(values)
        total = np.where(present, values, 0).sum(axis=0)
        mean[start : start + CHUNK] = np.where(
            present.any(axis=0), total / np.maximum(present.sum(axis=0), 1), np.nan
        )
    return mean


def interval(samples: ArrayLike, value: float, level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval, less its bias (Efron and Tibshirani 1993, chapters 13, 10).

    A resample holds pictures twice, and repeated positives alone raise average precision. So the
    samples are moved until their mean is the value itself before the percentiles are taken.

    Args:
        samples: (B,) values of a statistic, one per resample; nan is left out.
        value: the statistic of the sample itself.
        level: coverage aimed at, between 0 and 1.

    Returns:
        The low and the high end, in the unit of the samples.

    Raises:
        ValueError: a level out of range, or no finite sample.
    """
    values = np.asarray(samples, dtype=float)
    values = values[np.isfinite(values)]
    if not 0 < level < 1 or not values.size:
        raise ValueError(f"cannot take a {level} interval of {values.size} finite samples")
    ends = np.quantile(values - values.mean(), [(1 - level) / 2, (1 + level) / 2])
    low, high = value + ends
    return float(low), float(high)
