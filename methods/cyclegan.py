"""CycleGAN: learn to color gray images, and to gray color ones, from unpaired images.

What was kept of the paper and its released code: two generators and two discriminators, least
squares losses, and an L1 cycle loss of weight 10 both ways. The discriminators have instance norm
and see generated images through a pool of the last 50 (section 4, image_pool.py).

What changed: the encoder and a decoder take the place of the gray -> color generator, four
convolutions that of the other. The discriminators have half the width. There is no identity loss,
as it needs as many channels on both sides. Gray is L / 50 - 1; color is that and ab / 110. The
first half of a batch is gray, the second colored, so that an even batch has no image in both.

A color image contains its gray one. A second generator that learned to copy it would make the cycle
of a color image the same as being told its colors. Nothing prevents that.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from bench.data.color import lab_to_rgb, rgb_to_lab
from bench.data.transforms import to_unit_range
from bench.training.context import Context
from bench.training.parts.adversarial import ImagePool, PatchDiscriminator, diversity
from bench.training.parts.heads import Decoder
from bench.training.pretext import AdversarialPretextTask
from bench.training.pretext_score import Measure, Scores, absolute_errors, total

CYCLE = 10.0  # lambda, section 5.1 (released: lambda_A, lambda_B)
CHANNELS = (1, 3)  # of gray and of color images


class CycleGan(AdversarialPretextTask):
    """Unpaired gray <-> color translation; the encoder sees gray."""

    reference: ClassVar[str] = "Zhu et al. 2017, https://arxiv.org/abs/1703.10593"
    version: ClassVar[int] = 1
    measure = Measure("cycle error", "the mean image")
    inputs: ClassVar[tuple[str, ...]] = ("L",)

    discriminator: nn.ModuleList

    def build(self, context: Context) -> None:
        """Add the decoder, the other generator, and a discriminator and a pool per domain."""
        super().build(context)
        self.decoder = Decoder(self.encoder.channels, self.encoder.strides, 3, 1)
        layers = [nn.Conv2d(3, 16, 7, 1, 3), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU()]
        layers += [nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 1, 7, 1, 3), nn.Tanh()]
        self.graying = nn.Sequential(*layers)
        self.discriminator = nn.ModuleList(
            PatchDiscriminator(channels, 2, nn.InstanceNorm2d) for channels in CHANNELS
        )
        crop = self.recipe.crop
        self.pools = nn.ModuleList(ImagePool((channels, crop, crop)) for channels in CHANNELS)

    def generator_loss(self, batch: Tensor) -> Tensor:
        """Adversarial and cycle losses; `batch` contains crops, uint8 (B, 3, H, H)."""
        gray, color = _domains(batch)
        colored = self._color(gray)
        grayed = self.graying(color).float()
        self.fakes = (grayed.detach(), colored.detach())
        cycle: Tensor = (self.graying(colored) - gray).abs().mean()
        cycle = cycle + (self._color(grayed) - color).abs().mean()
        self.log("cycle", cycle)
        self.log("diversity", diversity(colored[:, 1:], color[:, 1:]))
        gray_discriminator, color_discriminator = self.discriminator
        adversarial = _squared(gray_discriminator(grayed), 1)
        adversarial = adversarial + _squared(color_discriminator(colored), 1)
        return adversarial + CYCLE * cycle

    def discriminator_loss(self, batch: Tensor) -> Tensor:
        """Loss of both discriminators on the batch and on generated images from the pools."""
        fakes = [pool(fake) for pool, fake in zip(self.pools, self.fakes, strict=True)]
        losses = [
            _squared(discriminator(real), 1) + _squared(discriminator(fake), 0)
            for discriminator, real, fake in zip(
                self.discriminator, _domains(batch), fakes, strict=True
            )
        ]
        return torch.stack(losses).sum() / 2

    def score(self, batch: Tensor) -> Scores:
        """Sum of what both cycles lose, L1, or of the errors of the batch's mean images.

        To copy the gray image both ways would lose less. It is no answer, as nothing is colored.
        """
        color = _scaled_lab(batch)
        gray = color[:, :1]
        colored = self._color(gray)
        grayed = self.graying(color).float()
        gray_cycle = absolute_errors(self.graying(colored).float(), gray.mean(0), gray)
        color_cycle = absolute_errors(self._color(grayed), color.mean(0), color)
        return total([gray_cycle, color_cycle])

    def _color(self, gray: Tensor) -> Tensor:
        image: Tensor = self.decoder(self.encoder.branches[0](gray), gray.shape[2:])
        colored: Tensor = image.float().tanh()
        return colored

    def visualize(self, batch: Tensor) -> Tensor:
        """Rows: the gray image, colored by the generator, the original."""
        rgb = to_unit_range(batch)
        gray = rgb_to_lab(rgb)[:, :1]
        lightness, a, b = self._color(gray / 50 - 1).unbind(1)
        colored = torch.stack([lightness * 50 + 50, a * 110, b * 110], dim=1)
        plain = torch.cat([gray, torch.zeros_like(gray), torch.zeros_like(gray)], dim=1)
        return torch.stack([lab_to_rgb(plain), lab_to_rgb(colored), rgb])


def _domains(batch: Tensor) -> tuple[Tensor, Tensor]:
    """The first half of a batch as gray images, (n, 1, H, H), the second as color, (n, 3, H, H)."""
    images = _scaled_lab(batch)
    half = (len(batch) + 1) // 2
    return images[:half, :1], images[-half:]


def _scaled_lab(batch: Tensor) -> Tensor:
    """L / 50 - 1 and ab / 110 of crops, uint8 (B, 3, H, H), as (B, 3, H, H)."""
    lab = rgb_to_lab(to_unit_range(batch))
    return torch.cat([lab[:, :1] / 50 - 1, lab[:, 1:] / 110], dim=1)


def _squared(logits: Tensor, target: float) -> Tensor:
    error: Tensor = ((logits.float() - target) ** 2).mean()
    return error
