"""Denoising autoencoder: the image itself, from a copy with parts of it knocked out.

What was kept: components of the input are masked and the whole clean image is reconstructed
(Vincent et al. 2008, section 2.3). What changed: each component is masked on its own, with
probability one half, where they mask a fixed share, 0 to 50 %; a component is the lightness, or the
color, of a cell of 8 x 8 pixels, as a single pixel or one of R, G and B only repeats its
neighbors; the error is squared, not a cross-entropy; the suite's backbone is the encoder, and a
convolutional decoder that reads every stage takes the place of tied weights. No bottleneck is
needed: what is masked cannot be copied.
"""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.data.color import lab_to_rgb, rgb_to_lab
from bench.data.transforms import to_unit_range
from bench.training.context import Context
from bench.training.heads import Decoder
from bench.training.pretext import PretextTask

MASKED = 0.5  # probability of a cell to lose its L, and again to lose its ab
CELL = 8  # pixels a side; ours, see docs/design.md
EMPTY = (50.0, 0.0, 0.0)  # Lab of what is masked: mid-gray


class Autoencoder(PretextTask):
    """Masking-noise autoencoder on the suite's backbone."""

    reference: ClassVar[str] = "Vincent et al. 2008, https://doi.org/10.1145/1390156.1390294"

    def build(self, context: Context) -> None:
        """Add a decoder to the image's own grid."""
        super().build(context)
        self.decoder = Decoder(self.encoder.channels, self.encoder.strides, 3, 1)

    def loss(self, batch: Tensor, player: str) -> Tensor:
        """Mean squared error, pixels in [0, 1]; `batch` holds crops, uint8 (B, 3, H, H)."""
        clean = to_unit_range(batch)
        made = self._reconstruct(mask(clean)).float()
        self.logged["l1"] = (made - clean).abs().mean()
        return F.mse_loss(made, clean)

    def _reconstruct(self, noisy: Tensor) -> Tensor:
        image: Tensor = self.decoder(self.encoder(noisy), noisy.shape[2:])
        return image.sigmoid()

    def samples(self, batch: Tensor) -> Tensor:
        """Rows: the masked image, its reconstruction, the truth."""
        clean = to_unit_range(batch)
        noisy = mask(clean)
        return torch.stack([noisy, self._reconstruct(noisy), clean])


def mask(clean: Tensor) -> Tensor:
    """Knock out the lightness of some cells and the color of others, RGB (B, 3, H, W)."""
    lab = rgb_to_lab(clean)
    size = lab.shape[2:]
    cells = [-(-side // CELL) for side in size]
    keep = torch.rand(len(lab), 2, *cells, device=lab.device) >= MASKED
    keep = keep.repeat_interleave(CELL, 2).repeat_interleave(CELL, 3)[:, :, : size[0], : size[1]]
    empty = lab.new_tensor(EMPTY).view(3, 1, 1)
    return lab_to_rgb(torch.where(keep[:, [0, 1, 1]], lab, empty))
