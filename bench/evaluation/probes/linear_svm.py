"""Frozen linear SVM probe of Goyal et al. 2019, every class, cost and fold of a stage together.

The objective of each problem is that of scikit-learn's `LinearSVC(penalty="l2",
loss="squared_hinge", class_weight={1: 2, -1: 1}, intercept_scaling=1)`, with x extended by a
constant 1 whose weight is regularized like the others:

    f(w) = |w|^2 / 2 + cost * sum_i c_i max(0, 1 - y_i w.x_i)^2,  c_i = 2 if y_i = 1, else 1.

All problems share the features, so one eigendecomposition serves them all: in its coordinates the
scatter matrix is diagonal, which preconditions conjugate gradients, and if there are more
dimensions than images only the span of the images is left (representer theorem). Each cost is
then one batch of semismooth Newton iterations (Keerthi and DeCoste 2005, "A modified finite Newton
method for fast solution of large scale linear SVMs") over the columns class x (folds + refit),
started from the solution of the cost below. Gradients and line searches are float64, so that the
certificate of `ACCURACY` holds; Newton directions need less and are float32 where that is enough.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count as upwards

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

from bench.metrics import checks
from bench.metrics.average_precision import average_precision

POSITIVE_WEIGHT = 2.0  # Goyal et al. 2019: class_weight={1: 2, -1: 1}
NORM_EPSILON = 1e-5  # added to the norm in Goyal et al. 2019's normalization
# A solve stops at |gradient| <= ACCURACY |w|. As f is 1-strongly convex this proves that w is
# within that fraction of the solution, and f within ACCURACY^2 (1e-5) of its least value.
ACCURACY = 3e-3
NEWTON_STEPS = 50  # 4 to 10 are typical; what needs more is counted as unconverged
FORCING = 0.1  # how much of the (preconditioned) gradient a Newton direction may leave unsolved
# A direct solution costs as much as this times A^3 / (N r) conjugate gradient iterations, A the
# images inside the margin (5,011 x 2,049 on two cores; the operation counts alone say 1 / 12).
DIRECT_COST = 1 / 24
FEWEST = 10  # iterations that are rarely enough: a direct solution as cheap is taken at once
ROWS = 4096  # test features multiplied at a time


@dataclass(frozen=True)
class Probe:
    """The probe's result for one stage of an encoder (C classes, K costs as given, M tests)."""

    cv: NDArray[np.float64]
    """(C, K) mean over the folds of the validation average precision, "area", in 0..1."""
    selected: NDArray[np.intp]
    """(C,) index of the cost with the highest `cv`; of equals, the smallest cost."""
    scores: NDArray[np.float32]
    """(C, K, M) decision values of the models fitted to the whole training set."""
    problems: int
    """SVMs solved: C x K x (folds + 1)."""
    unconverged: int
    """Number of problems that hit the iteration cap before the accuracy asked for."""


def normalize(features: Tensor) -> Tensor:
    """Scale the rows of features to length 1: x / (|x| + 1e-5), as Goyal et al. 2019.

    Args:
        features: (N, D) of a floating type; values that are not finite stay so.

    Raises:
        ValueError: another shape or type, or a finite row whose length overflows the type.
    """
    _check_features("features", features)
    lengths: Tensor = features.norm(dim=1, keepdim=True)
    long = features[lengths[:, 0].isinf()]
    if bool(long.isfinite().all(dim=1).any()):
        raise ValueError(f"features holds a row whose length overflows {features.dtype}")
    return features / (lengths + NORM_EPSILON)


def normalized_stage(features: NDArray[np.float32], stage: int, device: torch.device) -> Tensor:
    """The features of one stage on a device, (N, D), rows of length 1.

    Raises:
        ValueError: they are not all finite; names the stage.
    """
    normalized = normalize(torch.from_numpy(np.array(features)).to(device))
    if not normalized.isfinite().all():
        raise ValueError(f"the features of stage {stage} are not all finite")
    return normalized


