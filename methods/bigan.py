"""BiGAN: an encoder learns to invert a generator, as the only way to fool a joint discriminator.

What was kept of the paper and its released code: z is uniform in [-1, 1]^200; the discriminator
sees (x, E(x)) and (G(z), z) and learns to tell them apart; E and G minimize the same loss with the
labels exchanged, on both pairs; nothing is reconstructed. G and D are the released deconvnet and
convnet, 5x5 of stride 2, with z as a learned bias of every layer. What changed: the suite's backbone
takes AlexNet's place as E, the last stage feeds a linear layer; G and D have half the width, 16
channels per pixel of stride; the generated images have the size of the crop, which must be 4
times a power of two.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.data.transforms import to_unit_range
from bench.errors import UserError
from bench.training.adversarial import SLOPE, Conditioned, adversarial_loss, diversity
from bench.training.context import Context
from bench.training.heads import Classifier
from bench.training.pretext import PretextTask

LATENT = 200  # released train_imagenet.sh
SIZE, STRIDE, PADDING = 5, 2, 2  # of every convolution, released net.py


class BiGan(PretextTask):
    """Adversarial feature learning on the suite's backbone."""

    reference: ClassVar[str] = "Donahue et al. 2017, https://arxiv.org/abs/1605.09782"

    def build(self, context: Context) -> None:
        """Add the projection to z, the generator and the joint discriminator."""
        super().build(context)
        crop = self.recipe.crop
        if crop < 8 or crop & (crop - 1):
            raise UserError(f"bigan generates images of 8, 16, 32 ... pixels, not crop = {crop}")
        self.project = Classifier(self.encoder.channels[-1], LATENT)
        widths = [4 * crop >> k for k in range((crop // 4).bit_length())]
        self.start = nn.Linear(LATENT, widths[0] * 16)
        ups, downs = pairwise([*widths[:-1], 3]), [*pairwise([3, *widths[-2::-1]])]
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(a, b, SIZE, STRIDE, PADDING, output_padding=1) for a, b in ups
        )
        self.up_norms = nn.ModuleList(Conditioned(LATENT, width) for width in widths[:-1])
        self.downs = nn.ModuleList(nn.Conv2d(a, b, SIZE, STRIDE, PADDING) for a, b in downs)
        self.down_norms = nn.ModuleList(Conditioned(LATENT, b, norm=a > 3) for a, b in downs)
        self.judge = nn.Linear(widths[0] * 16, 1)

    def players(self) -> dict[str, Iterable[nn.Parameter]]:
        """Encoder and generator against the discriminator."""
        critic = nn.ModuleList([self.downs, self.down_norms, self.judge])
        makers = nn.ModuleList([self.encoder, self.project, self.start, self.ups, self.up_norms])
        return {"generator": makers.parameters(), "discriminator": critic.parameters()}

    def loss(self, batch: Tensor, player: str) -> Tensor:
        """The player's loss; `batch` holds crops, uint8 (B, 3, H, H)."""
        x = to_unit_range(batch)
        if player == "generator":
            z = torch.rand(len(x), LATENT, device=x.device) * 2 - 1
            self.pairs = (x, self._encode(x)), (self._generate(z), z)
            self.logged["diversity"] = diversity(self.pairs[1][0], x)
            self.logged["latent_diversity"] = diversity(self.pairs[0][1], z)
            return joint_loss(*(self._score(*pair) for pair in self.pairs), flipped=True)
        pairs = [[part.detach() for part in pair] for pair in self.pairs]
        return joint_loss(*(self._score(*pair) for pair in pairs), flipped=False)

    def _encode(self, x: Tensor) -> Tensor:
        z: Tensor = self.project(self.encoder(x)[-1])
        return z.float().tanh()

    def _generate(self, z: Tensor) -> Tensor:
        x = self.start(z).view(len(z), -1, 4, 4)
        for norm, up in zip(self.up_norms, self.ups, strict=True):
            x = up(F.relu(norm(x, z)))
        image: Tensor = x.float().sigmoid()
        return image

    def _score(self, x: Tensor, z: Tensor) -> Tensor:
        x = x * 2 - 1
        for down, norm in zip(self.downs, self.down_norms, strict=True):
            x = F.leaky_relu(norm(down(x), z), SLOPE)
        verdict: Tensor = self.judge(x.flatten(1))
        return verdict

    def samples(self, batch: Tensor) -> Tensor:
        """Rows: G(z), images x, G(E(x))."""
        x = to_unit_range(batch)
        z = torch.rand(len(x), LATENT, device=x.device) * 2 - 1
        return torch.stack([self._generate(z), x, self._generate(self._encode(x))])


def joint_loss(encoded: Tensor, generated: Tensor, *, flipped: bool) -> Tensor:
    """Mean binary cross-entropy of both halves: encoded pairs are real, unless `flipped`."""
    return (adversarial_loss(encoded, not flipped) + adversarial_loss(generated, flipped)) / 2
