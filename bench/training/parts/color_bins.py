"""Color classes: the 313 ab bins of Zhang, Isola and Efros 2016, soft encoding, rebalancing."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from bench.config.schema import Recipe
from bench.data.color import rgb_to_lab
from bench.data.image_folder import LabeledImages
from bench.data.stream import Stream
from bench.data.transforms import random_crop, to_unit_range
from bench.training.pretext_score import Scores

# Zhang, Isola and Efros 2016, resources/pts_in_hull.npy: the 313 points of a grid of 10 that are in
# gamut. For every a, the least and the greatest b.
AB_RANGES = {
    -90: (50, 90), -80: (20, 90), -70: (0, 90), -60: (-20, 90), -50: (-30, 100),
    -40: (-40, 100), -30: (-50, 100), -20: (-50, 100), -10: (-60, 100), 0: (-70, 100),
    10: (-80, 90), 20: (-80, 90), 30: (-90, 90), 40: (-100, 90), 50: (-100, 80),
    60: (-110, 80), 70: (-110, 80), 80: (-110, 70), 90: (-110, 70), 100: (-90, 0),
}  # fmt: skip
GRID = 10  # between two centers, the same source
NEIGHBORS = 5  # Zhang et al. 2016, section 2.1; their released layer takes 10
SIGMA = 5.0  # of the soft encoding, the same section
UNIFORM = 0.5  # lambda of the rebalancing, the same paper, section 2.2
TEMPERATURE = 0.38  # of the annealed mean, section 2.3
GRAY = 5.0  # an image whose |a| and |b| never exceed it is gray: released NonGrayMaskLayer
IMAGES = 2000  # pretraining images from which the shares of the bins are estimated
LIGHTNESSES = 100  # bins of L; ours, one a unit


@cache
def ab_centers() -> Tensor:
    """Centers of the 313 bins, float (313, 2), a ascending, then b."""
    points = [(a, b) for a, (low, high) in AB_RANGES.items() for b in range(low, high + 1, GRID)]
    return torch.tensor(points, dtype=torch.float32)


def soft_encode(ab: Tensor) -> tuple[Tensor, Tensor]:
    """Soft encoding: a color's shares of its nearest bins, exp(-distance^2 / (2 sigma^2)) each.

    Args:
        ab: (..., 2).

    Returns:
        The bins, int64 (..., 5), nearest first, and their shares, which sum to 1.
    """
    distances = torch.cdist(ab.float().reshape(-1, 2), ab_centers().to(ab.device))
    nearest, bins = distances.topk(NEIGHBORS, largest=False)
    shares = torch.softmax(-(nearest**2) / (2 * SIGMA**2), dim=1)
    return bins.view(*ab.shape[:-1], NEIGHBORS), shares.view(*ab.shape[:-1], NEIGHBORS)


def histogram(ab: Tensor) -> Tensor:
    """Share of every bin in colors (N, 2), as (313,), with soft encoding."""
    bins, shares = soft_encode(ab)
    total = torch.zeros(len(ab_centers()), device=ab.device)
    return total.index_add_(0, bins.flatten(), shares.flatten()) / len(ab)


def rebalancing(prior: Tensor) -> Tensor:
    """Weight of every bin: 1 / (half its share, half uniform), with a mean of 1 over the colors.

    The uniform half goes to the bins that occur. The others weigh 0 (Zhang et al. 2016, section
    2.2, and their released PriorFactor).
    """
    occurs = prior > 0
    mixed = (1 - UNIFORM) * prior / prior.sum() + UNIFORM * occurs / occurs.sum()
    weights = torch.where(occurs, 1 / mixed, 0)
    return weights / (weights * prior / prior.sum()).sum()


def annealed_mean(logits: Tensor) -> Tensor:
    """Colors (B, 2, h, w) of logits (B, 313, h, w): the mean of the sharpened distribution."""
    shares = (logits.float() / TEMPERATURE).softmax(dim=1)
    return torch.einsum("bqhw,qc->bchw", shares, ab_centers().to(logits.device))


def class_weights(images: LabeledImages, recipe: Recipe) -> Tensor:
    """Rebalancing weights of a set of images, (313,), from one pixel in sixteen of 2,000 crops."""

    def crop(image: Tensor, label: int) -> Tensor:
        return random_crop(image, recipe)

    stream = Stream(images.images, images.labels, 0, crop, IMAGES)
    crops = torch.stack([stream[i] for i in range(min(IMAGES, len(images.labels)))])
    total = torch.zeros(len(ab_centers()))
    for part in crops[:, :, ::4, ::4].split(200):
        ab = rgb_to_lab(to_unit_range(part))[:, 1:]
        total += histogram(ab.movedim(1, -1).reshape(-1, 2))
    return rebalancing(total / total.sum())


def color_loss(logits: Tensor, ab: Tensor, weights: Tensor, mask: Tensor | None = None) -> Tensor:
    """Class-rebalanced cross-entropy with the soft encoding of the true colors.

    Every pixel has the weight of its nearest bin; gray images have none.

    Args:
        logits: (B, 313, h, w).
        ab: the true colors, (B, 2, h, w).
        weights: of the bins, (313,).
        mask: weight of every position, (h, w); 1 if not given.
    """
    bins, shares = soft_encode(ab.movedim(1, -1))
    log = logits.float().log_softmax(dim=1).movedim(1, -1)
    entropy = -(log.gather(-1, bins) * shares).sum(-1)
    weight = _color_weight(ab, bins, weights, mask)
    return (weight * entropy).sum() / weight.sum().clamp(min=1e-6)


def _color_weight(ab: Tensor, bins: Tensor, weights: Tensor, mask: Tensor | None) -> Tensor:
    """Weight of every position, (B, h, w): that of its nearest bin; 0 in gray images."""
    colored = (ab.abs() > GRAY).flatten(1).any(dim=1)
    weight = weights[bins[..., 0]] * colored[:, None, None]
    return weight if mask is None else weight * mask


def color_scores(logits: Tensor, ab: Tensor, weights: Tensor, mask: Tensor | None = None) -> Scores:
    """Cross-entropy of each image's colors: of the network, and of the best constant shares.

    The arguments are those of `color_loss`. A gray image has 0 for both.
    """
    bins, shares = soft_encode(ab.movedim(1, -1))
    return _entropies(logits, bins, shares, _color_weight(ab, bins, weights, mask))


def lightness_scores(logits: Tensor, lab: Tensor, mask: Tensor | None = None) -> Scores:
    """Cross-entropy of each image's lightness: of the network, and of the best constant shares.

    Args:
        logits: (B, 100, h, w).
        lab: the true image, (B, 3, h, w).
        mask: weight of every position, (h, w); 1 if not given.
    """
    bins = lightness_bins(lab)[..., None]
    ones = torch.ones_like(bins, dtype=torch.float32)
    weight = ones[..., 0] if mask is None else ones[..., 0] * mask
    return _entropies(logits, bins, ones, weight)


def _entropies(logits: Tensor, bins: Tensor, shares: Tensor, weight: Tensor) -> Scores:
    """Cross-entropy of each image: of the network, and of the batch's best constant shares.

    Args:
        logits: (B, bins, h, w).
        bins: of every position, int64 (B, h, w, n).
        shares: of these bins, (B, h, w, n).
        weight: of every position, (B, h, w).
    """
    weight = weight / weight.sum((1, 2), keepdim=True).clamp(min=1e-6)
    constant = torch.zeros(logits.shape[1], device=logits.device)
    constant.index_add_(0, bins.flatten(), (shares * weight[..., None]).flatten())
    constant_log = (constant / constant.sum().clamp(min=1e-6)).clamp(min=1e-12).log()
    log = logits.float().log_softmax(dim=1).movedim(1, -1)
    answers = (log.gather(-1, bins), constant_log[bins])
    values, trivial = (-((answer * shares).sum(-1) * weight).sum((1, 2)) for answer in answers)
    return values, trivial


def lightness_bins(lab: Tensor) -> Tensor:
    """Bin of L of every pixel of Lab (B, 3, h, w), int64 (B, h, w) in 0..99."""
    return (lab[:, 0] * LIGHTNESSES / 100).long().clamp(0, LIGHTNESSES - 1)


def mean_lightness(logits: Tensor) -> Tensor:
    """L in 0..100, (B, 1, h, w), of logits (B, 100, h, w): the mean of the distribution."""
    centers = (torch.arange(LIGHTNESSES, device=logits.device) + 0.5) * 100 / LIGHTNESSES
    return torch.einsum("bqhw,q->bhw", logits.float().softmax(dim=1), centers)[:, None]
