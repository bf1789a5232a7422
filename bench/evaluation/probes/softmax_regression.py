"""Multinomial logistic regression by stochastic gradient descent, on features that stay on disk.

Several learning rates share every batch that is read. A constant 1 is the last feature, and its
weights are the bias. Weights begin at zero: the loss is convex, so that this only decides the way.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MOMENTUM = 0.9  # He et al. 2020 (MoCo), main_lincls.py; Goyal et al. 2019
EPSILON = 1e-5  # added to a variance, torch.nn.BatchNorm2d
ROWS = 4096  # features read at a time where their order does not matter


class Optimization(Protocol):
    """How the weights are found."""

    epochs: int
    batch: int
    weight_decay: float
    milestones: tuple[float, ...]
    """Shares of the epochs after which the learning rates are divided by ten, ascending."""
    learning_rates: tuple[float, ...]


@dataclass(frozen=True)
class Scale:
    """A batch norm without parameters: the mean and the standard deviation of every feature."""

    mean: Tensor
    deviation: Tensor


def scale_of(features: NDArray[np.float32], rows: NDArray[np.int64], channels: int) -> Scale:
    """The mean and the standard deviation of every channel over some images and all cells.

    Args:
        features: (N, D), cells of one channel after another.
        rows: positions of the images.
        channels: of which D is a multiple.
    """
    sums = np.zeros((2, channels))
    for part in _parts(rows):
        cells = features[part].reshape(len(part), channels, -1).astype(np.float64)
        sums += cells.sum((0, 2)), (cells**2).sum((0, 2))
    repeats = features.shape[1] // channels
    mean, square = sums / (len(rows) * repeats)
    deviation = np.sqrt(np.maximum(square - mean**2, 0) + EPSILON)
    wide = (torch.from_numpy(each.repeat(repeats)).float() for each in (mean, deviation))
    return Scale(*wide)


def fit(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    rows: NDArray[np.int64],
    classes: int,
    optimization: Optimization,
    scale: Scale | None,
    seed: int,
    device: torch.device,
    advance: Callable[[int], None] = lambda count: None,
) -> Tensor:
    """Train a classifier at every learning rate.

    The order of the images is drawn from the seed and the epoch, so that it is that of any other
    features too.

    Args:
        features: (N, D), perhaps on disk.
        labels: (N,) 0..classes-1.
        rows: positions of the images to train on.
        classes: C.
        optimization: how, at R learning rates.
        scale: by which features are normalized; None leaves them.
        seed: of the order.
        device: where to compute.
        advance: called with the number of epochs done since the last call.

    Returns:
        Weights, float32 (D + 1, R, C), the bias last; not finite where training diverged.
    """
    rates = torch.tensor(optimization.learning_rates, device=device)[:, None]
    weights = torch.zeros(features.shape[1] + 1, len(rates), classes, device=device)
    velocity = torch.zeros_like(weights)
    for epoch in range(optimization.epochs):
        passed = sum(epoch >= share * optimization.epochs for share in optimization.milestones)
        order = np.random.default_rng([seed, epoch]).permutation(rows)
        for start in range(0, len(order), optimization.batch):
            selected = order[start : start + optimization.batch]
            x = _read(features, selected, scale, device)
            gradient = _logits(x, weights).softmax(2)
            true = torch.from_numpy(labels[selected]).to(device)
            gradient[torch.arange(len(true), device=device), :, true] -= 1
            gradient = (x.T @ gradient.flatten(1)).view_as(weights) / len(true)
            velocity.mul_(MOMENTUM).add_(gradient).add_(weights, alpha=optimization.weight_decay)
            weights -= rates * 0.1**passed * velocity
        advance(1)
    return weights


def best_classes(
    features: NDArray[np.float32],
    rows: NDArray[np.int64],
    weights: Tensor,
    scale: Scale | None,
    count: int,
) -> NDArray[np.int64]:
    """The classes of the highest logits at every rate, best first, (R, len(rows), count)."""
    found = [
        _logits(_read(features, part, scale, weights.device), weights).topk(count, dim=2).indices
        for part in _parts(rows)
    ]
    best: NDArray[np.int64] = torch.cat(found).transpose(0, 1).cpu().numpy()
    return best


def _logits(x: Tensor, weights: Tensor) -> Tensor:
    """(B, R, C) of features (B, D + 1)."""
    return (x @ weights.flatten(1)).view(len(x), *weights.shape[1:])


def _read(
    features: NDArray[np.float32],
    rows: NDArray[np.int64],
    scale: Scale | None,
    device: torch.device,
) -> Tensor:
    """Some features, normalized, with the constant 1, (B, D + 1)."""
    x = torch.from_numpy(features[rows])
    if scale is not None:
        x = (x - scale.mean) / scale.deviation
    return torch.cat([x, torch.ones(len(x), 1)], dim=1).to(device)


def _parts(rows: NDArray[np.int64]) -> Sequence[NDArray[np.int64]]:
    return [rows[start : start + ROWS] for start in range(0, len(rows), ROWS)]
