"""What adversarial methods share: discriminator, loss, pool of past images, collapse check."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2  # of the discriminators' leaky ReLU (Radford et al. 2016, section 3)


class PatchDiscriminator(nn.Module):
    """Judges every patch of an image (Isola et al. 2017, section 3.2.2), at half their width.

    Args:
        channels: of the image.
        layers: convolutions of stride 2; two see patches of 34 pixels, three the paper's 70.
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
    """Binary cross-entropy of a discriminator's logits, any shape, with one verdict for all."""
    return F.softplus(-logits.float() if real else logits.float()).mean()


def diversity(generated: Tensor, real: Tensor) -> Tensor:
    """How varied generated images are, 1 as the real ones, 0 if they are all the same.

    The ratio of the images' mean absolute deviation from their mean image: the collapse check
    of the adversarial methods. Both (B, ...), B > 1.
    """
    with torch.no_grad():
        spread, aim = ((x - x.mean(0)).abs().float().mean() for x in (generated, real))
        return spread / aim.clamp(min=1e-6)


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
        """Shift the map (B, width, h, w) by what z (B, latent) says."""
        shifted: Tensor = self.norm(x) + self.bias(z)[:, :, None, None]
        return shifted


class ImagePool(nn.Module):
    """The last generated images, to show a discriminator its opponent's past (Shrivastava 2017).

    Once the pool is full, half of the images asked for are returned as they are, the others take
    the place of a random one that is returned instead (Zhu et al. 2017, image_pool.py). The pool is
    part of the module's state, so that a resumed run sees the same images.

    Args:
        shape: of an image.
        capacity: how many images it keeps; 50 in Zhu et al. 2017, section 4.
    """

    def __init__(self, shape: Sequence[int], capacity: int = 50) -> None:
        super().__init__()
        self.kept: Tensor
        self.count: Tensor
        self.register_buffer("kept", torch.zeros(capacity, *shape))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, images: Tensor) -> Tensor:
        """ImageFiles (B, ...) of which some are exchanged for older ones, without gradient."""
        shown = images.detach().clone()
        room = min(len(self.kept) - int(self.count), len(shown))
        self.kept[int(self.count) : int(self.count) + room] = shown[:room].to(self.kept)
        self.count += room
        for i in range(room, len(shown)):
            if torch.rand(()) < 0.5:
                continue
            place = int(torch.randint(len(self.kept), ()))
            older = self.kept[place].clone()
            self.kept[place] = shown[i].to(older)
            shown[i] = older.to(shown)
        return shown
