"""The maps of all stages at every pixel of an image, and a linear layer on them.

A hypercolumn (Hariharan et al. 2015, section 3) is what all maps have at a pixel, each bilinearly
enlarged to the image. A linear layer may come before or after the enlargement: single pixels take
it after, whole images before, where it is cheap.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bench.data.transforms import to_unit_range
from bench.encoders.encoder import Encoder
from bench.evaluation.probes.ridge_softmax import LinearLayer


def whole_strides(size: int, encoder: Encoder) -> int:
    """The size in whole strides, so that all maps cover the image evenly."""
    stride = max(encoder.strides)
    return -(-size // stride) * stride


def maps_of(encoder: Encoder, rgb: Tensor) -> list[Tensor]:
    """The maps of all stages of images, uint8 (B, 3, H, W)."""
    with torch.inference_mode():
        return [stage.float() for stage in encoder(to_unit_range(rgb))]


def values_at(maps: Sequence[Tensor], places: np.ndarray, shape: tuple[int, ...]) -> Tensor:
    """The maps at some pixels, as bilinear enlargement gives them: float32 (P, D).

    Args:
        maps: of one image, (1, C, h, w) each; D is the sum of C.
        places: of the pixels, (P,), counted row by row.
        shape: height and width of the image.
    """
    rows, columns = np.divmod(places, shape[1])
    corners = np.stack([(2 * columns + 1) / shape[1] - 1, (2 * rows + 1) / shape[0] - 1], axis=-1)
    grid = torch.from_numpy(corners).to(maps[0])[None, None]
    values = [
        F.grid_sample(stage, grid, "bilinear", "border", align_corners=False)[0, :, 0].T
        for stage in maps
    ]
    return torch.cat(values, 1)


def coarse_logits(maps: Sequence[Tensor], layer: LinearLayer) -> list[Tensor]:
    """What each stage adds to the logits, (B, C, h, w); the first has the bias."""
    parts = layer.weight.split([stage.shape[1] for stage in maps], dim=1)
    biases = [layer.bias, *[None] * (len(maps) - 1)]
    each = zip(maps, parts, biases, strict=True)
    return [F.conv2d(stage, part[..., None, None], bias) for stage, part, bias in each]


def labels_of(coarse: Sequence[Tensor], position: int, shape: Sequence[int]) -> Tensor:
    """The labels of one image of a batch, int64 (H, W), from the logits enlarged to its size."""
    own = (c[position : position + 1] for c in coarse)
    fine = [F.interpolate(c, tuple(shape), mode="bilinear", align_corners=False) for c in own]
    return torch.cat(fine).sum(0).argmax(0)
