"""BiGAN: an encoder learns to invert a generator, as the only way to fool a joint discriminator.

What was kept of the paper and its released code: z is uniform in [-1, 1]^200. The discriminator
sees (x, E(x)) and (G(z), z) and learns to tell them apart. E and G minimize the same loss with the
labels exchanged, on both pairs; nothing is reconstructed. G and D are the released deconvnet and
convnet, 5x5 of stride 2, with z as a learned bias of every layer.

What changed: the suite's backbone takes AlexNet's place as E, and its last stage feeds a linear
layer. G and D have half the width, 16 channels per pixel of stride. The generated images have the
size of the crop, which must be 4 times a power of two.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.data.transforms import to_unit_range
from bench.errors import UserError
from bench.training.context import Context
from bench.training.parts.adversarial import SLOPE, Conditioned, adversarial_loss, diversity
from bench.training.parts.heads import Classifier
from bench.training.pretext import AdversarialPretextTask
from bench.training.pretext_score import Measure, Scores, swapped_errors

LATENT = 200  # released train_imagenet.sh
SIZE, STRIDE, PADDING = 5, 2, 2  # of every convolution, released net.py


class BiGan(AdversarialPretextTask):
    """Adversarial feature learning on the suite's backbone."""

    reference: ClassVar[str] = "Donahue et al. 2017, https://arxiv.org/abs/1605.09782"
    version: ClassVar[int] = 1
    measure = Measure("reconstruction error", "another image")

    def build(self, context: Context) -> None:
        """Add the projection to z, the generator and the joint discriminator."""
        super().build(context)
        crop = self.recipe.crop
        if crop < 8 or crop & (crop - 1):
            raise UserError(f"bigan generates images of 8, 16, 32 ... pixels, not crop = {crop}")
        widths = [4 * crop >> k for k in range((crop // 4).bit_length())]
        self.project = Classifier(self.encoder.channels[-1], LATENT)
        self.generator = _Generator(widths)
        self.discriminator = _JointDiscriminator(widths)

    def generator_loss(self, batch: Tensor) -> Tensor:
        """Loss of encoder and generator; `batch` contains crops, uint8 (B, 3, H, H)."""
        x = to_unit_range(batch)
        z = _draw_z(x)
        code = self._encode(x)
        fake = self.generator(z)
        self.encoded_pair = (x, code.detach())
        self.generated_pair = (fake.detach(), z)
        self.log("diversity", diversity(fake, x))
        self.log("latent_diversity", diversity(code, z))
        encoded = self.discriminator(x, code)
        generated = self.discriminator(fake, z)
        return joint_loss(encoded, generated, flipped=True)

    def discriminator_loss(self, batch: Tensor) -> Tensor:
        """Loss of the joint discriminator, on the pairs of the generator's loss."""
        encoded = self.discriminator(*self.encoded_pair)
        generated = self.discriminator(*self.generated_pair)
        return joint_loss(encoded, generated, flipped=False)

    def score(self, batch: Tensor) -> Scores:
        """Absolute error of G(E(x)) from x, or of the reconstructions of other images of the batch.

        Not of the mean image: the discriminator asks for images that vary as real ones do.
        """
        x = to_unit_range(batch)
        return swapped_errors(self.generator(self._encode(x)), x)

    def _encode(self, x: Tensor) -> Tensor:
        z: Tensor = self.project(self.encoder(x)[-1])
        return z.float().tanh()

    def visualize(self, batch: Tensor) -> Tensor:
        """Rows: G(z), images x, G(E(x))."""
        x = to_unit_range(batch)
        return torch.stack([self.generator(_draw_z(x)), x, self.generator(self._encode(x))])


class _Generator(nn.Module):
    """Map z (B, 200) to images in [0, 1]; `widths` are those of its maps, coarse to fine."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.start = nn.Linear(LATENT, widths[0] * 16)
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(a, b, SIZE, STRIDE, PADDING, output_padding=1)
            for a, b in pairwise([*widths[:-1], 3])
        )
        self.norms = nn.ModuleList(Conditioned(LATENT, width) for width in widths[:-1])

    def forward(self, z: Tensor) -> Tensor:
        x = self.start(z).view(len(z), -1, 4, 4)
        for norm, up in zip(self.norms, self.ups, strict=True):
            x = up(F.relu(norm(x, z)))
        image: Tensor = x.float().sigmoid()
        return image


class _JointDiscriminator(nn.Module):
    """Logits (B, 1) of pairs of images in [0, 1] and z: positive for encoded ones."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        layers = [*pairwise([3, *widths[-2::-1]])]
        self.downs = nn.ModuleList(nn.Conv2d(a, b, SIZE, STRIDE, PADDING) for a, b in layers)
        self.norms = nn.ModuleList(Conditioned(LATENT, b, norm=a > 3) for a, b in layers)
        self.output = nn.Linear(widths[0] * 16, 1)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        x = x * 2 - 1
        for down, norm in zip(self.downs, self.norms, strict=True):
            x = F.leaky_relu(norm(down(x), z), SLOPE)
        logits: Tensor = self.output(x.flatten(1))
        return logits


def _draw_z(x: Tensor) -> Tensor:
    """Uniform z in [-1, 1], one for each image."""
    return torch.rand(len(x), LATENT, device=x.device) * 2 - 1


def joint_loss(encoded: Tensor, generated: Tensor, *, flipped: bool) -> Tensor:
    """Mean binary cross-entropy of both halves: encoded pairs are real, unless `flipped`."""
    return (adversarial_loss(encoded, not flipped) + adversarial_loss(generated, flipped)) / 2
