"""What tasks that label every pixel have in common: predictions, a diagnostic, an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.data.image_files import read
from bench.data.voc_masks import MaskSplit, read_mask
from bench.errors import UserError
from bench.evaluation.visualize import NUM_IMAGES, grid, with_mask
from bench.training.context import Context

Arrays = dict[str, np.ndarray]


def label_names(context: Context) -> tuple[str, ...]:
    """The labels of a pixel, by index: background, and the classes of the data set."""
    return ("background", *context.dataset.classes)


def mask_predictions(
    split: MaskSplit, indices: Sequence[int], matrices: Sequence[np.ndarray], names: Sequence[str]
) -> Arrays:
    """The arrays of the metric.

    Args:
        split: of the images.
        indices: of the images in it.
        matrices: the confusion matrix of each, (C, C).
        names: of the C labels.

    Raises:
        UserError: no pixel counts.
    """
    confusion = np.array(matrices, dtype=np.int32)
    if not confusion.any():
        raise UserError(f"the masks of {len(indices)} images have no pixel that counts")
    return {
        "ids": np.array([split.ids[index] for index in indices]),
        "classes": np.array(names),
        "confusion": confusion,
    }


def pixel_accuracy(predictions: Arrays) -> dict[str, float | None]:
    """Share of the pixels with the right label."""
    whole = predictions["confusion"].sum(0)
    return {"pixel_accuracy": 100 * float(np.diag(whole).sum() / whole.sum())}


def draw_masks(segment: Callable[[Tensor], Tensor], context: Context) -> np.ndarray:
    """The first test images under the predicted labels, each beside that under its mask.

    Args:
        segment: the labels (H, W) of an image, uint8 (3, H, W).
        context: the cell.
    """
    split: Any = context.dataset.test
    panels = []
    for number in range(min(NUM_IMAGES, len(split.ids))):
        image = read(split.images.root / split.images.files[number])
        truth = torch.from_numpy(read_mask(split.masks.root / split.masks.files[number]))
        for mask in (segment(image).cpu(), truth):
            panels.append(with_mask(image, mask, len(label_names(context))))
    return grid(panels)
