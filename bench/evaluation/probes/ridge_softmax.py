"""Softmax regression with a ridge penalty on many samples: a linear layer at the least of its loss.

The objective is that of scikit-learn's `LogisticRegression(C=1 / (ridge * N))` on standardized
features x, with an unpenalized bias:

    f(W, b) = mean_i cross_entropy(W x_i + b, y_i) + ridge / 2 |W|^2

All ridges share one eigendecomposition of the correlation matrix. In its coordinates, scaled by
the bound 1/2 of the cross-entropy's curvature (Böhning 1992, Ann. Inst. Stat. Math. 44,
section 3), no direction is curved more than 1, so that L-BFGS needs tens of iterations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

CURVATURE = 0.5  # most that of the cross-entropy is, in any direction of the logits (Böhning 1992)
CONSTANT = 1e-5  # of a feature's root mean square: with less spread than this it says nothing
ITERATIONS = 200  # of L-BFGS; 20 to 60 are typical
HISTORY = 10  # of L-BFGS, as scipy's
# Largest gradient at which a solve stops, in coordinates where no curvature is above 1.
GRADIENT = 1e-4


@dataclass(frozen=True)
class LinearLayer:
    """Logits of C classes from D features as they come: the standardization is in the weights.

    Attributes:
        weight: float32 (C, D).
        bias: float32 (C,).
    """

    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Logits (N, C) of features (N, D)."""
        return F.linear(features, self.weight, self.bias)

    def to(self, device: torch.device) -> LinearLayer:
        """The same on a device."""
        return LinearLayer(self.weight.to(device), self.bias.to(device))


def fits(
    features: Tensor, labels: Tensor, classes: int, ridges: Sequence[float]
) -> Iterator[LinearLayer]:
    """The layer at each ridge, from the one before.

    Args:
        features: float32 (N, D), finite. Memory is that of three times as much.
        labels: int64 (N,), 0..C-1, on the same device.
        classes: C.
        ridges: > 0, each relative to the mean loss.
    """
    mean = features.mean(0)
    centered = features - mean
    deviation = centered.square().mean(0).sqrt()
    varies = deviation > CONSTANT * features.square().mean(0).sqrt()
    scale = torch.where(varies, 1 / deviation, torch.zeros_like(deviation))
    centered *= scale
    correlation = (centered.T @ centered / len(features)).double()
    spectrum, basis = (part.float() for part in torch.linalg.eigh(correlation))
    rotated = centered @ basis
    del centered
    weight = features.new_zeros(classes, features.shape[1])
    bias = features.new_zeros(classes)
    for ridge in ridges:
        damping = (CURVATURE * spectrum.clamp(min=0) + ridge).rsqrt()
        weight, bias = _minimize(rotated, labels, weight, bias, ridge, damping)
        own = (weight @ basis.T) * scale
        yield LinearLayer(own, bias - own @ mean)


def _minimize(
    rotated: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, ridge: float, damping: Tensor
) -> tuple[Tensor, Tensor]:
    """The weights (C, D) and biases (C,) of least loss, from given ones.

    Args:
        rotated: features in the coordinates of their correlation matrix, (N, D).
        labels: (N,).
        weight: where to start.
        bias: likewise.
        ridge: of the penalty.
        damping: scale of each coordinate, (D,).
    """
    scaled = (weight / damping).requires_grad_()
    shift = bias.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [scaled, shift],
        max_iter=ITERATIONS,
        history_size=HISTORY,
        tolerance_grad=GRADIENT,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        own = damping * scaled
        value = F.cross_entropy(F.linear(rotated, own, shift), labels)
        value = value + ridge / 2 * own.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return (damping * scaled).detach(), shift.detach()
