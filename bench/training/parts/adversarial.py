"""Parts of adversarial methods: discriminator, loss, pool of past images, collapse check."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2  # of the discriminators' leaky ReLU (Radford et al. 2016, section 3)


class PatchDiscriminator(nn.Module):
    """Discriminator of patches (Isola et al. 2017, section 3.2.2), at half the papers' width.

    Args:
        channels: of the image.
        layers: convolutions of stride 2. Two see patches of 34 pixels, three the paper's 70.
        norm: BatchNorm2d (pix2pix) or InstanceNorm2d (CycleGAN); the first layer has none.
    """

    WIDTH = 32  # the papers' 64 cost more than the encoder on small images

    def __init__(self, channels: int, layers: int, norm: type[nn.Module]) -> None:
        super().__init__()
        body: list[nn.Module] = [nn.Conv2d(channels, self.WIDTH, 4, 2, 1), nn.LeakyReLU(SLOPE)]
        width = self.WIDTH
        for k in range(1, layers + 1):
            stride = 2 if k < layers else 1
            body += [nn.Conv2d(width, 2 * width, 4, stride, 1, bias=False), norm(2 * width)]
            body += [nn.LeakyReLU(SLOPE)]
            width *= 2
        self.body = nn.Sequential(*body, nn.Conv2d(width, 1, 4, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, channels, H, W) to a logit per patch, (B, 1, h, w); positive is real."""
        logits: Tensor = self.body(image)
        return logits


def adversarial_loss(logits: Tensor, real: bool) -> Tensor:
    """Binary cross-entropy of a discriminator's logits, any shape, against one target for all.

    Args:
        logits: positive for real.
        real: the target.
    """
    logits = logits.float()
    return F.softplus(-logits if real else logits).mean()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Mean of both halves of a discriminator's loss."""
    return (adversarial_loss(real_logits, True) + adversarial_loss(fake_logits, False)) / 2


def diversity(generated: Tensor, real: Tensor) -> Tensor:
    """Diversity of generated images: 1 as the real ones, 0 if they are all the same.

    The ratio of the images' mean absolute deviations from their mean image. It shows a collapsed
    generator. Both are (B, ...), B > 1.
    """
    with torch.no_grad():
        return _deviation(generated) / _deviation(real).clamp(min=1e-6)


def _deviation(images: Tensor) -> Tensor:
    return (images - images.mean(0)).abs().float().mean()


class Conditioned(nn.Module):
    """Batch norm, if any, and a bias that is a linear function of z (Donahue et al. 2017, net.py).

    Args:
        latent: dimensions of z.
        width: channels of the map.
        norm: whether the map is normalized first.
    """

    def __init__(self, latent: int, width: int, norm: bool = True) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width) if norm else nn.Identity()
        self.bias = nn.Linear(latent, width)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Shift the map (B, width, h, w) by the bias of z (B, latent)."""
        shifted: Tensor = self.norm(x) + self.bias(z)[:, :, None, None]
        return shifted


class ImagePool(nn.Module):
    """Pool of the last generated images, for the discriminator (Shrivastava et al. 2017).

    Once the pool is full, half of the images pass unchanged. Each of the others takes the place of
    a random older one, which is returned instead (Zhu et al. 2017, image_pool.py). The pool is part
    of the module's state, so that a resumed run has the same images.

    Args:
        shape: of an image.
        capacity: of the pool; 50 in Zhu et al. 2017, section 4.
    """

    def __init__(self, shape: Sequence[int], capacity: int = 50) -> None:
        super().__init__()
        self.images: Tensor
        self.count: Tensor
        self.register_buffer("images", torch.zeros(capacity, *shape))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, images: Tensor) -> Tensor:
        """Exchange some of the images (B, ...) for older ones, without gradient."""
        result = images.detach().clone()
        filled = int(self.count)
        added = min(len(self.images) - filled, len(result))
        self.images[filled : filled + added] = result[:added].to(self.images)
        self.count += added
        for i in range(added, len(result)):
            if torch.rand(()) < 0.5:
                continue
            slot = int(torch.randint(len(self.images), ()))
            older = self.images[slot].clone()
            self.images[slot] = result[i].to(older)
            result[i] = older.to(result)
        return result
