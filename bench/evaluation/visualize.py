"""Image grids of predictions beside ground truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as transforms
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks, make_grid

NUM_IMAGES = 16  # the first test images
SIDE = 128  # pixels of the longest side of each
COLUMNS = 8  # panels in a row: prediction, ground truth, prediction, ground truth ...
MIN_SCORE = 0.5  # least score of a detection that is drawn


def voc_colors(count: int) -> list[tuple[int, int, int]]:
    """Colors of class indices: bit 3k + c of the index is bit 7 - k of channel c (VOCcode)."""
    colors = []
    for index in range(count):
        channels = [sum((index >> 3 * k + c & 1) << 7 - k for k in range(3)) for c in range(3)]
        red, green, blue = channels
        colors.append((red, green, blue))
    return colors


def with_boxes(image: Tensor, boxes: np.ndarray, labels: np.ndarray, classes: int) -> Tensor:
    """A small image with boxes in the colors of their classes.

    Args:
        image: uint8 (3, H, W).
        boxes: as VOC's, (n, 4).
        labels: classes of the boxes, from 0.
        classes: how many there are.
    """
    factor = SIDE / max(image.shape[-2:])
    panel = _small(image)
    if not len(boxes):
        return panel
    colors = voc_colors(classes + 1)
    corners = torch.from_numpy((np.asarray(boxes, dtype=float) - [1, 1, 0, 0]) * factor)
    box_colors = [colors[int(label) + 1] for label in labels]
    annotated: Tensor = draw_bounding_boxes(panel, corners, colors=box_colors, width=2)
    return annotated


def with_mask(image: Tensor, mask: Tensor, classes: int) -> Tensor:
    """A small image, uint8 (3, H, W), under a mask of class indices (H, W)."""
    panel = _small(image)
    small = F.interpolate(mask[None, None].float(), size=panel.shape[1:])[0, 0]
    planes = torch.stack([small == k for k in range(1, classes)])
    colors = voc_colors(classes)[1:]
    annotated: Tensor = draw_segmentation_masks(panel, planes, alpha=0.6, colors=colors)
    return annotated


def grid(panels: Sequence[Tensor]) -> np.ndarray:
    """Grid of panels as one image, uint8 (H, W, 3), with white between them."""
    squares = [F.pad(p, (0, SIDE - p.shape[2], 0, SIDE - p.shape[1]), value=255) for p in panels]
    image: Tensor = make_grid(torch.stack(squares), nrow=COLUMNS, padding=4, pad_value=255)
    pixels: np.ndarray = image.movedim(0, -1).numpy()
    return pixels


def _small(image: Tensor) -> Tensor:
    factor = SIDE / max(image.shape[-2:])
    shape = [max(1, round(side * factor)) for side in image.shape[-2:]]
    panel: Tensor = transforms.resize(image, shape, antialias=True)
    return panel
