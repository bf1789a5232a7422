"""Split-brain in space: the image is cut along its diagonal, and each side predicts the other.

The cut is ours, after the cross-channel one of the paper: two disjoint encoders of half the width.
One has what is above the diagonal as input, one what is below, and 0 elsewhere, at transfer too.
Their features are concatenated.

From its own side, each predicts every second pixel of the other side: the color in the 313 bins of
colorization and L in 100 bins, as the paper's channels do. What is far from the cut cannot be known
from across it. So a pixel weighs exp(-distance / 4 pixels), and nothing beyond 12. Decoders read
every stage from stride 2 on.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.data.color import lab_to_rgb, rgb_to_lab
from bench.data.transforms import to_unit_range
from bench.encoders.encoder import side_mask
from bench.training.context import Context
from bench.training.parts import color_bins
from bench.training.parts.heads import Decoder
from bench.training.pretext import PretextTask
from bench.training.pretext_score import Measure, Scores, total

# All ours; docs/recipes.md lists what was tried.
REACH = 4.0  # pixels along a row from the diagonal over which a prediction's weight falls to 1 / e
FAR = 12  # pixels from the diagonal: the last that are predicted, weight 0.05
STRIDE = 2  # of the predictions, in pixels: half of colorization's, as so few are near the cut
WIDTH = 64  # channels between a decoder and its classifier
OPPOSITE = {"above_diagonal": "below_diagonal", "below_diagonal": "above_diagonal"}


class SplitBrainHalves(PretextTask):
    """Cross-side prediction with two half-width backbones."""

    reference: ClassVar[str] = "after Zhang et al. 2017, https://arxiv.org/abs/1611.09842"
    version: ClassVar[int] = 1
    measure = Measure("cross-entropy", "the best constant")
    inputs: ClassVar[tuple[str, ...]] = ("above_diagonal", "below_diagonal")
    backbones: ClassVar[str] = "convolutional"  # others have no half width

    def build(self, context: Context) -> None:
        """Add a decoder and a classifier to each half, and estimate how rare each color is."""
        super().build(context)
        channels = self.encoder.branch_channels
        strides = self.encoder.strides
        self.split = [color_bins.LIGHTNESSES, len(color_bins.ab_centers())]
        self.decoders = nn.ModuleList(Decoder(channels, strides, WIDTH, STRIDE) for _ in OPPOSITE)
        self.classifiers = nn.ModuleList(nn.Conv2d(WIDTH, sum(self.split), 1) for _ in OPPOSITE)
        self.weights: Tensor
        self.register_buffer("weights", color_bins.class_weights(context.images, self.recipe))

    def loss(self, batch: Tensor) -> Tensor:
        """Sum of the cross-entropies on both sides; `batch` contains crops, uint8 (B, 3, H, H)."""
        rgb = to_unit_range(batch)
        lab = rgb_to_lab(rgb)[:, :, ::STRIDE, ::STRIDE]
        total = rgb.new_zeros(())
        for side, features, classifier in self._decode(rgb):
            rows, columns, weight = near_the_cut(side, rgb)
            logits = classifier(features[:, :, rows, columns, None])
            lightness, color = logits.split(self.split, 1)
            targets = lab[:, :, rows, columns, None]
            labels = color_bins.lightness_bins(targets)
            entropy = F.cross_entropy(lightness.float(), labels, reduction="none")
            total = total + (entropy * weight).sum() / (weight.sum() * len(rgb))
            total = total + color_bins.color_loss(color, targets[:, 1:], self.weights, weight)
        return total

    def score(self, batch: Tensor) -> Scores:
        """Sum of the cross-entropies, or that of the batch's shares near the cut, side by side."""
        rgb = to_unit_range(batch)
        lab = rgb_to_lab(rgb)[:, :, ::STRIDE, ::STRIDE]
        scores = []
        for side, features, classifier in self._decode(rgb):
            rows, columns, weight = near_the_cut(side, rgb)
            logits = classifier(features[:, :, rows, columns, None])
            lightness, color = logits.split(self.split, 1)
            targets = lab[:, :, rows, columns, None]
            scores.append(color_bins.lightness_scores(lightness, targets, weight))
            scores.append(color_bins.color_scores(color, targets[:, 1:], self.weights, weight))
        return total(scores)

    def _decode(self, rgb: Tensor) -> list[tuple[str, Tensor, nn.Module]]:
        """Each side, its features (B, WIDTH, h, w) from the opposite side, and their classifier."""
        branches = self.encoder.forward_branches(rgb)
        sides = []
        for k, side in enumerate(self.inputs):
            features = self.decoders[k](branches[k], rgb.shape[2:]).relu()
            sides.append((OPPOSITE[side], features, self.classifiers[k]))
        return sides

    def visualize(self, batch: Tensor) -> Tensor:
        """Rows: the lower side predicted, the upper side predicted, the original."""
        rgb = to_unit_range(batch)
        rows = []
        for side, features, classifier in self._decode(rgb):
            lightness, color = classifier(features).split(self.split, 1)
            predictions = [color_bins.mean_lightness(lightness), color_bins.annealed_mean(color)]
            lab = F.interpolate(torch.cat(predictions, 1), size=rgb.shape[2:], mode="bilinear")
            rows.append(torch.where(side_mask(side, rgb) > 0, lab_to_rgb(lab), rgb))
        return torch.stack([*rows, rgb])


def near_the_cut(side: str, rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, columns (of the grid of predictions) and weights (n, 1) near a square crop's cut."""
    position = torch.arange(rgb.shape[-1], device=rgb.device)
    distance = (position[:, None] - position).abs()
    weight = side_mask(side, rgb) * torch.exp(-distance / REACH) * (distance <= FAR)
    weight = weight[::STRIDE, ::STRIDE]
    rows, columns = weight.nonzero(as_tuple=True)
    return rows, columns, weight[rows, columns, None]
