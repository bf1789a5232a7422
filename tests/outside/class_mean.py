"""Nearest class mean: the class whose training images have the nearest mean."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch.nn import functional as F

from bench.config.schema import Positive, TaskSettings
from bench.evaluation.features import features
from bench.evaluation.task import Hyperparameters, TaskResult


class ClassMean:
    """Mean class accuracy of the nearest class mean, on one frozen stage."""

    reference: ClassVar[str] = "Mensink et al. 2013, https://doi.org/10.1109/TPAMI.2013.83"
    version: ClassVar[int] = 1
    metric: ClassVar[str] = "class_accuracy"
    dataset_kinds: ClassVar[tuple[str, ...]] = ("image_folder",)

    class Settings(TaskSettings):
        """Which features."""

        dataset: str = "scenes"
        size: Positive = 64
        stage: int = -1

    def evaluate(self, encoder, context):
        """Take the mean of the highest cosine similarity."""
        train, test = context.dataset.train, context.dataset.test
        vectors = self._vectors(encoder, train, "train", context)
        labels = torch.from_numpy(train.labels)
        classes = range(len(context.dataset.classes))
        means = torch.stack([vectors[labels == c].mean(0) for c in classes])
        votes = self._vectors(encoder, test, "test", context) @ F.normalize(means, dim=1).T
        return TaskResult(
            predictions={
                "ids": np.array(test.ids),
                "classes": np.array(context.dataset.classes),
                "predicted": votes.argmax(1).numpy(),
                "label": np.asarray(test.labels),
            },
            hyperparameters=Hyperparameters(),
        )

    def _vectors(self, encoder, split, name, context):
        """Averages of the stage's map, (N, C), of length 1."""
        settings = context.settings
        dimensions = encoder.channels[settings.stage]
        stages = features(encoder, split.images, settings.size, dimensions, context, name)
        return F.normalize(torch.from_numpy(np.array(stages[settings.stage])), dim=1)
