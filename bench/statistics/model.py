"""What varies in a score, and by how much: the model behind every interval.

The score of row r with seed s on the test images is

    y_rs = mu_r + I_r + (IT)_rs + T_rs

- mu_r: the expected score, over test splits of as many images and over training runs. Every
  interval of a row is about it; of fixed weights, about these weights.
- I_r: the test images. All seeds and all rows are scored on the same images, so differences are
  taken on the same resamples of them (`resampling`).
- T_rs: one training run, with standard deviation sigma_r: first weights, order, augmentation, and
  the start and order of whatever the task trains. A seed sets all of them at once, as another lab's
  repeat would. Another machine adds its floating-point numbers in another order, which starts
  another trajectory: it counts as another run.
- (IT)_rs: what the images do to one run and not to another. The spread of seeds on the same images
  contains it, and so do resamples of the images; its share, `interaction`, is taken from the
  images, so that it counts once.

The mean of k seeds therefore varies about mu_r by

    var(I_r) + sigma_r^2 / k,    sigma_r^2 = var(T_rs) + var((IT)_rs)

One seed says nothing of sigma_r, and few say little. Rows of one kind tell of each other:

    s_r^2 | sigma_r     ~  sigma_r^2 chi^2(d_r) / d_r    the spread of d_r + 1 seeds
    log sigma_r | m, w  ~  Normal(m, w^2)                rows differ
    m  ~  flat,    w  ~  half-Normal(WIDEST^2)

This is the moderated variance of Smyth 2004 (Stat. Appl. Genet. Mol. Biol. 3:3, section 3) with two
changes. The variances follow a log-normal law, not a scaled inverse chi-squared one, whose tail is
far heavier where rows differ as much as ours do. And m and w are integrated over, not estimated by
moments: a few rows do not determine them. Integrals are sums over a grid of log sigma.

A training run moves the mean of k seeds by sigma_r / sqrt(k) times a standard normal variable, over
the posterior of sigma_r: `Spread.quantiles`. docs/intervals.md says how often such intervals hold
the true value, benchmarks/coverage.py measures it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from bench.metrics.average_precision import Floats
from bench.statistics.intervals import center_on

WIDEST = 0.9  # scale of the prior of w: sds of like rows differ by a factor of 2 or 3, seldom of 6
GRID = np.linspace(-4.5, 4.5, 91)  # log sigma, about that of the pooled variance
CENTERS = np.linspace(-4.0, 4.0, 41)  # m, likewise
WIDTHS = np.linspace(0.0, 2.4, 13)  # w
TINY = 1e-300  # where a law and a likelihood have nothing in common
LEAST = 0.01  # points: the least sd of seeds; they may tie, since scores have steps


@dataclass(frozen=True)
class Seeds:
    """The spread of a row's seeds, scored on the same test images.

    Attributes:
        variance: of their values, s^2 > 0, in points squared.
        degrees: of freedom, d >= 1: one less than there are seeds.
    """

    variance: float
    degrees: int

    @staticmethod
    def of(values: ArrayLike) -> Seeds | None:
        """The spread of the values of several seeds, at least `LEAST`; None of one."""
        values = np.asarray(values, dtype=float)
        if values.size < 2:
            return None
        return Seeds(max(float(values.var(ddof=1)), LEAST**2), values.size - 1)


@dataclass(frozen=True)
class Spread:
    """What is known of sigma_r: a distribution over standard deviations.

    Attributes:
        sds: (G,) standard deviations of one training run, in points.
        weights: (G,) their probabilities; they sum to 1.
    """

    sds: Floats
    weights: Floats

    @property
    def varies(self) -> bool:
        """Whether runs differ at all."""
        return bool(self.sds.any())

    @property
    def variance(self) -> float:
        """The square of the median of sigma_r: robust where little is known."""
        middle = np.interp(0.5, np.cumsum(self.weights) - self.weights / 2, self.sds)
        return float(middle**2)

    def cdf(self, x: ArrayLike, seeds: float = 1) -> Floats:
        """Probability that the mean of some seeds is less than x points above its expectation."""
        if not self.varies:
            return (np.asarray(x, dtype=float) >= 0).astype(float)
        scaled = np.asarray(x, dtype=float)[..., None] * np.sqrt(seeds) / self.sds
        values: Floats = ndtr(scaled) @ self.weights
        return values

    def quantiles(self, probabilities: ArrayLike, seeds: float = 1) -> Floats:
        """Quantiles of what training runs do to the mean of some seeds, in points.

        Args:
            probabilities: (N,) in 0..1, without the ends.
            seeds: k, over how many the mean is.
        """
        p = np.asarray(probabilities, dtype=float)
        if not self.varies:
            return np.zeros_like(p)
        upper = np.maximum(p, 1 - p)
        x = np.concatenate([[0.0], np.geomspace(self.sds.min() / 100, self.sds.max() * 40, 600)])
        values: Floats = np.sign(p - 0.5) * np.interp(upper, self.cdf(x, seeds), x)
        return values


NO_SPREAD = Spread(np.zeros(1), np.ones(1))  # of fixed weights: every run is the same


@dataclass(frozen=True)
class Kind:
    """Rows whose sigma_r are draws from one law, by the seeds of those that have several.

    Attributes:
        rows: by name; none of fixed weights, whose seeds are no evidence of those that vary.
    """

    rows: Mapping[str, Seeds]

    def spread(self, name: str) -> Spread | None:
        """The posterior of sigma_r of a row with seeds or without; None if no row has any."""
        if not self.rows:
            return None
        laws, posterior = self._laws
        own = self.rows.get(name)
        each = laws * (_likelihood(own, self._unit) if own else 1.0)
        each /= np.maximum(each.sum(axis=1, keepdims=True), TINY)
        return Spread(self._unit * np.exp(GRID), posterior @ each)

    @cached_property
    def _unit(self) -> float:
        """The root of the pooled variance, which the grid is about."""
        rows = self.rows.values()
        pooled = sum(r.degrees * r.variance for r in rows) / sum(r.degrees for r in rows)
        return float(np.sqrt(pooled))

    @cached_property
    def _laws(self) -> tuple[Floats, Floats]:
        """The law of log sigma for every m and w, (L, G), and their posterior, (L,)."""
        m, w = (axis.reshape(-1, 1) for axis in np.meshgrid(CENTERS, WIDTHS, indexing="ij"))
        width = np.hypot(w, GRID[1] - GRID[0])  # none is narrower than the grid can show
        laws = np.exp(-(((GRID - m) / width) ** 2) / 2)
        laws /= laws.sum(axis=1, keepdims=True)
        log = -((w[:, 0] / WIDEST) ** 2) / 2
        for row in self.rows.values():
            log = log + np.log(laws @ _likelihood(row, self._unit) + TINY)
        posterior = np.exp(log - log.max())
        return laws, posterior / posterior.sum()


def _likelihood(row: Seeds, unit: float) -> Floats:
    """Likelihood of the variance of a row's seeds over the grid of log sigma, up to a factor."""
    ratio = row.variance / (unit * np.exp(GRID)) ** 2
    log = row.degrees / 2 * (np.log(np.maximum(ratio, 1e-12)) - ratio)
    values: Floats = np.exp(log - log.max())
    return values


