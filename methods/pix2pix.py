"""pix2pix: color a gray image so that a discriminator, which sees both, believes it.

What was kept of the paper and its released colorization model: L / 50 - 1 in, ab / 110 out; the
only noise is dropout; the discriminator judges patches of gray and color together; the generator
adds 100 L1 to the adversarial loss, the discriminator's loss is halved (sections 3.1 to 3.3). What
changed: the suite's backbone is the way down and a decoder that reads every stage the way up, so
what the U-Net concatenates is added; dropout is at the bottom alone; the discriminator has half the
width and sees patches of 34 pixels. How this transfers was never published.
"""

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.data.color import lab_to_rgb, rgb_to_lab
from bench.data.transforms import to_unit_range
from bench.training.adversarial import PatchDiscriminator, adversarial_loss, diversity
from bench.training.context import Context
from bench.training.heads import Decoder
from bench.training.pretext import PretextTask

L1_WEIGHT = 100.0  # lambda, section 3.1
DROPOUT = 0.5  # section 6.1.1
SCALE = torch.tensor([50.0, 110.0, 110.0]).view(3, 1, 1)  # released colorization_model.py
SHIFT = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)


class Pix2Pix(PretextTask):
    """Conditional adversarial colorization on the suite's backbone."""

    reference: ClassVar[str] = "Isola et al. 2017, https://arxiv.org/abs/1611.07004"
    sees: ClassVar[tuple[str, ...]] = ("l",)

    def build(self, context: Context) -> None:
        """Add the way up, and the discriminator."""
        super().build(context)
        self.decoder = Decoder(self.encoder.channels, self.encoder.strides, 2, 1)
        self.discriminator = PatchDiscriminator(3, 2, nn.BatchNorm2d)
        self.made = torch.empty(0)

    def players(self) -> dict[str, Iterable[nn.Parameter]]:
        """The generator moves first; the discriminator then judges what it made."""
        generator = [*self.encoder.parameters(), *self.decoder.parameters()]
        return {"generator": generator, "discriminator": self.discriminator.parameters()}

    def loss(self, batch: Tensor, player: str) -> Tensor:
        """The player's loss; `batch` holds crops, uint8 (B, 3, H, H)."""
        rgb = to_unit_range(batch)
        real = rgb_to_lab(rgb) / SCALE.to(rgb.device) - SHIFT.to(rgb.device)
        if player == "discriminator":
            verdicts = self.discriminator(real), self.discriminator(self.made)
            return (adversarial_loss(verdicts[0], True) + adversarial_loss(verdicts[1], False)) / 2
        ab = self._paint(rgb)
        made = torch.cat([real[:, :1], ab], dim=1)
        self.made = made.detach()
        l1 = (ab - real[:, 1:]).abs().mean()
        self.logged["l1"] = l1.detach()
        self.logged["diversity"] = diversity(ab, real[:, 1:])
        return adversarial_loss(self.discriminator(made), True) + L1_WEIGHT * l1

    def _paint(self, rgb: Tensor) -> Tensor:
        *fine, deep = self.encoder(rgb)
        ab: Tensor = self.decoder([*fine, F.dropout(deep, DROPOUT)], rgb.shape[2:])
        return ab.float().tanh()

    def samples(self, batch: Tensor) -> Tensor:
        """Rows: what the network saw, what it painted, the truth."""
        rgb = to_unit_range(batch)
        lightness, ab = rgb_to_lab(rgb)[:, :1], self._paint(rgb) * 110
        gray = lab_to_rgb(torch.cat([lightness, torch.zeros_like(ab)], dim=1))
        return torch.stack([gray, lab_to_rgb(torch.cat([lightness, ab], dim=1)), rgb])
