"""Low-shot linear SVMs of Goyal et al. 2019: few images of each class, drawn several times.

The objective is that of `linear_svm`. Each problem has images of its own, n of them, so it is
solved in their span: w = sum_i beta_i x_i (representer theorem). Newton steps in beta (Chapelle
2007, "Training a support vector machine in the primal", section 3) need the n x n products of the
images alone. Several problems of one n are solved at once, from the solution of the cost below.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.evaluation.probes.linear_svm import (
    ACCURACY,
    FEWEST,
    FORCING,
    NEWTON_STEPS,
    POSITIVE_WEIGHT,
    line_search,
)

# A direct solution costs as much as this times A^3 / n^2 conjugate gradient iterations, A the
# images inside the margin (n of 320 to 1,280 on one core).
DIRECT_COST = 1 / 16
PRODUCTS = 2**20  # of images with each other that are copied at a time


def draw(
    labels: NDArray[np.int8], classes: Sequence[int], shots: int, negatives: int, sample: int
) -> NDArray[np.int64]:
    """One independent sample of every class: positive images first, then negative ones.

    As in the released `create_voc_low_shot_samples.py`: without replacement, each class by itself,
    difficult images (label 0) never. It is seeded by its own numbers, so that it is the same for
    every encoder, and whatever else is drawn.

    Args:
        labels: (N, C) of 1, -1 and 0.
        classes: the K indices of the classes to draw for.
        shots: positive images of each.
        negatives: negative ones for each positive.
        sample: its number.

    Returns:
        (K, shots x (1 + negatives)) positions of images.

    Raises:
        ValueError: a class has fewer images.
    """
    rows = []
    for c in classes:
        rng = np.random.default_rng([sample, shots, c])
        wanted = ((1, shots), (-1, negatives * shots))
        own = [
            rng.choice(np.flatnonzero(labels[:, c] == sign), count, replace=False)
            for sign, count in wanted
        ]
        rows.append(np.concatenate(own))
    return np.array(rows)


class Products:
    """Inner products of the training images with each other and with the test images.

    Args:
        train: (N, D) features of length 1.
        test: (M, D).

    Attributes:
        all: (N + M, N) float32 of x.x' + 1, the training images first.
        train: the first N rows in float64.
    """

    def __init__(self, train: Tensor, test: Tensor) -> None:
        self.all = torch.cat([train, test]) @ train.T + 1
        self.train = self.all[: len(train)].double()


@dataclass(frozen=True)
class Fits:
    """The SVMs of one number of images (P problems, K costs).

    Attributes:
        scores: float32 (P, K, N + M), decision values of the training and the test images.
        unconverged: how many of the P x K hit the iteration cap before the accuracy asked for.
    """

    scores: NDArray[np.float32]
    unconverged: int


def fit(products: Products, rows: NDArray[np.int64], shots: int, costs: Sequence[float]) -> Fits:
    """Solve every problem at every cost.

    Args:
        products: of the images.
        rows: (P, n) the training images of each problem, of which the first are positive.
        shots: how many are.
        costs: K, positive, ascending.
    """
    device = products.train.device
    positive = torch.arange(rows.shape[1], device=device) < shots
    sign = torch.where(positive, 1.0, -1.0).double()
    weight = torch.where(positive, POSITIVE_WEIGHT, 1.0).double()
    every = torch.from_numpy(rows).to(device)
    scores, unconverged = [], 0
    for part in every.split(max(1, PRODUCTS // rows.shape[1] ** 2)):
        gram = products.train[part[:, :, None], part[:, None]]
        single = gram.float()
        beta = gram.new_zeros(part.shape)
        models = beta.new_zeros(len(products.train), *part.shape[:1], len(costs))
        for k, cost in enumerate(costs):
            beta, failures = _solve(gram, single, sign, cost * weight, beta)
            unconverged += failures
            models[:, :, k].scatter_(0, part.T, beta.T)
        scores.append((products.all @ models.flatten(1).float()).T.cpu())
    found = torch.cat(scores).reshape(len(rows), len(costs), -1)
    return Fits(found.numpy(), unconverged)


def _solve(
    gram: Tensor, single: Tensor, sign: Tensor, weight: Tensor, beta: Tensor
) -> tuple[Tensor, int]:
    """Minimize beta.G.beta / 2 + sum weight max(0, 1 - sign G beta)^2 for every problem.

    Args:
        gram: G, (P, n, n) float64.
        single: the same in float32.
        sign: (n,) of 1, -1.
        weight: (n,) > 0.
        beta: (P, n), where it starts.

    Returns:
        beta, and the number of problems that did not reach `linear_svm.ACCURACY`.
    """
    decisions = _times(gram, beta)
    for step in range(NEWTON_STEPS + 1):
        slack = 1 - sign * decisions
        gradient = beta - 2 * weight * sign * slack.clamp(min=0)
        size = (gradient * _times(gram, gradient)).sum(1)
        more = size > ACCURACY**2 * (beta * decisions).sum(1)
        if step == NEWTON_STEPS or not more.any():
            break
        move = -_direction(gram, single, 2 * weight * (slack > 0), gradient, more)
        change = _times(gram, move)
        linear, square = (decisions * move).sum(1), (change * move).sum(1)
        columns = (linear, square, slack.T, (sign * change).T, weight[:, None])
        length = (line_search(*columns) * more)[:, None]
        beta, decisions = beta + length * move, decisions + length * change
    return beta, int(more.sum())


def _direction(
    gram: Tensor, single: Tensor, curvature: Tensor, gradient: Tensor, more: Tensor
) -> Tensor:
    """The Newton direction of every problem: x of (1 + curvature G) x = gradient, to `FORCING`.

    Conjugate gradients in float32, for as long as a direct solution would take; what is then still
    open is solved directly. Inner products are those of the weights, a.G.b, in which the operator
    is symmetric.

    Args:
        gram: G, (P, n, n) float64.
        single: the same in float32.
        curvature: (P, n) >= 0.
        gradient: (P, n) float64, as is the solution.
        more: (P,) the problems to solve; the solution of the others is 0.
    """
    c, residual = curvature.float(), gradient.float()
    product = _times(single, residual)
    x, direction, pushed = torch.zeros_like(residual), residual, product
    size = (residual * product).sum(1)
    goal = FORCING**2 * size
    active = int((curvature > 0).sum(1).max())
    going = more
    for _ in range(FEWEST + int(DIRECT_COST * active**3 / gram.shape[1] ** 2)):
        going = more & (size > goal)
        if not going.any():
            break
        image = direction + c * pushed
        length = torch.where(going, size / (pushed * image).sum(1), 0)[:, None]
        x, residual = x + length * direction, residual - length * image
        product = _times(single, residual)
        size, before = (residual * product).sum(1), size
        turn = torch.where(going, size / before, 0)[:, None]
        direction, pushed = residual + turn * direction, product + turn * pushed
    solution = x.double()
    for p in going.nonzero()[:, 0].tolist():
        solution[p] = _direct(gram[p], curvature[p], gradient[p])
    return solution


def _direct(gram: Tensor, curvature: Tensor, gradient: Tensor) -> Tensor:
    """`_direction` of one problem, by Woodbury's identity on its active images."""
    rows = curvature.nonzero()[:, 0]
    active = gram[rows[:, None], rows]
    active.diagonal().add_(1 / curvature[rows])
    factor = torch.linalg.cholesky(active)
    solution = gradient.clone()
    solution[rows] -= torch.cholesky_solve((gram[rows] @ gradient)[:, None], factor)[:, 0]
    return solution


def _times(gram: Tensor, vectors: Tensor) -> Tensor:
    """G times a vector of each problem, (P, n, n) and (P, n) to (P, n).

    G is symmetric, and a row times a matrix is up to ten times as fast in batches as the reverse.
    """
    return torch.bmm(vectors[:, None], gram)[:, 0]
