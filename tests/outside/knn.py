"""Nearest neighbors: the class that most of the nearest training images have."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch.nn import functional as F

from bench.config.schema import Positive, TaskSettings
from bench.evaluation.features import features
from bench.evaluation.task import Hyperparameters, TaskResult


class Knn:
    """Share of the test images whose class a weighted vote of neighbors gives."""

    reference: ClassVar[str] = "Wu et al. 2018, https://arxiv.org/abs/1805.01978"
    version: ClassVar[int] = 1
    metric: ClassVar[str] = "top1"
    dataset_kinds: ClassVar[tuple[str, ...]] = ("image_folder",)

    class Settings(TaskSettings):
        """How neighbors vote."""

        dataset: str = "scenes"
        size: Positive = 64
        neighbors: Positive = 20
        temperature: Annotated[float, Field(gt=0)] = 0.07

    def evaluate(self, encoder, context):
        """Vote by the cosine similarity of the last stage's average."""
        settings = context.settings
        train, test = context.dataset.train, context.dataset.test
        bank = self._vectors(encoder, train, "train", context)
        queries = self._vectors(encoder, test, "test", context)
        similarity, index = (queries @ bank.T).topk(settings.neighbors, dim=1)
        votes = torch.zeros(len(queries), len(context.dataset.classes))
        weights = (similarity / settings.temperature).exp()
        votes.scatter_add_(1, torch.from_numpy(train.labels)[index], weights)
        return TaskResult(
            predictions={
                "ids": np.array(test.ids),
                "predicted": votes.argmax(1).numpy(),
                "label": np.asarray(test.labels),
            },
            hyperparameters=Hyperparameters(),
        )

    def _vectors(self, encoder, split, name, context):
        """Averages of the last stage's map, (N, C), of length 1."""
        size, dimensions = context.settings.size, encoder.channels[-1]
        stages = features(encoder, split.images, size, dimensions, context, name)
        return F.normalize(torch.from_numpy(np.array(stages[-1])), dim=1)
