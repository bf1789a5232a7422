"""Image operations of pretext tasks: crops, patches, mosaics. Random ones draw from torch."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from bench.config.schema import Recipe


def random_crop(image: Tensor, recipe: Recipe) -> Tensor:
    """A random crop of an image at the recipe's size, mirrored half of the time.

    Args:
        image: uint8 (3, H, W).
        recipe: its `crop` and `crop_scale`. Aspect ratios are 3/4 to 4/3 (Szegedy et al. 2015).

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
    """Nine patches of an image, one from the middle of each square of a 3 x 3 grid, jittered.

    Args:
        image: (3, S, S).
        side: of a patch, pixels, at most S / 3.
        jitter: most pixels that a patch moves in each direction; it never leaves its square.

    Returns:
        (9, 3, side, side), row by row.
    """
    pitch = image.shape[-1] // 3
    margin = (pitch - side) // 2
    jitter = min(jitter, margin)
    shifts = torch.randint(-jitter, jitter + 1, (9, 2)) + margin
    squares = torch.cartesian_prod(torch.arange(3), torch.arange(3)) * pitch
    corners: list[list[int]] = (squares + shifts).tolist()
    return torch.stack([image[:, y : y + side, x : x + side] for y, x in corners])


def to_gray(rgb: Tensor) -> Tensor:
    """Luma of (..., 3, H, W) in all three channels (ITU-R BT.601)."""
    weights = rgb.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    luma: Tensor = (rgb * weights).sum(-3, keepdim=True)
    return luma.expand_as(rgb)


def crop_squares(images: Tensor, corners: Tensor, side: int) -> Tensor:
    """One square of each image.

    Args:
        images: (B, C, H, W).
        corners: row and column of each square's upper left pixel, (B, 2).
        side: of the squares, pixels.

    Returns:
        (B, C, side, side).
    """
    rows, columns = (corners.T[:, :, None] + torch.arange(side, device=corners.device)).unbind(0)
    index = torch.arange(len(images), device=corners.device)[:, None, None]
    squares = images.movedim(1, -1)[index, rows[:, :, None], columns[:, None]]
    return squares.movedim(-1, 1)


def mosaic(tiles: Tensor) -> Tensor:
    """Images (B, 3, H, W) of tiles (B, 9, 3, h, w), with a white line after each tile."""
    framed = F.pad(tiles, (0, 1, 0, 1), value=1.0).unflatten(1, (3, 3))
    images: Tensor = framed.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
    return images