def fit(
    train: Tensor,
    labels: NDArray[np.int8],
    test: Tensor,
    costs: Sequence[float],
    folds: int,
    *,
    advance: Callable[[int], None] | None = None,
) -> Probe:
    """Solve every class x cost x (cross-validation fold or whole training set) of one stage.

    Difficult images (label 0) are negatives in training and validation, as in the full-data
    script of Goyal et al. 2019 (fair_self_supervision_benchmark), which leaves them at -1.
    Folds are per class, stratified and unshuffled, as scikit-learn's `cross_val_score` makes them.
    The same inputs give the same result on the same machine.

    Args:
        train: (N, D) features of length 1 (see `normalize`), finite, of a floating type, on a
            device with float64.
        labels: (N, C) of 1 (positive), -1 (negative), 0 (difficult), of any numeric type; booleans
            and 1 and 0 mean the same here, as what is not 1 is a negative.
        test: (M, D) features, finite, of a floating type, on any device.
        costs: K different costs > 0, finite, in any order.
        folds: 2 or more.
        advance: called with the number of problems solved since the last call.

    Returns:
        The validation scores, the cost they choose, and the test scores of every cost.

    Raises:
        ValueError: shapes or costs that do not fit, features that are not finite, another label,
            or a class with fewer positives or negatives than folds.
    """
    labels = _labels(labels)
    _check(train, labels, test, costs, folds)
    positive = labels == 1
    held = _held_out(positive, folds)
    sign = np.repeat(np.where(positive, 1.0, -1.0), folds + 1, axis=1)
    weight = np.where(held, 0.0, np.where(sign > 0, POSITIVE_WEIGHT, 1.0))
    span = _Span(train)
    classes, grid = labels.shape[1], np.argsort(costs)
    theta = span.z.new_zeros(span.z.shape[1], sign.shape[1])
    models = theta.new_zeros(train.shape[1] + 1, classes, len(costs))
    cv, unconverged = np.zeros((classes, len(costs))), 0
    signs, weights = torch.from_numpy(sign).to(theta), torch.from_numpy(weight).to(theta)
    decisions = torch.zeros_like(signs)
    for k in grid:
        unconverged += _solve(span, signs, costs[k] * weights, theta, decisions)
        cv[:, k] = _validate(decisions.cpu().numpy(), positive, held)
        models[:, :, k] = span.weights(theta[:, folds :: folds + 1])
        if advance:
            advance(theta.shape[1])
    flat = models.flatten(1).float()
    scores = torch.cat([_decide(rows.to(flat), flat).cpu() for rows in test.split(ROWS)])
    return Probe(
        cv=cv,
        selected=grid[cv[:, grid].argmax(axis=1)],
        scores=scores.T.reshape(classes, len(costs), -1).numpy(),
        problems=sign.shape[1] * len(costs),
        unconverged=unconverged,
    )


def _check(
    train: Tensor, labels: NDArray[np.int8], test: Tensor, costs: Sequence[float], folds: int
) -> None:
    _check_features("train", train)
    _check_features("test", test)
    shapes = f"train {tuple(train.shape)}, labels {labels.shape}, test {tuple(test.shape)}"
    if len(train) != len(labels) or not labels.shape[1] or train.shape[1] != test.shape[1]:
        raise ValueError(f"expected train (N, D), labels (N, C), test (M, D); got {shapes}")
    if not (torch.isfinite(train).all() and torch.isfinite(test).all()):
        raise ValueError("the features are not all finite")
    given = checks.scores("costs", costs, "(K,)").tolist()
    if not given or min(given) <= 0 or len({*given}) < len(given):
        raise ValueError(f"costs must be positive and different, got {given}")
    checks.number("folds", folds, 0)
    positives = (labels == 1).sum(axis=0)
    for c, count in enumerate(positives.tolist()):
        if folds < 2 or min(count, len(labels) - count) < folds:
            counts = f"{count} positives and {len(labels) - count} negatives"
            raise ValueError(f"class {c} has {counts}: too few for {folds} folds of 2 or more")


def _labels(labels: NDArray[np.int8]) -> NDArray[np.int8]:
    """Labels of 1, -1 and 0; booleans as 1 and 0."""
    read = checks.array("labels", labels)
    return checks.codes("labels", read.astype(np.int8) if read.dtype.kind == "b" else read)


