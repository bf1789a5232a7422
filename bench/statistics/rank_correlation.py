"""How far two tasks put the same methods in the same order: Kendall's tau-b, with an interval.

Tau-b is the number of pairs of methods in the same order less that in the other order, over the
geometric mean of the pairs that are untied in each task (Kendall 1945, Biometrika 33(3)). It is
taken, not Spearman's coefficient, because a leaderboard compares pairs: without ties (1 + tau) / 2
of them are in the same order.

Noise pulls the correlation of scores towards 0, and resampling adds noise to noisy scores. Where
methods differ by no more than their scores vary, resampled correlations are near 0 whatever the
expected scores' is: see docs/intervals.md. So the interval is about the expected scores mu_r of
these methods, by a model:

    y_r = mu_r + e_r                       scores in two tasks, (2,), less the means over methods
    mu_r | sd, rho  ~  Normal(0, Sigma)    Sigma of two sds and a correlation
    sd_1, sd_2, rho  ~  flat               each over its grid

- e_r: what the test images and the training runs do, by the samples of the leaderboard's rows.
  Tasks with the same number of test images have the same resamples: on the same images they move
  together.
- sd, rho: drawn from their posterior, a sum over the grid. Its likelihood is of scores brought to
  within `FARTHEST` of the median: one method far ahead says little of how far the rest differ.
- mu_r: drawn given y, sd and rho. The interval is the middle 95% of the tau-b of these draws.

One training run makes one encoder for both tasks, and may move both scores. How far together is not
known: the interval holds runs that move together, and runs that do not. It holds no other methods:
another selection of methods may correlate otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.metrics.average_precision import Floats
from bench.statistics.cache import RESAMPLES, SEED
from bench.statistics.intervals import LEVEL, ConfidenceInterval, Estimate
from bench.statistics.scores import RowScore

FEWEST = 5  # methods: with four, one pair moves tau by a third
FARTHEST = 2.5  # robust standard deviations; of normal scores, 1% are farther
NORMAL = 1.4826  # standard deviation of a normal law over its median absolute deviation
STEPS, WIDEST = 16, 3.0  # the grid of sd, up to this many sds of the scores
GRID = np.stack(
    np.meshgrid(
        *2 * [(np.arange(STEPS) + 0.5) / STEPS * WIDEST],
        (np.arange(2 * STEPS) + 0.5) / STEPS - 1,
        indexing="ij",
    ),
    axis=-1,
).reshape(-1, 3)


@dataclass(frozen=True)
class RankCorrelation:
    """Kendall's tau-b of two tasks.

    Attributes:
        methods: that have a score in both.
        estimate: tau-b of their scores, -1 to 1, with its interval; None of fewer methods than
            `FEWEST`, without resampled scores, or where a task has one score for all of them.
        runs: whether the training runs of all of them are in the interval, in both tasks.
    """

    methods: tuple[str, ...]
    estimate: Estimate | None = None
    runs: bool = False


def rank_correlation(
    one: Mapping[str, RowScore], other: Mapping[str, RowScore], methods: Iterable[str]
) -> RankCorrelation:
    """The rank correlation of two tasks over some methods.

    Args:
        one: the scores of a task by method.
        other: of the other task.
        methods: that are taken, where both tasks have them.
    """
    shared = tuple(method for method in methods if method in one and method in other)
    rows = [[task[method] for method in shared] for task in (one, other)]
    values = np.array([[row.value for row in side] for side in rows])
    if len(shared) < FEWEST or not (np.ptp(values, axis=1) > 0).all():
        return RankCorrelation(shared)
    moves = np.array([[_moves(row) for row in side] for side in rows])
    ends = [interval(values, moves)]
    if all(any(row.varies for row in side) for side in rows):
        apart = np.array([[_moves(row, apart=True) for row in rows[1]]])
        ends.append(interval(values, np.concatenate([moves[:1], apart])))
    found = ConfidenceInterval(min(e.low for e in ends), max(e.high for e in ends))
    value = float(tau_b(values[0], values[1]))
    runs = all(row.known for side in rows for row in side)
    return RankCorrelation(shared, Estimate(value, found), runs)


def _moves(row: RowScore, apart: bool = False) -> Floats:
    """What images and runs do to a score, (RESAMPLES,); `apart`: runs in another order."""
    images = np.sqrt(row.common) * (row.images - row.value)
    runs = row.samples - row.value - images
    moves: Floats = np.nan_to_num(images + (np.roll(runs, RESAMPLES) if apart else runs))
    return moves[:RESAMPLES]


def tau_b(one: ArrayLike, other: ArrayLike) -> Floats:
    """Kendall's tau-b of scores (..., R) in two tasks, (...), -1 to 1; nan where all are tied."""
    signs = []
    for side in map(np.asarray, (one, other)):
        above = side[..., :, None] > side[..., None, :]
        signs.append(above.astype(np.int8) - np.swapaxes(above, -1, -2))
    first, second = (np.count_nonzero(side, axis=(-2, -1)) for side in signs)
    with np.errstate(invalid="ignore"):
        tau: Floats = (signs[0] * signs[1]).sum(axis=(-2, -1)) / np.sqrt(first * second)
    return tau


