"""Colorization: which colors had this gray image?

What was kept of the paper: the network sees L alone. It classifies the color of every position into
313 bins, with soft targets. Rare colors weigh more, gray images nothing (sections 2.1 and 2.2,
released layers). Soft targets have 5 neighbors as in the paper, not the released layer's 10.
Targets are every fourth pixel, not averages.

What changed: the suite's backbone takes AlexNet's place. A decoder that reads every stage from
stride 4 on takes that of fc6 to fc8. The colors' shares are those of 2,000 pretraining images, not
of ImageNet. A batch's weights are divided by their mean.
"""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.data.color import lab_to_rgb, rgb_to_lab
from bench.data.transforms import to_unit_range
from bench.training.context import Context
from bench.training.parts.color_bins import (
    ab_centers,
    annealed_mean,
    class_weights,
    color_loss,
    color_scores,
)
from bench.training.parts.heads import Decoder
from bench.training.pretext import PretextTask
from bench.training.pretext_score import Measure, Scores

STRIDE = 4  # of the predicted colors, in pixels; released VGG net


class Colorization(PretextTask):
    """Colorful image colorization on the suite's backbone."""

    reference: ClassVar[str] = "Zhang et al. 2016, https://arxiv.org/abs/1603.08511"
    version: ClassVar[int] = 1
    measure = Measure("cross-entropy", "the best constant")
    inputs: ClassVar[tuple[str, ...]] = ("L",)

    def build(self, context: Context) -> None:
        """Add a decoder to the color bins, and estimate how rare each bin is."""
        super().build(context)
        encoder = self.encoder
        self.head = Decoder(encoder.channels, encoder.strides, len(ab_centers()), STRIDE)
        self.weights: Tensor
        self.register_buffer("weights", class_weights(context.images, self.recipe))

    def loss(self, batch: Tensor) -> Tensor:
        """Rebalanced cross-entropy of the colors; `batch` contains crops, uint8 (B, 3, H, H)."""
        rgb = to_unit_range(batch)
        ab = rgb_to_lab(rgb)[:, 1:, ::STRIDE, ::STRIDE]
        logits = self.head(self.encoder(rgb), rgb.shape[2:])
        self.log("ab_error", (annealed_mean(logits.detach()) - ab).abs().mean())
        return color_loss(logits, ab, self.weights)

    def score(self, batch: Tensor) -> Scores:
        """Cross-entropy of the colors, or of the shares of the batch's colors for every pixel."""
        rgb = to_unit_range(batch)
        ab = rgb_to_lab(rgb)[:, 1:, ::STRIDE, ::STRIDE]
        logits = self.head(self.encoder(rgb), rgb.shape[2:])
        return color_scores(logits, ab, self.weights)

    def visualize(self, batch: Tensor) -> Tensor:
        """Rows: the gray image, the predicted colors, the original."""
        rgb = to_unit_range(batch)
        lightness = rgb_to_lab(rgb)[:, :1]
        small = annealed_mean(self.head(self.encoder(rgb), rgb.shape[2:]))
        ab = F.interpolate(small, size=rgb.shape[2:], mode="bilinear")
        colored = lab_to_rgb(torch.cat([lightness, ab], dim=1))
        gray = lab_to_rgb(torch.cat([lightness, torch.zeros_like(ab)], dim=1))
        return torch.stack([gray, colored, rgb])
