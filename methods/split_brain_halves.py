"""Split-brain in space: the image is cut along its diagonal, each side predicts the other.

The cut is ours, after the cross-channel one of the paper: two disjoint encoders of half the width,
one seeing what lies above the diagonal and one what lies below (the rest is 0), features
concatenated, at transfer too. From its own side each predicts, at every second pixel of the other
side, the color in the 313 bins of colorization and L in 100 bins, as the paper's channels do. What
lies far from the cut cannot be told from across it, so a pixel weighs exp(-distance / 4 pixels),
and nothing beyond 12. Decoders read every stage from stride 2 on.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.data.color import lab_to_rgb, rgb_to_lab
from bench.data.transforms import to_unit_range
from bench.encoders.encoder import side_mask
from bench.training import color_bins
from bench.training.context import Context
from bench.training.heads import Decoder
from bench.training.pretext import PretextTask

# All ours; docs/design.md says what was tried.
REACH = 4.0  # pixels along a row from the diagonal over which a prediction's weight falls to 1 / e
FAR = 12  # pixels from the diagonal: the last that are predicted, weight 0.05
STRIDE = 2  # of the predictions, in pixels: half of colorization's, as so few are near the cut
WIDTH = 64  # channels between a decoder and its classifier
OTHER = {"above": "below", "below": "above"}


class SplitBrainHalves(PretextTask):
    """Cross-side prediction with two half-width backbones."""

    reference: ClassVar[str] = "after Zhang et al. 2017, https://arxiv.org/abs/1611.09842"
    sees: ClassVar[tuple[str, ...]] = ("above", "below")

    def build(self, context: Context) -> None:
        """Add a decoder and a classifier to each half, and estimate how rare each color is."""
        super().build(context)
        channels, strides = self.encoder.branch_channels, self.encoder.strides
        self.split = [color_bins.LIGHTNESSES, len(color_bins.ab_centers())]
        self.decoders = nn.ModuleList(Decoder(channels, strides, WIDTH, STRIDE) for _ in OTHER)
        self.classifiers = nn.ModuleList(nn.Conv2d(WIDTH, sum(self.split), 1) for _ in OTHER)
        self.weights: Tensor
        self.register_buffer("weights", color_bins.class_weights(context.corpus, self.recipe))

    def loss(self, batch: Tensor, player: str) -> Tensor:
        """Sum of the cross-entropies on both sides; `batch` holds crops, uint8 (B, 3, H, H)."""
        rgb = to_unit_range(batch)
        lab = rgb_to_lab(rgb)[:, :, ::STRIDE, ::STRIDE]
        total = rgb.new_zeros(())
        for side, features, classify in self._decode(rgb):
            rows, columns, weight = near_the_cut(side, rgb)
            lightness, color = classify(features[:, :, rows, columns, None]).split(self.split, 1)
            there = lab[:, :, rows, columns, None]
            truth = color_bins.lightness_bins(there)
            entropy = F.cross_entropy(lightness.float(), truth, reduction="none")
            total = total + (entropy * weight).sum() / (weight.sum() * len(rgb))
            total = total + color_bins.color_loss(color, there[:, 1:], self.weights, weight)
        return total

    def _decode(self, rgb: Tensor) -> list[tuple[str, Tensor, nn.Module]]:
        """Each side, what the other says of it, (B, WIDTH, h, w), and the classifier of that."""
        parts = zip(self.sees, self.encoder.forward_branches(rgb), self.decoders, strict=True)
        decoded = [(OTHER[s], decoder(maps, rgb.shape[2:]).relu()) for s, maps, decoder in parts]
        return [(*pair, c) for pair, c in zip(decoded, self.classifiers, strict=True)]

    def samples(self, batch: Tensor) -> Tensor:
        """Rows: the lower side predicted, the upper side predicted, the truth."""
        rgb, rows = to_unit_range(batch), []
        for side, features, classify in self._decode(rgb):
            lightness, color = classify(features).split(self.split, 1)
            lab = torch.cat([color_bins.mean_lightness(lightness), color_bins.annealed_mean(color)], 1)
            painted = lab_to_rgb(F.interpolate(lab, size=rgb.shape[2:], mode="bilinear"))
            rows.append(torch.where(side_mask(side, rgb) > 0, painted, rgb))
        return torch.stack([*rows, rgb])


def near_the_cut(side: str, rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, columns (of the grid of predictions) and weights (n, 1) near a square crop's cut."""
    at = torch.arange(rgb.shape[-1], device=rgb.device)
    distance = (at[:, None] - at).abs()
    weight = side_mask(side, rgb) * torch.exp(-distance / REACH) * (distance <= FAR)
    weight = weight[::STRIDE, ::STRIDE]
    rows, columns = weight.nonzero(as_tuple=True)
    return rows, columns, weight[rows, columns, None]
