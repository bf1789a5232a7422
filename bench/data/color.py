"""The CIE Lab color space: L in [0, 100]; a in [-86, 98] and b in [-108, 94] for sRGB (D65)."""

from __future__ import annotations

import kornia
import torch
from torch import Tensor


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """RGB in [0, 1], (B, 3, H, W), to Lab in float32 under any precision."""
    with torch.autocast(rgb.device.type, enabled=False):
        lab: Tensor = kornia.color.rgb_to_lab(rgb.float())
    return lab


def lab_to_rgb(lab: Tensor) -> Tensor:
    """Lab (B, 3, H, W) to the nearest RGB in [0, 1]."""
    rgb: Tensor = kornia.color.lab_to_rgb(lab.float()).clamp(0, 1)
    return rgb