def interaction(resampled: ArrayLike) -> float | None:
    """Share of var((IT)_rs) in what the test images do to the score of one seed: 0..1.

    Args:
        resampled: (S, B) scores of S >= 2 seeds on every resample of the images.

    Returns:
        The share; None of one seed, or of images that change nothing.
    """
    centered = _centered(resampled)
    count = len(centered)
    images = float(np.nanvar(centered, axis=1).mean())
    if count < 2 or not images:
        return None
    own = float(np.nanmean((centered - centered.mean(axis=0)) ** 2, axis=1).sum()) / (count - 1)
    return min(own / images, 1.0)


def samples(
    values: ArrayLike, resampled: ArrayLike, spread: Spread, share: float, seed: int | list[int]
) -> Floats:
    """Samples of a row's mean over seeds: of the test images, and of the training runs.

    Args:
        values: (S,) the score of each seed on all images.
        resampled: (S, B) the same on every resample of the images; nan where it has no score.
        spread: of the row's training runs; `NO_SPREAD` leaves the images.
        share: `interaction` of the row, or of rows like it, 0..1; 0 is the wide side.
        seed: of the order in which quantiles of the runs meet the resamples; a row's own, so that
            rows are independent. The law of sigma_r is common to rows: to take them as independent
            all the same is the wide side where many are tested at once.

    Returns:
        (B,) samples, whose mean is that of the values.
    """
    values = np.asarray(values, dtype=float)
    together = _centered(resampled).mean(axis=0)
    count = len(values)
    common = common_share(float(np.nanvar(together)), spread, share, count)
    runs = spread.quantiles((np.arange(together.size) + 0.5) / together.size, count)
    permuted = np.random.default_rng(seed).permutation(runs)
    return center_on(values.mean(), np.sqrt(common) * together + permuted)


def common_share(images: float, spread: Spread, share: float, seeds: int) -> float:
    """Share of var(I_r) in what the test images do to the mean of some seeds: 0..1.

    The rest is (IT)_rs, which is in the spread of the runs as well. No more is taken away than the
    spread has: two seeds may agree by chance.

    Args:
        images: variance of the mean over resamples of the images.
        spread: of the row's training runs.
        share: see `samples`.
        seeds: k.
    """
    own = share / seeds
    kept = (1 - share) / (1 - share + own) if share < 1 else 0.0
    return max(kept, 1 - spread.variance / seeds / images) if images else 1.0


def _centered(resampled: ArrayLike) -> Floats:
    scores = np.asarray(resampled, dtype=float)
    centered: Floats = scores - np.nanmean(scores, axis=1, keepdims=True)
    return centered
