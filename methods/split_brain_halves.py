"""Split-brain in space: the picture is cut along its diagonal, each side predicts the other.

The cut is ours, after the cross-channel one of the paper: two disjoint encoders of half the width,
one seeing what lies above the diagonal and one what lies below (the rest is 0), features
concatenated, at transfer too. From its own side each predicts, at every second pixel of the other
side, the colour in the 313 bins of colorization and L in 100 bins, as the paper's channels do. What
lies far from the cut cannot be told from across it, so a pixel weighs exp(-distance / 4 pixels).
Decoders read every stage from stride 2 on: beyond the diagonal the fine stages see nothing.
"""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from bench import bins
from bench.encoder import side_mask
from bench.heads import Decoder
from bench.lab import lab_to_rgb, rgb_to_lab
from bench.method import Context
from bench.pretext import Pretext
from bench.views import unit

REACH = 4.0  # pixels along a row from the diagonal over which a prediction's weight falls to 1 / e
STRIDE = 2  # of the predictions, in pixels: half of colorization's, as so few are near the cut
OTHER = {"above": "below", "below": "above"}


class SplitBrainHalves(Pretext):
    """Cross-side prediction with two half-width backbones."""

    reference: ClassVar[str] = "after Zhang et al. 2017, https://arxiv.org/abs/1611.09842"
    sees: ClassVar[tuple[str, ...]] = ("above", "below")

    def build(self, context: Context) -> None:
        """Add a decoder to each half, and estimate how rare each colour is."""
        super().build(context)
        channels, strides = self.encoder.part_channels, self.encoder.strides
        self.split = [bins.LIGHTNESSES, len(bins.ab_centres())]
        self.heads = torch.nn.ModuleList(
            Decoder(channels, strides, sum(self.split), STRIDE) for _ in self.sees
        )
        self.weights: Tensor
        self.register_buffer("weights", bins.corpus_weights(context.corpus, self.recipe))

    def loss(self, batch: Tensor, player: str) -> Tensor:
        """Sum of the cross-entropies on both sides; `batch` holds crops, uint8 (B, 3, H, H)."""
        rgb = unit(batch)
        lab = rgb_to_lab(rgb)[:, :, ::STRIDE, ::STRIDE]
        truth, total = bins.lightness_bins(lab), rgb.new_zeros(())
        for side, (lightness, colour) in self._predict(rgb).items():
            mask = _weights(side, rgb)[::STRIDE, ::STRIDE]
            entropy = F.cross_entropy(lightness.float(), truth, reduction="none")
            total = total + (entropy * mask).sum() / (mask.sum() * len(rgb))
            total = total + bins.colour_loss(colour, lab[:, 1:], self.weights, mask)
        return total

    def _predict(self, rgb: Tensor) -> dict[str, tuple[Tensor, ...]]:
        """For each side the logits of L and of ab there, predicted from the other side."""
        maps = zip(self.sees, self.heads, self.encoder.by_part(rgb), strict=True)
        return {
            OTHER[sight]: head(part, rgb.shape[2:]).split(self.split, 1)
            for sight, head, part in maps
        }

    def samples(self, batch: Tensor) -> Tensor:
        """Rows: the lower side predicted, the upper side predicted, the truth."""
        rgb, rows = unit(batch), []
        for side, (lightness, colour) in self._predict(rgb).items():
            lab = torch.cat([bins.mean_lightness(lightness), bins.annealed_mean(colour)], 1)
            painted = lab_to_rgb(F.interpolate(lab, size=rgb.shape[2:], mode="bilinear"))
            rows.append(torch.where(side_mask(side, rgb) > 0, painted, rgb))
        return torch.stack([*rows, rgb])


def _weights(side: str, rgb: Tensor) -> Tensor:
    """How much a prediction at each pixel of a square crop's side counts, (H, H)."""
    at = torch.arange(rgb.shape[-1], device=rgb.device)
    return side_mask(side, rgb) * torch.exp(-(at[:, None] - at).abs() / REACH)
