"""pix2pix: color a gray image so that a discriminator, which sees both, takes it for real.

What was kept of the paper and its released colorization model: L / 50 - 1 in, ab / 110 out. The
only noise is dropout. The discriminator sees patches of gray and color together. The generator adds
100 L1 to the adversarial loss, and the discriminator's loss is halved (sections 3.1 to 3.3).

What changed: the suite's backbone is the downsampling half of the U-Net, and a decoder that reads
every stage the upsampling half. What the U-Net concatenates is added. Dropout is at the bottom
alone. The discriminator has half the width and sees patches of 34 pixels. How this transfers was
never published.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.data.color import lab_to_rgb, rgb_to_lab
from bench.data.transforms import to_unit_range
from bench.training.context import Context
from bench.training.parts.adversarial import (
    PatchDiscriminator,
    adversarial_loss,
    discriminator_loss,
    diversity,
)
from bench.training.parts.heads import Decoder
from bench.training.pretext import AdversarialPretextTask
from bench.training.pretext_score import Measure, Scores, swapped_errors

L1_WEIGHT = 100.0  # lambda, section 3.1
DROPOUT = 0.5  # section 6.1.1
SCALE = torch.tensor([50.0, 110.0, 110.0]).view(3, 1, 1)  # released colorization_model.py
SHIFT = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)


class Pix2Pix(AdversarialPretextTask):
    """Conditional adversarial colorization on the suite's backbone."""

    reference: ClassVar[str] = "Isola et al. 2017, https://arxiv.org/abs/1611.07004"
    version: ClassVar[int] = 1
    measure = Measure("color error", "another image")
    inputs: ClassVar[tuple[str, ...]] = ("L",)

    def build(self, context: Context) -> None:
        """Add the decoder and the discriminator."""
        super().build(context)
        self.decoder = Decoder(self.encoder.channels, self.encoder.strides, 2, 1)
        self.discriminator = PatchDiscriminator(3, 2, nn.BatchNorm2d)

    def generator_loss(self, batch: Tensor) -> Tensor:
        """Adversarial loss and 100 L1; `batch` contains crops, uint8 (B, 3, H, H)."""
        rgb = to_unit_range(batch)
        real = _scaled_lab(rgb)
        ab = self._predict_ab(rgb)
        fake = torch.cat([real[:, :1], ab], dim=1)
        self.fake = fake.detach()
        l1 = (ab - real[:, 1:]).abs().mean()
        self.log("l1", l1)
        self.log("diversity", diversity(ab, real[:, 1:]))
        return adversarial_loss(self.discriminator(fake), True) + L1_WEIGHT * l1

    def discriminator_loss(self, batch: Tensor) -> Tensor:
        """Loss of the discriminator on the batch and on the images of the generator's loss."""
        real = _scaled_lab(to_unit_range(batch))
        return discriminator_loss(self.discriminator(real), self.discriminator(self.fake))

    def score(self, batch: Tensor) -> Scores:
        """Absolute error of ab / 110, or of the colors predicted for other images of the batch.

        Not of the mean color: the adversary asks for vivid colors, which err more than gray ones.
        """
        rgb = to_unit_range(batch)
        return swapped_errors(self._predict_ab(rgb), _scaled_lab(rgb)[:, 1:])

    def _predict_ab(self, rgb: Tensor) -> Tensor:
        """Predicted ab / 110 of RGB images, (B, 2, H, W), from their L."""
        *fine, deep = self.encoder(rgb)
        ab: Tensor = self.decoder([*fine, F.dropout(deep, DROPOUT)], rgb.shape[2:])
        return ab.float().tanh()

    def visualize(self, batch: Tensor) -> Tensor:
        """Rows: the gray image, the predicted colors, the original."""
        rgb = to_unit_range(batch)
        lightness = rgb_to_lab(rgb)[:, :1]
        ab = self._predict_ab(rgb) * 110
        colored = lab_to_rgb(torch.cat([lightness, ab], dim=1))
        gray = lab_to_rgb(torch.cat([lightness, torch.zeros_like(ab)], dim=1))
        return torch.stack([gray, colored, rgb])


def _scaled_lab(rgb: Tensor) -> Tensor:
    """L / 50 - 1 and ab / 110 of RGB images, (B, 3, H, W)."""
    return rgb_to_lab(rgb) / SCALE.to(rgb.device) - SHIFT.to(rgb.device)
