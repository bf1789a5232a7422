"""Image operations that pretext tasks share; random ones draw from torch alone."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torchvision.transforms import v2

from bench.suite import Recipe


def random_crop(image: Tensor, recipe: Recipe) -> Tensor:
    """A random part of a picture at the recipe's crop size, mirrored half of the time.

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


def unit(image: Tensor) -> Tensor:
    """Byte pictures in [0, 255] as floats in [0, 1]."""
    return image.float() / 255
