"""Context encoder: paint what is missing from the middle of its surroundings.

What was kept of the released inpainting network (train.lua; the paper's section 3): a square of
half the image's side is filled with one color, the squared error inside it counts .999, an
adversary that sees only the square .001, a border of 1/32 of the side that the hole leaves visible
counts ten times in the error. What changed: the square's place is random (the paper learned its
features from random regions, its images from the center); its color is the mean that the
backbone's inputs are normalized by; the suite's backbone is the encoder, its last stage the
bottleneck; images are in [0, 1]; the discriminator sees patches of 34 pixels and has the rate of
the generator, where theirs has a tenth.
"""

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor, nn

from bench.data.transforms import cut, random_crop, to_unit_range
from bench.training.adversarial import PatchDiscriminator, adversarial_loss, diversity
from bench.training.context import Context
from bench.training.heads import Decoder
from bench.training.pretext import PretextTask

ADVERSARY = 0.001  # of the generator's loss; the error is the rest
BORDER_WEIGHT = 10.0  # released train.lua


class ContextEncoder(PretextTask):
    """Inpainting on the suite's backbone."""

    reference: ClassVar[str] = "Pathak et al. 2016, https://arxiv.org/abs/1604.07379"

    def build(self, context: Context) -> None:
        """Add a decoder of the last stage, and the discriminator."""
        super().build(context)
        self.decoder = Decoder(self.encoder.channels[-1:], self.encoder.strides[-1:], 3, 1)
        self.discriminator = PatchDiscriminator(3, 2, nn.BatchNorm2d)
        self.made = torch.empty(0)
        self.hole, self.border = self.recipe.crop // 2, max(1, self.recipe.crop // 32)

    def players(self) -> dict[str, Iterable[nn.Parameter]]:
        """The generator moves first; the discriminator then judges what it made."""
        generator = [*self.encoder.parameters(), *self.decoder.parameters()]
        return {"generator": generator, "discriminator": self.discriminator.parameters()}

    def example(self, image: Tensor, label: int) -> tuple[Tensor, Tensor]:
        """A random crop, uint8 (3, crop, crop), and the hole's upper left corner (2,)."""
        corner = torch.randint(0, self.recipe.crop - self.hole + 1, (2,))
        return random_crop(image, self.recipe), corner

    def loss(self, batch: tuple[Tensor, Tensor], player: str) -> Tensor:
        """The player's loss; `batch` holds crops and corners."""
        clean, corners = to_unit_range(batch[0]), batch[1]
        real = cut(clean, corners, self.hole)
        if player == "discriminator":
            verdicts = self.discriminator(real), self.discriminator(self.made)
            return (adversarial_loss(verdicts[0], True) + adversarial_loss(verdicts[1], False)) / 2
        made = cut(self._paint(clean, corners), corners, self.hole)
        self.made = made.detach()
        inner = slice(self.border, -self.border)
        weight = torch.full_like(real[0, 0], BORDER_WEIGHT)
        weight[inner, inner] = 1
        error = (weight * (made - real) ** 2).mean()
        self.logged["l1"] = (made.detach() - real)[:, :, inner, inner].abs().mean()
        self.logged["diversity"] = diversity(made, real)
        return (1 - ADVERSARY) * error + ADVERSARY * adversarial_loss(self.discriminator(made), True)

    def _damage(self, clean: Tensor, corners: Tensor) -> Tensor:
        """Fill the hole, less its border, with the mean that inputs are normalized by."""
        side = torch.arange(clean.shape[-1], device=clean.device)
        inside = [
            (side >= corner[:, None] + self.border)
            & (side < corner[:, None] + self.hole - self.border)
            for corner in corners.T
        ]
        hidden = inside[0][:, None, :, None] & inside[1][:, None, None, :]
        return torch.where(hidden, self.encoder.mean, clean)

    def _paint(self, clean: Tensor, corners: Tensor) -> Tensor:
        maps = self.encoder(self._damage(clean, corners))
        image: Tensor = self.decoder(maps[-1:], clean.shape[2:])
        return image.float().sigmoid()

    def samples(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Rows: what the network saw, the painted hole in its place, the truth."""
        clean, corners = to_unit_range(batch[0]), batch[1]
        damaged = self._damage(clean, corners)
        hidden = (damaged != clean).any(dim=1, keepdim=True)
        return torch.stack(
            [damaged, torch.where(hidden, self._paint(clean, corners), clean), clean]
        )
