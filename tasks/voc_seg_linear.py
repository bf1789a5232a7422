"""Segmentation by one linear layer on all stages of the frozen network; no training of it.

The linear protocol of DINOv2 (Oquab et al. 2023, section 7.4; the released BNHead): batch norm and
one linear layer classify every position of the frozen maps, and the logits are enlarged bilinearly
to the image. Cross-entropy per pixel over the classes and background; pixels of index 255 do not
count. The maps are those of all stages, as the hypercolumns of Hariharan et al. 2015: a pixel has
the value of every map at its place, between the positions around it.

A linear layer may be applied before or after the bilinear enlargement. So the layer is trained on
pixels alone, and labels whole images by enlarging the logits of each stage.

What changed: the layer is the least of its loss with a ridge penalty, on pixels that are drawn
once, the same for every row, instead of 40,000 steps of AdamW on crops; input size and penalty are
selected on a held-out part of the training split, by the mean IoU of its drawn pixels; batch norm
has no weights of its own, and the statistics of these pixels; images are resized to a square,
without windows, flips or several scales at test.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor

from bench.config.schema import Positive, Rate, Side, TaskSettings, ascending
from bench.data.image_files import resize_exact
from bench.data.voc_masks import MaskSplit, read_mask
from bench.encoders.encoder import Encoder
from bench.errors import UserError
from bench.evaluation.features import batch_positions, loader
from bench.evaluation.hypercolumns import (
    coarse_logits,
    labels_of,
    maps_of,
    values_at,
    whole_strides,
)
from bench.evaluation.masks import (
    Arrays,
    draw_masks,
    label_names,
    mask_predictions,
    pixel_accuracy,
)
from bench.evaluation.probes.ridge_softmax import LinearLayer, fits
from bench.evaluation.task import Hyperparameters, TaskResult
from bench.metrics.segmentation import VOID, confusion_matrix, mean_iou
from bench.runtime import distributed
from bench.runtime.pool import batches as batches_of
from bench.training.context import Context
from bench.training.finetuning import parted


@dataclass(frozen=True)
class _Pixels:
    """Pixels drawn from the training images, seen at one input size.

    Attributes:
        features: float32 (M, D), the maps of all stages at each pixel.
        labels: int64 (M,), 0 for background.
        image: int64 (M,), the position of its image in the split.
    """

    features: Tensor
    labels: Tensor
    image: Tensor

    def of(self, images: np.ndarray) -> tuple[Tensor, Tensor]:
        """Features and labels of the pixels of some images."""
        selected = torch.isin(self.image, torch.from_numpy(images).to(self.image))
        return self.features[selected], self.labels[selected]


class VocSegLinear:
    """Mean intersection over union of a linear layer on frozen maps, with background."""

    reference: ClassVar[str] = "Oquab et al. 2023, https://arxiv.org/abs/2304.07193"
    metric: ClassVar[str] = "mIoU"
    version: ClassVar[int] = 1
    dataset_kinds: ClassVar[tuple[str, ...]] = ("voc_masks",)

    class Settings(TaskSettings):
        """The frozen linear layer."""

        dataset: str = "voc_masks"
        sizes: tuple[Side, ...]
        """Sides to select from, pixels: an image is resized to the next whole coarsest strides."""
        pixels: Positive
        """Drawn from each training image. Memory: 24 bytes x images x pixels x channels."""
        ridges: tuple[Rate, ...]
        """The penalties to select from, ascending, each relative to the mean loss."""
        validation_fraction: Annotated[float, Field(gt=0, lt=1)]
        """Share of the training images on which they are compared, not trained on."""

        @field_validator("sizes", "ridges")
        @classmethod
        def _ascending(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
            return ascending(value)

    def evaluate(self, encoder: Encoder, context: Context) -> TaskResult:
        """Select size and penalty, fit on the training split, label the test split."""
        settings: VocSegLinear.Settings = context.settings
        dataset = context.dataset
        test: Any = dataset.test
        grid = [(size, ridge) for size in settings.sizes for ridge in settings.ridges[::-1]]
        started = time.monotonic()
        scores: list[float] = []
        for size in settings.sizes:
            drawn = _draw_pixels(encoder, size, context)
            tried = distributed.from_main(partial(_held_out_scores, drawn, context))
            if not scores or max(tried) > max(scores):
                pixels = drawn
            scores += tried
        best, ridge = grid[int(np.argmax(scores))]
        layer = distributed.from_main(partial(_fit, pixels, ridge, context)).to(context.device)
        fitted = time.monotonic()
        predictions = _predict(encoder, layer, test, best, context)

        def segment(image: Tensor) -> Tensor:
            rgb = resize_exact(image, whole_strides(best, encoder))[None].to(context.device)
            return labels_of(coarse_logits(maps_of(encoder, rgb), layer), 0, image.shape[-2:])

        return TaskResult(
            predictions=predictions,
            hyperparameters=Hyperparameters(
                selected={"size": best, "ridge": ridge},
                num_settings=len(grid),
                split=f"{settings.validation_fraction:.0%} of {dataset.name} train",
                tried={
                    "size": [size for size, _ in grid],
                    "ridge": [ridge for _, ridge in grid],
                    "validation_score": scores,
                },
            ),
            diagnostics=pixel_accuracy(predictions),
            timings={"tuning": fitted - started, "testing": time.monotonic() - fitted},
            image=self.visualize(segment, context) if distributed.is_main() else None,
        )

    def visualize(self, segment: Callable[[Tensor], Tensor], context: Context) -> np.ndarray:
        """Pairs of the first test images. Left: the predicted labels; right: the mask."""
        return draw_masks(segment, context)


def _draw_pixels(encoder: Encoder, size: int, context: Context) -> _Pixels:
    """Pixels of every training image that has one that counts, drawn with replacement.

    Raises:
        UserError: none has.
    """
    split: Any = context.dataset.train
    count = context.settings.pixels

    def draw(indices: Sequence[int], maps: list[Tensor]) -> list[tuple[np.ndarray, ...]]:
        parts: list[tuple[np.ndarray, ...]] = []
        for position, index in enumerate(indices):
            truth = read_mask(split.masks.root / split.masks.files[index])
            counted = np.flatnonzero(truth != VOID)
            if len(counted):
                places = np.random.default_rng(index).choice(counted, count)
                own = [stage[position : position + 1] for stage in maps]
                features = values_at(own, places, truth.shape).cpu().numpy()
                parts.append((features, truth.flat[places], np.full(count, index)))
        return parts

    drawn = _in_batches(encoder, split, size, context, "features, train", draw)
    if not drawn:
        raise UserError(f"the masks of {len(split.ids)} images have no pixel that counts")
    features, labels, image = map(np.concatenate, zip(*drawn, strict=True))
    if not np.isfinite(features).all():
        raise ValueError(f"the features at {size} pixels are not all finite")
    device = context.device
    return _Pixels(
        torch.from_numpy(features).to(device),
        torch.from_numpy(labels).long().to(device),
        torch.from_numpy(image).to(device),
    )


def _held_out_scores(pixels: _Pixels, context: Context) -> list[float]:
    """Mean IoU on the pixels of the images held out, from the largest penalty to the least."""
    settings: VocSegLinear.Settings = context.settings
    labels = len(label_names(context))
    split: Any = context.dataset.train
    remaining, held_out = parted(len(split.ids), settings.validation_fraction)
    features, truth = pixels.of(held_out)
    if not len(truth):
        raise UserError(
            f"the {len(held_out)} held-out images show nothing that counts; "
            f"raise tasks.{context.task}.validation_fraction"
        )
    ridges = settings.ridges[::-1]
    scores = []
    with context.reporter.stage("fitting, held-out images", len(ridges), "fit") as bar:
        for layer in fits(*pixels.of(remaining), labels, ridges):
            predicted = layer(features).argmax(1)
            confusion = confusion_matrix(truth.cpu().numpy(), predicted.cpu().numpy(), labels)
            scores.append(100 * mean_iou(confusion))
            bar.advance(1)
    return scores


def _fit(pixels: _Pixels, ridge: float, context: Context) -> LinearLayer:
    """The layer on all training images, on the processor: each process has a device of its own."""
    labels = len(label_names(context))
    layer = next(fits(pixels.features, pixels.labels, labels, [ridge]))
    return layer.to(torch.device("cpu"))


def _predict(
    encoder: Encoder, layer: LinearLayer, split: MaskSplit, size: int, context: Context
) -> Arrays:
    """A confusion matrix for each test image, at the size of its mask."""
    names = label_names(context)

    def confusions(indices: Sequence[int], maps: list[Tensor]) -> list[np.ndarray]:
        coarse = coarse_logits(maps, layer)
        matrices = []
        for position, index in enumerate(indices):
            truth = read_mask(split.masks.root / split.masks.files[index])
            predicted = labels_of(coarse, position, truth.shape).cpu().numpy()
            matrices.append(confusion_matrix(truth, predicted, len(names)))
        return matrices

    matrices = _in_batches(encoder, split, size, context, "testing", confusions)
    return mask_predictions(split, range(len(split.ids)), matrices, names)


def _in_batches(
    encoder: Encoder, split: MaskSplit, size: int, context: Context, stage: str, compute: Any
) -> list[Any]:
    """What is computed of the maps of each batch, joined; every process has its share of batches.

    Args:
        encoder: frozen.
        split: of the images.
        size: of the input.
        context: the cell.
        stage: what to call it beside the progress bar.
        compute: called with the positions of a batch in the split and the maps; gives a list.
    """
    positions = batch_positions(len(split.ids))
    images = loader(split.images, whole_strides(size, encoder), context.device)
    batches: Iterator[Tensor] = batches_of(images)

    def of_next(indices: list[int]) -> Any:
        return compute(indices, maps_of(encoder, next(batches).to(context.device)))

    with context.reporter.stage(stage, len(positions), "batch") as bar:
        parts = distributed.in_shares(positions, of_next, bar.advance)
    return [item for part in parts for item in part]
