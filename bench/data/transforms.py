"""Image operations that pretext tasks share; random ones draw from torch alone."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from bench.config.schema import Recipe


def random_crop(image: Tensor, recipe: Recipe) -> Tensor:
    """A random part of an image at the recipe's crop size, mirrored half of the time.

    Args:
        image: uint8 (3, H, W).
        recipe: `crop` and `crop_scale` count; aspect ratios are 3/4 to 4/3 (Szegedy et al. 2015).

    Returns:
        uint8 (3, crop, crop).
    """
    crop: Tensor = _cropper(recipe.crop, recipe.crop_scale)(image)
    return crop.flip(-1) if torch.rand(()) < 0.5 else crop


@cache
def _cropper(side: int, scale: tuple[float, float]) -> v2.RandomResizedCrop:
    return v2.RandomResizedCrop([side, side], scale=scale, antialias=True)


def to_unit_range(image: Tensor) -> Tensor:
    """Byte images in [0, 255] as floats in [0, 1]."""
    return image.float() / 255


def patches(image: Tensor, side: int, jitter: int) -> Tensor:
    """One patch from the middle of each of 3 x 3 equal cells, moved at random.

    Args:
        image: (3, S, S).
        side: of a patch, pixels, at most S / 3.
        jitter: how far a patch moves at most, in each direction; within its cell it stays.

    Returns:
        (9, 3, side, side), row by row.
    """
    cell = image.shape[-1] // 3
    jitter = min(jitter, (cell - side) // 2)
    shifts = torch.randint(-jitter, jitter + 1, (9, 2)) + (cell - side) // 2
    cells = torch.cartesian_prod(torch.arange(3), torch.arange(3)) * cell
    corners: list[list[int]] = (cells + shifts).tolist()
    return torch.stack([image[:, y : y + side, x : x + side] for y, x in corners])


def gray(rgb: Tensor) -> Tensor:
    """Luma of (..., 3, H, W) in all three channels (ITU-R BT.601)."""
    weights = rgb.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    luma: Tensor = (rgb * weights).sum(-3, keepdim=True)
    return luma.expand_as(rgb)


def cut(images: Tensor, corners: Tensor, side: int) -> Tensor:
    """The squares of images (B, C, H, W) at upper left corners (B, 2), (B, C, side, side)."""
    rows, columns = (corners.T[:, :, None] + torch.arange(side, device=corners.device)).unbind(0)
    index = torch.arange(len(images), device=corners.device)[:, None, None]
    return images.movedim(1, -1)[index, rows[:, :, None], columns[:, None]].movedim(-1, 1)


def mosaic(tiles: Tensor) -> Tensor:
    """Tiles (B, 9, 3, h, w) as images (B, 3, H, W), a white line after each."""
    framed = F.pad(tiles, (0, 1, 0, 1), value=1.0).unflatten(1, (3, 3))
    images: Tensor = framed.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
    return images
