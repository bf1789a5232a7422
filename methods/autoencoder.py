"""Denoising autoencoder: the picture itself, from a copy with pixels knocked out.

What was kept: a random half of the pixels is masked (Vincent et al. 2008, section 3; they try 0 to
50 %), the whole clean picture is reconstructed through a bottleneck, the squared error is
minimised. What changed: the suite's backbone is the encoder, its last stage the bottleneck, and a
convolutional decoder without skip connections takes the place of tied weights.
"""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.heads import Decoder
from bench.method import Context
from bench.pretext import Pretext
from bench.views import unit

MASKED = 0.5  # share of the pixels that become mid-gray


class Autoencoder(Pretext):
    """Masking-noise autoencoder on the suite's backbone."""

    reference: ClassVar[str] = "Vincent et al. 2008, https://doi.org/10.1145/1390156.1390294"

    def build(self, context: Context) -> None:
        """Add a decoder of the last stage."""
        super().build(context)
        self.decoder = Decoder(self.encoder.channels[-1:], self.encoder.strides[-1:], 3, 1)

    def loss(self, batch: Tensor, player: str) -> Tensor:
        """Mean squared error, pixels in [0, 1]; `batch` holds crops, uint8 (B, 3, H, H)."""
        clean = unit(batch)
        made = self._reconstruct(_mask(clean)).float()
        self.monitors["l1"] = (made - clean).abs().mean()
        return F.mse_loss(made, clean)

    def _reconstruct(self, noisy: Tensor) -> Tensor:
        picture: Tensor = self.decoder(self.encoder(noisy)[-1:], noisy.shape[2:])
        return picture.sigmoid()

    def samples(self, batch: Tensor) -> Tensor:
        """Rows: the masked picture, its reconstruction, the truth."""
        clean = unit(batch)
        noisy = _mask(clean)
        return torch.stack([noisy, self._reconstruct(noisy), clean])


def _mask(clean: Tensor) -> Tensor:
    keep = torch.rand_like(clean[:, :1]) >= MASKED
    return torch.where(keep, clean, 0.5)
