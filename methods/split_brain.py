"""Split-brain autoencoder: half of the network predicts color from lightness, half the reverse.

What was kept of the paper: two disjoint encoders of half the width, one seeing L and one ab, whose
features are concatenated; both predict the other's channels by classification (section 3.2, the
variant the authors released). What is ours: ab is classified as colorization does, in its 313 bins
with rare ones weighing more and gray images nothing, and L in 100 bins. What changed: the suite's
backbone takes AlexNet's place, and decoders that read every stage from stride 4 on take that of its
fully connected layers.
"""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.data.color import lab_to_rgb, rgb_to_lab
from bench.data.transforms import to_unit_range
from bench.training import color_bins
from bench.training.context import Context
from bench.training.heads import Decoder
from bench.training.pretext import PretextTask

STRIDE = 4  # of the predictions, in pixels; as colorization


class SplitBrain(PretextTask):
    """Cross-channel prediction with two half-width backbones."""

    reference: ClassVar[str] = "Zhang et al. 2017, https://arxiv.org/abs/1611.09842"
    sees: ClassVar[tuple[str, ...]] = ("l", "ab")

    def build(self, context: Context) -> None:
        """Add a decoder to each half, and estimate how rare each color is."""
        super().build(context)
        channels, strides = self.encoder.branch_channels, self.encoder.strides
        self.color = Decoder(channels, strides, len(color_bins.ab_centers()), STRIDE)
        self.lightness = Decoder(channels, strides, color_bins.LIGHTNESSES, STRIDE)
        self.weights: Tensor
        self.register_buffer("weights", color_bins.class_weights(context.corpus, self.recipe))

    def loss(self, batch: Tensor, player: str) -> Tensor:
        """Sum of both cross-entropies; `batch` holds crops, uint8 (B, 3, H, H)."""
        rgb = to_unit_range(batch)
        lab = rgb_to_lab(rgb)[:, :, ::STRIDE, ::STRIDE]
        color, lightness = self._predict(rgb)
        truth = color_bins.lightness_bins(lab)
        losses = {
            "loss_color": color_bins.color_loss(color, lab[:, 1:], self.weights),
            "loss_lightness": F.cross_entropy(lightness.float(), truth),
        }
        self.logged.update({name: loss.detach() for name, loss in losses.items()})
        return losses["loss_color"] + losses["loss_lightness"]

    def _predict(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        from_lightness, from_color = self.encoder.forward_branches(rgb)
        size = rgb.shape[2:]
        return self.color(from_lightness, size), self.lightness(from_color, size)

    def samples(self, batch: Tensor) -> Tensor:
        """Rows: L with predicted colors, colors with predicted L, the truth."""
        rgb = to_unit_range(batch)
        lab, (color, lightness) = rgb_to_lab(rgb), self._predict(rgb)
        ab, dim = (
            F.interpolate(x, size=rgb.shape[2:], mode="bilinear")
            for x in (color_bins.annealed_mean(color), color_bins.mean_lightness(lightness))
        )
        colored, lit = torch.cat([lab[:, :1], ab], 1), torch.cat([dim, lab[:, 1:]], 1)
        return torch.stack([lab_to_rgb(colored), lab_to_rgb(lit), rgb])
