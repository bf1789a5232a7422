"""Images for a person to look at: what a network predicted, beside the truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as transforms
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks, make_grid

NUM_IMAGES = 16  # test images, the first of the list
SIDE = 128  # pixels of the longest side of each
COLUMNS = 8  # panels in a row: prediction, truth, prediction, truth ...
MIN_SCORE = 0.5  # least score of a detection that is drawn


def voc_colors(count: int) -> list[tuple[int, int, int]]:
    """The colors of class indices: bit 3k + c of the index is bit 7 - k of channel c (VOCcode)."""
    values = [
        [sum((i >> 3 * k + c & 1) << 7 - k for k in range(3)) for c in range(3)]
        for i in range(count)
    ]
    return [(r, g, b) for r, g, b in values]


def with_boxes(image: Tensor, boxes: np.ndarray, labels: np.ndarray, classes: int) -> Tensor:
    """A image, uint8 (3, H, W), with VOC boxes (n, 4) in the colors of their classes, from 0."""
    factor = SIDE / max(image.shape[-2:])
    panel = _small(image)
    if not len(boxes):
        return panel
    colors = voc_colors(classes + 1)
    corners = torch.from_numpy((np.asarray(boxes, dtype=float) - [1, 1, 0, 0]) * factor)
    chosen = [colors[int(label) + 1] for label in labels]
    drawn: Tensor = draw_bounding_boxes(panel, corners, colors=chosen, width=2)
    return drawn


def with_mask(image: Tensor, mask: Tensor, classes: int) -> Tensor:
    """A image, uint8 (3, H, W), with a mask of class indices (H, W) over it."""
    panel = _small(image)
    small = F.interpolate(mask[None, None].float(), size=panel.shape[1:])[0, 0]
    planes = torch.stack([small == k for k in range(1, classes)])
    colors = voc_colors(classes)[1:]
    drawn: Tensor = draw_segmentation_masks(panel, planes, alpha=0.6, colors=colors)
    return drawn


def grid(panels: Sequence[Tensor]) -> np.ndarray:
    """Panels as one image, uint8 (H, W, 3), white between them."""
    square = [F.pad(p, (0, SIDE - p.shape[2], 0, SIDE - p.shape[1]), value=255) for p in panels]
    whole: Tensor = make_grid(torch.stack(square), nrow=COLUMNS, padding=4, pad_value=255)
    pixels: np.ndarray = whole.movedim(0, -1).numpy()
    return pixels


def _small(image: Tensor) -> Tensor:
    factor = SIDE / max(image.shape[-2:])
    shape = [max(1, round(side * factor)) for side in image.shape[-2:]]
    panel: Tensor = transforms.resize(image, shape, antialias=True)
    return panel
