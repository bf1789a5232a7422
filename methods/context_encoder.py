"""Context encoder: inpaint a square of the image from what surrounds it.

What was kept of the released inpainting network (train.lua; the paper's section 3): a square of
half the image's side is filled with one color. The squared error inside it weighs .999, a
discriminator that sees only the square .001. A border of 1/32 of the side that the hole leaves
visible weighs ten times in the error.

What changed: the square's position is random, as in the paper for features; for images it is the
center. Its color is the mean by which the backbone's inputs are normalized. The suite's backbone is
the encoder, its last stage the bottleneck. Images are in [0, 1]. The discriminator sees patches of
34 pixels and has the learning rate of the generator, where theirs has a tenth.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from bench.data.transforms import crop_squares, random_crop, to_unit_range
from bench.training.context import Context
from bench.training.parts.adversarial import (
    PatchDiscriminator,
    adversarial_loss,
    discriminator_loss,
    diversity,
)
from bench.training.parts.heads import Decoder
from bench.training.pretext import AdversarialPretextTask
from bench.training.pretext_score import Measure, Scores, squared_errors

ADVERSARIAL_WEIGHT = 0.001  # of the generator's loss; the error has the rest
BORDER_WEIGHT = 10.0  # released train.lua


class ContextEncoder(AdversarialPretextTask):
    """Inpainting on the suite's backbone."""

    reference: ClassVar[str] = "Pathak et al. 2016, https://arxiv.org/abs/1604.07379"
    version: ClassVar[int] = 1
    measure = Measure("squared error", "the mean color")

    def build(self, context: Context) -> None:
        """Add a decoder of the last stage, and the discriminator."""
        super().build(context)
        self.decoder = Decoder(self.encoder.channels[-1:], self.encoder.strides[-1:], 3, 1)
        self.discriminator = PatchDiscriminator(3, 2, nn.BatchNorm2d)
        self.hole = self.recipe.crop // 2
        self.border = max(1, self.recipe.crop // 32)

    def transform(self, image: Tensor, label: int) -> tuple[Tensor, Tensor]:
        """A random crop, uint8 (3, crop, crop), and the hole's upper left corner (2,)."""
        corner = torch.randint(0, self.recipe.crop - self.hole + 1, (2,))
        return random_crop(image, self.recipe), corner

    def generator_loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Weighted error and adversarial loss; `batch` contains crops and corners."""
        crops, corners = batch
        clean = to_unit_range(crops)
        real = crop_squares(clean, corners, self.hole)
        fake = crop_squares(self._inpaint(clean, corners), corners, self.hole)
        self.fake = fake.detach()
        inner = slice(self.border, -self.border)
        weight = torch.full_like(real[0, 0], BORDER_WEIGHT)
        weight[inner, inner] = 1
        error = (weight * (fake - real) ** 2).mean()
        self.log("l1", (self.fake - real)[:, :, inner, inner].abs().mean())
        self.log("diversity", diversity(fake, real))
        adversarial = adversarial_loss(self.discriminator(fake), True)
        return (1 - ADVERSARIAL_WEIGHT) * error + ADVERSARIAL_WEIGHT * adversarial

    def discriminator_loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Loss of the discriminator on the batch and on the squares of the generator's loss."""
        crops, corners = batch
        real = crop_squares(to_unit_range(crops), corners, self.hole)
        return discriminator_loss(self.discriminator(real), self.discriminator(self.fake))

    def score(self, batch: tuple[Tensor, Tensor]) -> Scores:
        """Squared error inside the hole, or of a hole filled with the mean color around it."""
        crops, corners = batch
        clean = to_unit_range(crops)
        first = corners + self.border
        side = self.hole - 2 * self.border
        hidden = crop_squares(clean, first, side)
        inpainted = crop_squares(self._inpaint(clean, corners), first, side)
        around = clean.sum((2, 3)) - hidden.sum((2, 3))
        mean = around / (clean[0, 0].numel() - side**2)
        return squared_errors(inpainted, mean[:, :, None, None], hidden)

    def _mask(self, clean: Tensor, corners: Tensor) -> Tensor:
        """Fill the hole, less its border, with the mean by which inputs are normalized."""
        side = torch.arange(clean.shape[-1], device=clean.device)
        first = corners + self.border
        last = corners + self.hole - self.border
        inside = (side >= first[:, :, None]) & (side < last[:, :, None])  # (B, 2, side)
        hidden = inside[:, None, 0, :, None] & inside[:, None, 1, None, :]
        return torch.where(hidden, self.encoder.mean, clean)

    def _inpaint(self, clean: Tensor, corners: Tensor) -> Tensor:
        maps = self.encoder(self._mask(clean, corners))
        image: Tensor = self.decoder(maps[-1:], clean.shape[2:])
        return image.float().sigmoid()

    def visualize(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Rows: the image with its hole, the inpainted hole in its place, the original."""
        crops, corners = batch
        clean = to_unit_range(crops)
        masked = self._mask(clean, corners)
        hidden = (masked != clean).any(dim=1, keepdim=True)
        inpainted = torch.where(hidden, self._inpaint(clean, corners), clean)
        return torch.stack([masked, inpainted, clean])
