"""Confidence intervals of values, differences and ratios, from the samples that `model` draws.

Two rows of a table are compared on the same resamples: the samples of their difference are the
differences of their samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from bench.metrics.average_precision import Floats

LEVEL = 0.95


class ConfidenceInterval(NamedTuple):
    """Both ends of an interval, in the unit of its value."""

    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% confidence interval, in the unit of the value.

    Attributes:
        value: the number itself.
        interval: of everything that is known to vary; None where the test images could not be
            resampled.
        images: of the test images alone, where training runs are known to vary as well.
    """

    value: float
    interval: ConfidenceInterval | None = None
    images: ConfidenceInterval | None = None

    @property
    def low(self) -> float | None:
        """The low end, if there is an interval."""
        return self.interval.low if self.interval else None

    @property
    def high(self) -> float | None:
        """The high end, if there is an interval."""
        return self.interval.high if self.interval else None

    @property
    def negated(self) -> Estimate:
        """The same of the value with the other sign."""
        return Estimate(-self.value, _negated(self.interval), _negated(self.images))


def _negated(interval: ConfidenceInterval | None) -> ConfidenceInterval | None:
    return ConfidenceInterval(-interval.high, -interval.low) if interval else None


def estimate(value: float, samples: ArrayLike, images: ArrayLike | None = None) -> Estimate:
    """A value with the interval of its samples (B,), and of those of the images alone."""
    inner = None if images is None else interval(images, value)
    return Estimate(value, interval(samples, value), inner)


def center_on(value: float, samples: ArrayLike) -> Floats:
    """Samples of a statistic (B,), shifted until their mean is its value; nan is left out.

    Half as many images score higher than all, by 0.2 to 2 points of mAP in docs/intervals.md. That
    is no uncertainty: an interval is about the expected value of a split of as many images.
    """
    values = np.asarray(samples, dtype=float)
    centered: Floats = value + values - np.nanmean(values)
    return centered


def interval(samples: ArrayLike, value: float, level: float = LEVEL) -> ConfidenceInterval:
    """The middle `level` of samples, shifted until their mean is the value: see `center_on`.

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
    low, high = np.quantile(center_on(value, values), _tails(level))
    return ConfidenceInterval(float(low), float(high))


def ratio_interval(
    part: ArrayLike, whole: ArrayLike, level: float = LEVEL
) -> ConfidenceInterval | None:
    """The middle `level` of the samples of a ratio; None where the interval of `whole` reaches 0.

    There every ratio is possible (Fieller 1954, J. R. Stat. Soc. B 16(2)), so none is given.

    Args:
        part: (B,) samples of the numerator, from `center_on` or `model.samples`.
        whole: (B,) samples of the denominator, on the same resamples.
        level: coverage aimed at, between 0 and 1.
    """
    part = np.asarray(part, dtype=float)
    whole = np.asarray(whole, dtype=float)
    finite = np.isfinite(part) & np.isfinite(whole)
    tails = _tails(level)
    if np.quantile(whole[finite], tails[0]) <= 0:
        return None
    low, high = np.quantile(part[finite] / whole[finite], tails)
    return ConfidenceInterval(float(low), float(high))


def _tails(level: float) -> tuple[float, float]:
    """The quantiles at the ends of the middle `level`."""
    return (1 - level) / 2, (1 + level) / 2


def probability_above(difference: ArrayLike) -> float:
    """Share of the samples of a difference that are above 0, those equal to 0 by half: 0..1."""
    values = np.asarray(difference, dtype=float)
    values = values[np.isfinite(values)]
    return float((values > 0).mean() + (values == 0).mean() / 2)
