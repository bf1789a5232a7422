"""Split-brain autoencoder: half of the network predicts color from lightness, half the reverse.

What was kept of the paper: two disjoint encoders of half the width, one with L as input and one
with ab, whose features are concatenated. Both predict the other's channels by classification
(section 3.2, the variant that the authors released). What is ours: ab is classified as colorization
does, in its 313 bins with rebalancing and without gray images, and L in 100 bins.

What changed: the suite's backbone takes AlexNet's place. Decoders that read every stage from stride
4 on take that of its fully connected layers.
"""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.data.color import lab_to_rgb, rgb_to_lab
from bench.data.transforms import to_unit_range
from bench.training.context import Context
from bench.training.parts import color_bins
from bench.training.parts.heads import Decoder
from bench.training.pretext import PretextTask
from bench.training.pretext_score import Measure, Scores, total

STRIDE = 4  # of the predictions, in pixels; as colorization


class SplitBrain(PretextTask):
    """Cross-channel prediction with two half-width backbones."""

    reference: ClassVar[str] = "Zhang et al. 2017, https://arxiv.org/abs/1611.09842"
    version: ClassVar[int] = 1
    measure = Measure("cross-entropy", "the best constant")
    inputs: ClassVar[tuple[str, ...]] = ("L", "ab")
    backbones: ClassVar[str] = "convolutional"  # others have no half width

    def build(self, context: Context) -> None:
        """Add a decoder to each half, and estimate how rare each color is."""
        super().build(context)
        channels = self.encoder.branch_channels
        strides = self.encoder.strides
        self.color = Decoder(channels, strides, len(color_bins.ab_centers()), STRIDE)
        self.lightness = Decoder(channels, strides, color_bins.LIGHTNESSES, STRIDE)
        self.weights: Tensor
        self.register_buffer("weights", color_bins.class_weights(context.images, self.recipe))

    def loss(self, batch: Tensor) -> Tensor:
        """Sum of both cross-entropies; `batch` contains crops, uint8 (B, 3, H, H)."""
        rgb = to_unit_range(batch)
        lab = rgb_to_lab(rgb)[:, :, ::STRIDE, ::STRIDE]
        color_logits, lightness_logits = self._predict(rgb)
        labels = color_bins.lightness_bins(lab)
        loss_color = color_bins.color_loss(color_logits, lab[:, 1:], self.weights)
        loss_lightness = F.cross_entropy(lightness_logits.float(), labels)
        self.log("loss_color", loss_color)
        self.log("loss_lightness", loss_lightness)
        return loss_color + loss_lightness

    def score(self, batch: Tensor) -> Scores:
        """Sum of both cross-entropies, or that of the batch's shares for every pixel."""
        rgb = to_unit_range(batch)
        lab = rgb_to_lab(rgb)[:, :, ::STRIDE, ::STRIDE]
        color_logits, lightness_logits = self._predict(rgb)
        color = color_bins.color_scores(color_logits, lab[:, 1:], self.weights)
        lightness = color_bins.lightness_scores(lightness_logits, lab)
        return total([color, lightness])

    def _predict(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the colors, from lightness, and of the lightness, from colors."""
        lightness_maps, color_maps = self.encoder.forward_branches(rgb)
        size = rgb.shape[2:]
        return self.color(lightness_maps, size), self.lightness(color_maps, size)

    def visualize(self, batch: Tensor) -> Tensor:
        """Rows: L with predicted colors, colors with predicted L, the original."""
        rgb = to_unit_range(batch)
        lab = rgb_to_lab(rgb)
        color_logits, lightness_logits = self._predict(rgb)
        ab = _enlarge(color_bins.annealed_mean(color_logits), rgb)
        lightness = _enlarge(color_bins.mean_lightness(lightness_logits), rgb)
        from_lightness = torch.cat([lab[:, :1], ab], 1)
        from_color = torch.cat([lightness, lab[:, 1:]], 1)
        return torch.stack([lab_to_rgb(from_lightness), lab_to_rgb(from_color), rgb])


def _enlarge(small: Tensor, rgb: Tensor) -> Tensor:
    """Resize predictions to the size of the images."""
    return F.interpolate(small, size=rgb.shape[2:], mode="bilinear")
