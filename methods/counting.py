"""Counting: the features of an image, scaled down, are the sum of those of its four tiles.

What was kept of the paper: a network counts in 1,000 non-negative values. Those of an image at half
its size equal the sum over its 2 x 2 tiles. Those of another image differ from that sum by at least
M = 10 in squared distance, else all counts would become zero (section 3). Two thirds of the images
are gray, and the kernel that scales down is drawn anew, as its traces would give the answer away
(section 4).

What changed, as the authors published no code: the suite's backbone takes AlexNet's place, and a
global average and one linear layer that of its fully connected layers. The other image is the next
of the batch. One of three kernels is drawn for each image, of torch's: area, bilinear, bicubic.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.data.transforms import random_crop, to_gray, to_unit_range
from bench.training.context import Context
from bench.training.parts.heads import Classifier
from bench.training.pretext import PretextTask
from bench.training.pretext_score import Measure, Scores

COUNTS = 1000  # values of a counting vector
MARGIN = 10.0  # M, the squared distance from which on two images differ enough
GRAYED = 0.67  # share of images without color
DEVIATION = 0.005  # of the layer's weights at the start: distances begin near M, not far above
KERNELS = ("area", "bilinear", "bicubic")


class Counting(PretextTask):
    """Learning to count on the suite's backbone."""

    reference: ClassVar[str] = "ours, after Noroozi et al. 2017, https://arxiv.org/abs/1708.06734"
    version: ClassVar[int] = 1
    views_per_image: ClassVar[int] = 5
    measure = Measure("share of other images that fit less", "chance", higher_is_better=True)

    def build(self, context: Context) -> None:
        """Add the layer that counts."""
        super().build(context)
        self.head = Classifier(self.encoder.channels[-1], COUNTS)
        nn.init.normal_(self.head.linear.weight, std=DEVIATION)

    def transform(self, image: Tensor, label: int) -> Tensor:
        """A crop at half its size, then its four tiles, uint8 (5, 3, crop // 2, crop // 2)."""
        crop = random_crop(image, self.recipe)
        if torch.rand(()) < GRAYED:
            crop = to_gray(crop.float()).byte()
        return views(crop, KERNELS[int(torch.randint(len(KERNELS), ()))])

    def loss(self, batch: Tensor) -> Tensor:
        """The contrastive loss of the paper; `batch` is uint8 (B, 5, 3, h, h)."""
        whole, tiles = self._count(batch)
        equal, differ = terms(whole, tiles)
        self.log("distance", equal.mean())
        return (equal + differ).mean()

    def score(self, batch: Tensor) -> Scores:
        """For each image, the share of the others whose tiles' sum is farther than its own's."""
        whole, tiles = self._count(batch)
        distances = torch.cdist(whole, tiles)
        farther = (distances > distances.diagonal()[:, None]).float().sum(1)
        values = farther / max(1, len(batch) - 1)
        return values, torch.full_like(values, 0.5)

    def _count(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Counts of the images and the sums of their tiles' counts, (B, 1000) each."""
        features = self.encoder(to_unit_range(batch.flatten(0, 1)))[-1]
        counts = self.head(features).float().relu().unflatten(0, batch.shape[:2])
        return counts[:, 0], counts[:, 1:].sum(1)


def views(crop: Tensor, kernel: str) -> Tensor:
    """A crop scaled down by two, and its tiles row by row, uint8 (5, 3, side // 2, side // 2).

    Args:
        crop: uint8 (3, side, side).
        kernel: of `KERNELS`; torch's bilinear and bicubic ones average over what they skip.
    """
    side = crop.shape[-1] // 2
    crop = crop[:, : 2 * side, : 2 * side]
    smooth = {} if kernel == "area" else {"antialias": True}
    small = F.interpolate(crop[None].float(), (side, side), mode=kernel, **smooth)
    tiles = crop.unflatten(2, (2, side)).unflatten(1, (2, side)).permute(1, 3, 0, 2, 4)
    return torch.cat([small.round().clamp(0, 255).byte(), tiles.flatten(0, 1)])


def terms(whole: Tensor, tiles: Tensor) -> tuple[Tensor, Tensor]:
    """Both terms of the loss for each image, (B,) each (section 3.2).

    Args:
        whole: counts of the images scaled down, (B, C).
        tiles: sums of their tiles' counts, (B, C).

    Returns:
        The squared distance of an image from its tiles, and what the next image lacks of `MARGIN`.
    """
    equal = (whole - tiles).square().sum(1)
    other = (whole.roll(1, 0) - tiles).square().sum(1)
    return equal, (MARGIN - other).relu()