def _check_features(name: str, features: Tensor) -> None:
    if not isinstance(features, Tensor) or not features.is_floating_point():
        kind = features.dtype if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(f"{name} is of {kind}; expected a tensor of a floating type")
    if features.ndim != 2:
        raise ValueError(f"{name} {tuple(features.shape)} must be two-dimensional, (images, D)")


def _held_out(positive: NDArray[np.bool_], folds: int) -> NDArray[np.bool_]:
    """Mask of the images that each column does not train on, (N, C x (folds + 1))."""
    held = np.zeros((*positive.shape, folds + 1), dtype=bool)
    for c, y in enumerate(positive.T):
        for k, (_, validation) in enumerate(StratifiedKFold(folds).split(y, y)):
            held[validation, c, k] = True
    return held.reshape(len(positive), -1)


def _validate(
    decisions: NDArray[np.float64], positive: NDArray[np.bool_], held: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Mean over the folds of the average precision on the images held out, (C,)."""
    classes = positive.shape[1]
    by_class = zip(
        np.split(decisions, classes, axis=1),
        np.split(held, classes, axis=1),
        positive.T,
        strict=True,
    )
    return np.array(
        [
            np.mean(
                [average_precision(s[h], y[h]) for s, h in zip(d.T, m.T, strict=True) if h.any()]
            )
            for d, m, y in by_class
        ]
    )


def _decide(features: Tensor, models: Tensor) -> Tensor:
    return torch.addmm(models[-1], features, models[:-1])


class _Span:
    """The training images (with the constant 1) in coordinates that diagonalize their scatter.

    Attributes:
        z: (N, r) float64; z.T @ z = diag(spectrum).
        z32: the same in float32.
        gram: (N, N) float64, z @ z.T.
        gram32: the same in float32.
        spectrum: (r,) float32, ascending, without the null directions.
    """

    def __init__(self, train: Tensor) -> None:
        x = torch.cat([train.double(), train.new_ones(len(train), 1).double()], dim=1)
        wide = x.shape[1] > len(x)
        self.gram = x @ x.T
        values, vectors = torch.linalg.eigh(self.gram if wide else x.T @ x)
        keep = values > values[-1] * max(x.shape) * torch.finfo(values.dtype).eps
        values, vectors = values[keep], vectors[:, keep]
        self.spectrum = values.float()
        self.basis = x.T @ (vectors / values.sqrt()) if wide else vectors  # (D + 1, r) orthonormal
        self.z = x @ self.basis
        self.z32, self.gram32 = self.z.float(), self.gram.float()

    def weights(self, theta: Tensor) -> Tensor:
        """Back to the features' coordinates, the bias last: (r, P) -> (D + 1, P)."""
        return torch.mm(self.basis, theta)


def _solve(span: _Span, sign: Tensor, weight: Tensor, theta: Tensor, decisions: Tensor) -> int:
    """Minimize every column's |theta|^2 / 2 + sum weight max(0, 1 - sign z.theta)^2, in place.

    Args:
        span: the training features.
        sign: (N, P) of 1, -1.
        weight: (N, P) >= 0.
        theta: (r, P) the starting point; the solution on return.
        decisions: (N, P) z @ theta, before and after.

    Returns:
        The number of columns that did not reach `ACCURACY`.
    """
    left = torch.arange(theta.shape[1], device=theta.device)
    for step in range(NEWTON_STEPS + 1):
        old, slack = theta[:, left], 1 - sign * decisions[:, left]
        gradient = old - 2 * (span.z.T @ (weight * sign * slack.clamp(min=0)))
        more = gradient.norm(dim=0) > ACCURACY * old.norm(dim=0)
        if step == NEWTON_STEPS or not more.any():
            break
        left, old, gradient = left[more], old[:, more], gradient[:, more]
        sign, weight, slack = sign[:, more], weight[:, more], slack[:, more]
        move = -_newton_direction(span, 2 * weight * (slack > 0), gradient)
        change = span.z @ move
        linear, square = (old * move).sum(dim=0), (move * move).sum(dim=0)
        length = line_search(linear, square, slack, sign * change, weight)
        theta[:, left] = old + length * move
        decisions[:, left] += length * change
    return int(more.sum())


def line_search(
    linear: Tensor, square: Tensor, slack: Tensor, fall: Tensor, weight: Tensor
) -> Tensor:
    """Step in (0, 2) that nearly minimizes each column along a move, by bisection on the slope.

    Nearly: the slope is a tenth of what it was (the strong Wolfe condition), mostly at step 1.
    Along the line the slack is slack - step * fall, so no product with the features is needed.

    Args:
        linear: (..., P) product of the weights with the move.
        square: (..., P) square of the move.
        slack: (..., N, P) 1 - sign x decision.
        fall: (..., N, P) by how much the move lowers the slack.
        weight: (..., N, P) of the squared slack.
    """
    pull = 2 * weight * fall
    step, first = torch.ones_like(linear), linear - (pull * slack.clamp(min=0)).sum(dim=-2)
    for halving in range(1, 13):
        left = (slack - step.unsqueeze(-2) * fall).clamp(min=0)
        slope = linear + step * square - (pull * left).sum(dim=-2)
        far = slope.abs() > 0.1 * first.abs()
        if not far.any():
            break
        step = step - far * slope.sign() * 0.5**halving
    return step


def _newton_direction(span: _Span, curvature: Tensor, gradient: Tensor) -> Tensor:
    """Solve (1 + z.T diag(curvature) z) x = gradient for every column, to `FORCING`.

    Preconditioned conjugate gradients, each column for as long as a direct solution would take;
    what is then still open is solved directly, so that no column costs more than twice the better
    of the two. Few images inside the margin (a large cost) are a direct case from the start.

    Args:
        span: the training features.
        curvature: (N, p) >= 0, float64.
        gradient: (r, p), float64, as is the solution.
    """
    z = span.z32
    patience = DIRECT_COST * (curvature > 0).sum(dim=0).double() ** 3 / z.numel()
    # Were the active images a fair sample of all, this would be the Hessian exactly.
    diagonal = 1 + span.spectrum[:, None] * curvature.mean(dim=0).float()
    solution = torch.zeros_like(gradient)
    left = torch.arange(gradient.shape[1], device=gradient.device)
    c, residual = curvature.float(), gradient.float()
    x = torch.zeros_like(residual)
    direction = residual / diagonal
    size = (residual * direction).sum(dim=0)
    goal = FORCING**2 * size
    for step in upwards(FEWEST):
        done = size <= goal
        solution[:, left[done]] = x[:, done].double()
        tired = ~done & (patience <= step)
        if tired.any():
            hard = left[tired]
            solution[:, hard] = _direct(span, curvature[:, hard], gradient[:, hard])
        go = ~(done | tired)
        if not go.all():
            left, goal, size, patience = left[go], goal[go], size[go], patience[go]
            c, diagonal = c[:, go], diagonal[:, go]
            x, residual, direction = x[:, go], residual[:, go], direction[:, go]
        if not len(left):
            break
        image = direction + z.T @ (c * (z @ direction))
        length = size / (direction * image).sum(dim=0)
        x, residual = x + length * direction, residual - length * image
        scaled = residual / diagonal
        size, before = (residual * scaled).sum(dim=0), size
        direction = scaled + size / before * direction
    return solution


def _direct(span: _Span, curvature: Tensor, gradient: Tensor) -> Tensor:
    """`_newton_direction` by Woodbury's identity on each column's active images.

    In float32 where its rounding of the Gram matrix, at most epsilon times its trace, stays within
    `FORCING` of the least eigenvalue, 1 / curvature (a cost below about 150); else in float64.
    """
    solution = torch.empty_like(gradient)
    trace = span.gram.diagonal() @ (curvature > 0).double()
    single = torch.finfo(torch.float32).eps * trace * curvature.amax(dim=0) < FORCING
    for columns, z, gram in ((single, span.z32, span.gram32), (~single, span.z, span.gram)):
        c, g = curvature[:, columns].to(z), gradient[:, columns].to(z)
        pull, dual = z @ g, torch.zeros_like(c)
        for p in range(c.shape[1]):
            rows = c[:, p].nonzero()[:, 0]
            active = gram.take(rows[:, None] * len(gram) + rows)
            active.diagonal().add_(1 / c[rows, p])
            factor = torch.linalg.cholesky(active)
            dual[rows, p] = torch.cholesky_solve(pull[rows, p, None], factor)[:, 0]
        solution[:, columns] = (g - z.T @ dual).double()
    return solution
