"""Denoising autoencoder: reconstruct the image from a copy with masked parts.

What was kept: components of the input are masked, and the whole clean image is reconstructed
(Vincent et al. 2008, section 2.3).

What changed: each component is masked on its own with probability one half, where the paper masks a
fixed share, 0 to 50%. A component is the lightness, or the color, of a block of 8 x 8 pixels, as a
single pixel or channel only repeats its neighbors. The error is squared, not a cross-entropy. The
suite's backbone is the encoder. A convolutional decoder that reads every stage takes the place of
tied weights. It needs no bottleneck: what is masked cannot be copied.
"""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.data.color import lab_to_rgb, rgb_to_lab
from bench.data.transforms import to_unit_range
from bench.training.context import Context
from bench.training.parts.heads import Decoder
from bench.training.pretext import PretextTask
from bench.training.pretext_score import Measure, Scores, squared_errors

MASKED = 0.5  # probability of a block to lose its L, and again to lose its ab
BLOCK = 8  # pixels a side; ours, see docs/recipes.md
EMPTY = (50.0, 0.0, 0.0)  # Lab of what is masked: mid-gray


class Autoencoder(PretextTask):
    """Masking-noise autoencoder on the suite's backbone."""

    reference: ClassVar[str] = "Vincent et al. 2008, https://doi.org/10.1145/1390156.1390294"
    version: ClassVar[int] = 1
    measure = Measure("squared error", "the mean image")

    def build(self, context: Context) -> None:
        """Add a decoder to the image's own grid."""
        super().build(context)
        self.decoder = Decoder(self.encoder.channels, self.encoder.strides, 3, 1)

    def loss(self, batch: Tensor) -> Tensor:
        """Mean squared error, pixels in [0, 1]; `batch` contains crops, uint8 (B, 3, H, H)."""
        clean = to_unit_range(batch)
        reconstructed = self._reconstruct(mask(clean)).float()
        self.log("l1", (reconstructed - clean).abs().mean())
        return F.mse_loss(reconstructed, clean)

    def score(self, batch: Tensor) -> Scores:
        """Squared error of the image from its masked copy, or of the mean of the batch's images."""
        clean = to_unit_range(batch)
        return squared_errors(self._reconstruct(mask(clean)), clean.mean(0), clean)

    def _reconstruct(self, noisy: Tensor) -> Tensor:
        image: Tensor = self.decoder(self.encoder(noisy), noisy.shape[2:])
        return image.sigmoid()

    def visualize(self, batch: Tensor) -> Tensor:
        """Rows: the masked image, its reconstruction, the original."""
        clean = to_unit_range(batch)
        noisy = mask(clean)
        return torch.stack([noisy, self._reconstruct(noisy), clean])


def mask(clean: Tensor) -> Tensor:
    """Mask the lightness of some blocks and the color of others, RGB (B, 3, H, W)."""
    lab = rgb_to_lab(clean)
    height, width = lab.shape[2:]
    blocks = [-(-side // BLOCK) for side in (height, width)]
    kept = torch.rand(len(lab), 2, *blocks, device=lab.device) >= MASKED
    kept = kept.repeat_interleave(BLOCK, 2).repeat_interleave(BLOCK, 3)[:, :, :height, :width]
    empty = lab.new_tensor(EMPTY).view(3, 1, 1)
    return lab_to_rgb(torch.where(kept[:, [0, 1, 1]], lab, empty))
