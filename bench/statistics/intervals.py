"""How sure a difference is: resamples of test images and of seeds, intervals, probabilities.

Two rows of a table are compared on the same resamples: `a - b` of what each of them gives. What was
chosen here, and how often its intervals hold the true value, is in docs/design.md ("Intervals") and
comes from benchmarks/coverage.py.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from bench.metrics.average_precision import Difficult, Floats, Kind
from bench.metrics.resampled import class_precisions, mean_of_present, resampling_weights

CHUNK = 64  # resamples at a time, in `rescore`
LEVEL = 0.95




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
        counts: (B, N), how often each image counts, as from `resamples`.
        kind: see `metrics.weighted_average_precision`.
        difficult: see `metrics.labels`.

    Returns:
        (B,) in 0..1: the mean over the classes with a positive image in that resample; nan where
        there is none.

    Raises:
        ValueError: shapes that do not fit, a score that is not finite, a bad label.
    """
    if counts.ndim != 2 or counts.shape[1] != len(np.asarray(scores)):
        shape = len(np.asarray(scores))
        raise ValueError(f"counts {counts.shape} must be (B, {shape}), as the scores' rows")
    return mean_of_present(class_precisions(scores, truth, resampling_weights(counts), kind, difficult))


def center_on(value: float, samples: ArrayLike) -> Floats:
    """Samples of a statistic (B,), moved until their mean is its value; nan is left out.

    Half as many images score higher than all (by 0.2 to 2 points of mAP in docs/design.md), which
    is no uncertainty: an interval is about the expected value of a list of as many images.
    """
    values = np.asarray(samples, dtype=float)
    moved: Floats = value + values - np.nanmean(values)
    return moved


def combine_seeds(values: ArrayLike, drawn: ArrayLike, seed: int | list[int]) -> Floats:
    """Samples of a mean over seeds: of the images, and of the seeds where there are several.

    Images and seeds are crossed: every seed is scored on the same images. So the images are drawn
    for all seeds at once, and the mean of the seeds is varied by Student's t with one degree of
    freedom less than seeds. Their spread holds part of what the images do: what a resample does to
    one seed and not to the others (its variance about their mean). That part is taken from the
    images, so that it does not count twice. Seeds drawn with replacement, as one would draw images,
    give too narrow an interval (Davison and Hinkley 1997, section 3.8: resampling k groups has
    (k - 1) / k of their variance; and three values have no tails).

    Args:
        values: (S,) the statistic of each seed on all images.
        drawn: (S, B) the same on every resample of the images.
        seed: of the order in which t's quantiles meet the resamples; a row's own, so that seeds
            of different rows are independent.

    Returns:
        (B,) samples, whose mean is that of the values.
    """
    values, drawn = np.asarray(values, dtype=float), np.asarray(drawn, dtype=float)
    count, size = drawn.shape
    moved = drawn - np.nanmean(drawn, axis=1, keepdims=True)
    together = moved.mean(axis=0)
    if count == 1:
        return center_on(float(values[0]), together)
    each = float(np.nanmean((moved - together) ** 2, axis=1).sum()) / (count - 1)
    images = float(np.nanvar(together))
    shared = np.sqrt(max(1 - each / count / images, 0)) if images else 1.0
    quantiles = stdtrit(count - 1, (np.arange(size) + 0.5) / size)
    by_seeds = values.std(ddof=1) / np.sqrt(count) * quantiles
    permuted = np.random.default_rng(seed).permutation(by_seeds)
    return center_on(float(values.mean()), shared * together + permuted)


def interval(samples: ArrayLike, value: float, level: float = LEVEL) -> tuple[float, float]:
    """The middle `level` of samples, moved until their mean is the value: see `around`.

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
    low, high = np.quantile(center_on(value, values), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def ratio_interval(
    part: ArrayLike, whole: ArrayLike, level: float = LEVEL
) -> tuple[float, float] | None:
    """The middle `level` of the samples of a ratio; None where the interval of `whole` reaches 0.

    There every ratio is possible (Fieller 1954, J. R. Stat. Soc. B 16(2)), so none is given.

    Args:
        part: (B,) samples of the numerator, from `around` or `combine_seeds`.
        whole: (B,) samples of the denominator, on the same resamples.
        level: coverage aimed at, between 0 and 1.
    """
    part, whole = np.asarray(part, dtype=float), np.asarray(whole, dtype=float)
    some = np.isfinite(part) & np.isfinite(whole)
    ends = [(1 - level) / 2, (1 + level) / 2]
    if np.quantile(whole[some], ends[0]) <= 0:
        return None
    low, high = np.quantile(part[some] / whole[some], ends)
    return float(low), float(high)


def probability_above(difference: ArrayLike) -> float:
    """Share of the samples of a difference that are above 0, those equal to 0 by half: 0..1."""
    values = np.asarray(difference, dtype=float)
    values = values[np.isfinite(values)]
    return float((values > 0).mean() + (values == 0).mean() / 2)