def interval(values: ArrayLike, moves: ArrayLike) -> ConfidenceInterval:
    """The interval of the tau-b of expected scores, by the model above.

    Args:
        values: (2, R) scores of R >= 3 methods in two tasks, not all the same.
        moves: (2, R, B) samples of what images and runs do to them, around 0.
    """
    scores, noise = (
        side - side.mean(axis=1, keepdims=True)
        for side in (np.asarray(values, dtype=float), np.asarray(moves, dtype=float))
    )
    near = _near(scores)
    unit = near.std(axis=1, ddof=1, keepdims=True)
    scores, near, noise = scores / unit, near / unit, noise / unit[:, :, None]
    count, draws = noise.shape[1:]
    each = np.einsum("irb,jrb->rij", noise, noise) / draws
    weights = _posterior(near @ near.T, each.sum(axis=0) / (count - 1), count - 1)
    rng = np.random.default_rng(SEED)
    laws = _covariances(GRID[rng.choice(len(GRID), draws, p=weights)])
    drawn = np.linalg.cholesky(laws) @ rng.normal(size=(draws, 2, count))
    # A draw of mu given y: one of both from the model, moved by the part of y it does not explain.
    gain = laws[:, None] @ np.linalg.inv(laws[:, None] + each)
    missing = scores - drawn - np.moveaxis(noise, -1, 0)
    expected = drawn + np.einsum("brij,bjr->bir", gain, missing)
    taus = tau_b(expected[:, 0], expected[:, 1])
    low, high = np.quantile(taus, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return ConfidenceInterval(float(low), float(high))


def _near(scores: Floats) -> Floats:
    """Scores (2, R) brought to within `FARTHEST` of their median, less the mean."""
    away = scores - np.median(scores, axis=1, keepdims=True)
    most = FARTHEST * NORMAL * np.median(np.abs(away), axis=1, keepdims=True)
    near = np.clip(away, -most, most) if (most > 0).all() else away
    centered: Floats = near - near.mean(axis=1, keepdims=True)
    return centered


def _posterior(scatter: Floats, noise: Floats, degrees: int) -> Floats:
    """Probabilities of the grid, (G,), given the scatter (2, 2) of scores and their mean noise."""
    total = _covariances(GRID) + noise
    fit = np.einsum("gij,ij->g", np.linalg.inv(total), scatter)
    log = -(degrees * np.log(np.linalg.det(total)) + fit) / 2
    likelihood = np.exp(log - log.max())
    weights: Floats = likelihood / likelihood.sum()
    return weights


def _covariances(laws: NDArray[np.float64]) -> Floats:
    """The covariances (G, 2, 2) of two sds and a correlation, (G, 3)."""
    sds = laws[:, :2]
    shared = np.stack([np.ones(len(laws)), laws[:, 2], laws[:, 2], np.ones(len(laws))], axis=1)
    found: Floats = shared.reshape(-1, 2, 2) * sds[:, :, None] * sds[:, None, :]
    return found
