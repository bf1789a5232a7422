"""CycleGAN: learn to color gray images, and to gray color ones, without a pair of them.

What was kept of the paper and its released code: two generators and two discriminators, least
squares losses, an L1 cycle loss of weight 10 both ways, instance norm in the discriminators, which
see generated images through a pool of the last 50 (section 4, image_pool.py). No identity loss:
it needs as many channels on both sides. What changed: the encoder and a decoder take the place of
the gray -> color generator, four convolutions that of the other, the discriminators have half the
width. Gray is L / 50 - 1; color is that and ab / 110. The first half of a batch is gray, the
second colored, so that an even batch has no image in both. As a color image holds its gray
one, a second generator that learned to copy it would make the cycle of a color image the same as
being told its colors: nothing hinders that.
"""

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor, nn

from bench.data.color import lab_to_rgb, rgb_to_lab
from bench.data.transforms import to_unit_range
from bench.training.adversarial import ImagePool, PatchDiscriminator, diversity
from bench.training.context import Context
from bench.training.heads import Decoder
from bench.training.pretext import PretextTask

CYCLE = 10.0  # lambda, section 5.1 (released: lambda_A, lambda_B)


class CycleGan(PretextTask):
    """Unpaired gray <-> color translation, the encoder sees gray."""

    reference: ClassVar[str] = "Zhu et al. 2017, https://arxiv.org/abs/1703.10593"
    sees: ClassVar[tuple[str, ...]] = ("l",)

    def build(self, context: Context) -> None:
        """Add the way up, the other generator, and a discriminator and a pool per domain."""
        super().build(context)
        self.decoder = Decoder(self.encoder.channels, self.encoder.strides, 3, 1)
        layers = [nn.Conv2d(3, 16, 7, 1, 3), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU()]
        layers += [nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 1, 7, 1, 3), nn.Tanh()]
        self.graying = nn.Sequential(*layers)
        self.critics = nn.ModuleList(PatchDiscriminator(c, 2, nn.InstanceNorm2d) for c in (1, 3))
        self.made: tuple[Tensor, ...] = ()
        crop = self.recipe.crop
        self.pools = nn.ModuleList(ImagePool((c, crop, crop)) for c in (1, 3))

    def players(self) -> dict[str, Iterable[nn.Parameter]]:
        """The generators move first; the discriminators then judge what they made."""
        makers = nn.ModuleList([self.encoder, self.decoder, self.graying])
        return {"generator": makers.parameters(), "discriminator": self.critics.parameters()}

    def loss(self, batch: Tensor, player: str) -> Tensor:
        """The player's loss; `batch` holds crops, uint8 (B, 3, H, H)."""
        lab = rgb_to_lab(to_unit_range(batch))
        images = torch.cat([lab[:, :1] / 50 - 1, lab[:, 1:] / 110], dim=1)
        half = (len(batch) + 1) // 2
        gray, color = images[:half, :1], images[-half:]
        if player == "discriminator":
            made = [pool(x) for pool, x in zip(self.pools, self.made, strict=True)]
            adversarial_loss = zip(self.critics, (gray, color), made, strict=True)
            losses = [_squared(c(real), 1) + _squared(c(fake), 0) for c, real, fake in adversarial_loss]
            return torch.stack(losses).sum() / 2
        colored, grayed = self._color(gray), self.graying(color).float()
        self.made = grayed.detach(), colored.detach()
        cycle: Tensor = (self.graying(colored) - gray).abs().mean()
        cycle = cycle + (self._color(grayed) - color).abs().mean()
        self.logged["cycle"] = cycle.detach()
        self.logged["diversity"] = diversity(colored[:, 1:], color[:, 1:])
        verdicts = self.critics[0](grayed), self.critics[1](colored)
        fooled = _squared(verdicts[0], 1) + _squared(verdicts[1], 1)
        return fooled + CYCLE * cycle

    def _color(self, gray: Tensor) -> Tensor:
        image: Tensor = self.decoder(self.encoder.branches[0](gray), gray.shape[2:])
        made: Tensor = image.float().tanh()
        return made

    def samples(self, batch: Tensor) -> Tensor:
        """Rows: gray, colored by the generator, the truth."""
        rgb = to_unit_range(batch)
        gray = rgb_to_lab(rgb)[:, :1]
        lightness, a, b = self._color(gray / 50 - 1).unbind(1)
        made = torch.stack([lightness * 50 + 50, a * 110, b * 110], dim=1)
        plain = torch.cat([gray, torch.zeros_like(gray), torch.zeros_like(gray)], dim=1)
        return torch.stack([lab_to_rgb(plain), lab_to_rgb(made), rgb])


def _squared(logits: Tensor, target: float) -> Tensor:
    error: Tensor = ((logits.float() - target) ** 2).mean()
    return error
