"""Nearest neighbors on the frozen last stage: a weighted vote, scored by top-1 or mAP.

The protocol of Wu et al. 2018 (section 3.4) as DINO's released `eval_knn.py` runs it: features have
length 1, and the k nearest training images by cosine similarity s vote with the weight
exp(s / temperature). The class with the most weight is predicted.

What changed: k is selected by leave-one-out on the training split, where that script prints every
k on the test split. An image is squashed to a square instead of cropped. On VOC and COCO, which
have several labels, an image scores in each class the share of the neighbors' weight that shows
it; a neighbor with only `difficult` objects of a class is left out of that class. The average over
the last stage's map is that over the cells of its pooled grid, for the features to be those of
`voc_cls`. It is the same where the cells do not overlap; where they do, pixels in two count twice.
"""

from __future__ import annotations

import time
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor
from torch.nn import functional as F

from bench.config.schema import ImageFolder, Positive, TaskSettings, ascending
from bench.data.datasets import labeled_splits, usable_classes
from bench.encoders.encoder import Encoder
from bench.errors import UserError
from bench.evaluation.diagnostics import collapse_warnings, effective_rank
from bench.evaluation.features import features
from bench.evaluation.probes.nearest import vote
from bench.evaluation.task import Hyperparameters, TaskResult
from bench.metrics import registry
from bench.training.context import Context

SELECTION = 10_000  # training images that select k, at most: every n-th of a larger split


class Knn:
    """Top-1 accuracy, or mAP of several labels, of a weighted vote of neighbors."""

    reference: ClassVar[str] = "Wu et al. 2018, https://arxiv.org/abs/1805.01978"
    version: ClassVar[int] = 1
    metric: ClassVar[str] = "top1"
    dataset_kinds: ClassVar[tuple[str, ...]] = ("image_folder", "voc", "coco")

    class Settings(TaskSettings):
        """How neighbors vote."""

        dataset: str = "labeled"
        metric: Literal["top1", "mAP"] = "top1"
        """`top1` of an image folder, `mAP` of VOC and COCO."""
        size: Positive
        """Side to which an image is resized, pixels."""
        dimensions: Positive
        """Most values a stage is pooled to, before the average over its cells."""
        neighbors: tuple[Positive, ...] = (10, 20, 100, 200)
        """The numbers of neighbors to select from, ascending; those of `eval_knn.py`."""
        temperature: Annotated[float, Field(gt=0)] = 0.07

        @field_validator("neighbors")
        @classmethod
        def _ascending(cls, value: tuple[int, ...]) -> tuple[int, ...]:
            ascending(value)
            return value

    def evaluate(self, encoder: Encoder, context: Context) -> TaskResult:
        """Extract features, select k on the training split, let neighbors vote."""
        settings: Knn.Settings = context.settings
        dataset = context.dataset
        classes, excluded = _classes(context)
        train: Any = dataset.train
        test: Any = dataset.test
        if settings.neighbors[-1] >= len(train.ids):
            raise UserError(
                f"tasks.knn.neighbors: {settings.neighbors[-1]} of {len(train.ids)} training "
                "images; use fewer"
            )
        names = np.array([dataset.classes[c] for c in classes])
        started = time.monotonic()
        bank = _vectors(encoder, train, "train", context)
        queries = _vectors(encoder, test, "test", context)
        extracted = time.monotonic()
        own = np.arange(0, len(bank), -(-len(bank) // SELECTION))
        voters = (bank, _codes(train.labels, classes), settings.neighbors, settings.temperature)
        metric = registry.get(settings.metric)
        left_out, voted = (
            [_predictions(shares, split, rows, classes, names) for shares in vote(*parts)]
            for parts, split, rows in (
                ((bank[own], *voters, own), train, own),
                ((queries, *voters), test, np.arange(len(queries))),
            )
        )
        validation = [registry.value(metric, predictions) for predictions in left_out]
        values = [registry.value(metric, predictions) for predictions in voted]
        best = int(np.argmax(validation))
        rank = effective_rank(bank)
        by_k = zip(settings.neighbors, values, strict=True)
        return TaskResult(
            predictions=voted[best],
            hyperparameters=Hyperparameters(
                selected={"neighbors": settings.neighbors[best]},
                num_settings=len(settings.neighbors),
                split=f"leave-one-out of {dataset.name} train",
                tried={"neighbors": list(settings.neighbors), "validation_score": validation},
            ),
            excluded_classes=excluded,
            diagnostics={
                **{f"{settings.metric}_k{k}": value for k, value in by_k},
                "best_on_test": max(values),
                "optimism": max(values) - values[best],
                "effective_rank": rank,
            },
            warnings=collapse_warnings(rank),
            timings={"features": extracted - started, "probe": time.monotonic() - extracted},
        )


def _classes(context: Context) -> tuple[list[int], list[str]]:
    """The indices of the classes to score, and the names of the rest.

    Raises:
        UserError: the metric is not for data sets of this kind, or there are no labels.
    """
    dataset, metric = context.dataset, context.settings.metric
    fitting = "top1" if isinstance(dataset.section, ImageFolder) else "mAP"
    if metric != fitting:
        raise UserError(
            f"tasks.knn.metric: '{metric}' cannot score data set '{dataset.name}' of kind "
            f"{dataset.section.kind}; use '{fitting}'"
        )
    if fitting == "mAP":
        return usable_classes(dataset)
    labeled_splits(dataset, context.task)
    return list(range(len(dataset.classes))), []


def _codes(labels: np.ndarray, classes: list[int]) -> np.ndarray:
    """Labels as VOC has them, (N, C): 1 shows the class, -1 does not, 0 is difficult."""
    if labels.ndim == 2:
        return labels[:, classes]
    return np.where(labels[:, None] == classes, np.int8(1), np.int8(-1))


def _predictions(
    shares: np.ndarray, split: Any, rows: np.ndarray, classes: list[int], names: np.ndarray
) -> dict[str, np.ndarray]:
    """The arrays of either metric, for some images of a split, from their shares (M, C)."""
    ids, labels = np.array(split.ids)[rows], split.labels[rows]
    if labels.ndim == 2:
        return {"ids": ids, "classes": names, "scores": shares, "truth": labels[:, classes]}
    return {"ids": ids, "classes": names, "predicted": shares.argmax(1), "label": labels}


def _vectors(encoder: Encoder, split: Any, name: str, context: Context) -> Tensor:
    """The last stage's average, or the model's own vector, (N, C), rows of length 1.

    Raises:
        ValueError: they are not all finite.
    """
    settings = context.settings
    stages = features(encoder, split.images, settings.size, settings.dimensions, context, name)
    last = torch.from_numpy(np.array(stages[-1])).to(context.device)
    if len(stages) == len(encoder.channels):
        last = last.unflatten(1, (encoder.channels[-1], -1)).mean(2)
    if not last.isfinite().all():
        raise ValueError("the features of the last stage are not all finite")
    return F.normalize(last, dim=1)
