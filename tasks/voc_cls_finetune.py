"""Classification, the whole network fine-tuned; AP is the mean precision at positives, no envelope.

The protocol of Krähenbühl et al. 2016 (voc-classification): a linear layer on the last stage,
binary cross-entropy, images that only have `difficult` objects of a class left out for that class
in training and testing, scores of a fixed number of random crops added up at test, average
precision without an envelope, as scikit-learn computes it.

What changed: the learning rate is selected for every row, from the same values, on a part of the
training split; gradients are not clipped, biases learn at the rate of weights; equal scores share a
threshold instead of counting against the positives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from bench.data.datasets import usable_classes
from bench.data.image_files import read
from bench.data.voc import BoxSplit
from bench.encoders.encoder import Encoder
from bench.evaluation.finetuned_task import Arrays, FineTunedTask
from bench.evaluation.multilabel import ClassificationSettings, MultiLabel
from bench.metrics.average_precision import mean_average_precisions
from bench.runtime import distributed
from bench.runtime.device import seed_everything
from bench.training.context import Context
from bench.training.finetuning import finite


class VocClsFinetune(FineTunedTask):
    """Mean average precision without an envelope, difficult ignored."""

    reference: ClassVar[str] = "Krähenbühl et al. 2016, https://arxiv.org/abs/1511.06856"
    metric: ClassVar[str] = "mAP_step"
    version: ClassVar[int] = 1
    dataset_kinds: ClassVar[tuple[str, ...]] = ("voc", "coco")
    Settings = ClassificationSettings

    def network(self, encoder: Encoder, context: Context) -> MultiLabel:
        """The encoder and a linear layer."""
        train: Any = context.dataset.train
        return MultiLabel(encoder, context.settings, train.labels)

    def predict(
        self,
        network: MultiLabel,
        split: BoxSplit,
        indices: Sequence[int],
        context: Context,
        stage: str,
    ) -> Arrays:
        """Mean logits over the crops of each image; the same crops for every row."""
        crops = context.settings.crops

        def mean_logits(index: int) -> np.ndarray:
            seed_everything(index)
            image = read(split.images.root / split.images.files[index])
            views = torch.stack([network.view(image) for _ in range(crops)])
            logits: Tensor = finite(network.score(views).float()).mean(0)
            return logits.cpu().numpy()

        with context.reporter.stage(stage, len(indices)) as bar, torch.inference_mode():
            rows = distributed.in_shares(indices, mean_logits, bar.advance)
        counted, _ = usable_classes(context.dataset)
        return {
            "ids": np.array([split.ids[index] for index in indices]),
            "classes": np.array([context.dataset.classes[c] for c in counted]),
            "scores": np.array(rows)[:, counted],
            "truth": split.labels[list(indices)][:, counted],
        }

    def excluded_classes(self, context: Context) -> list[str]:
        """Classes with too few positive images in a split."""
        return usable_classes(context.dataset)[1]

    def diagnostics(self, predictions: Arrays) -> dict[str, float | None]:
        """Every kind of mean average precision."""
        return mean_average_precisions(predictions["scores"], predictions["truth"])
