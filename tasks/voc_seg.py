"""Segmentation: a fully convolutional head on the encoder, fine-tuned end to end.

The head is the suite's: that of MoCo (He et al. 2020, appendix A) at stride 16, or FCN-32s (Long et
al. 2015). The score is of one confusion matrix over the whole test split, at the masks' own
resolution, without pixels of index 255.

What changed: the learning rate is selected for every row, from the same values, on a part of the
training split, unless the suite gives one; what MoCo's text leaves open is in docs/protocols.md;
the FCN-32s has one linear layer where the paper has two fully connected ones too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from bench.data.image_files import read
from bench.data.voc_masks import MaskSplit, read_mask
from bench.encoders.encoder import Encoder
from bench.evaluation.fcn import SegmentationSettings, Segmenter
from bench.evaluation.finetuned_task import Arrays, FineTunedTask
from bench.evaluation.masks import draw_masks, label_names, mask_predictions, pixel_accuracy
from bench.metrics.segmentation import confusion_matrix
from bench.runtime import distributed
from bench.training.context import Context


class VocSeg(FineTunedTask):
    """Mean intersection over union of the classes that are there or predicted, with background."""

    reference: ClassVar[str] = "Long et al. 2015, https://arxiv.org/abs/1411.4038"
    metric: ClassVar[str] = "mIoU"
    version: ClassVar[int] = 1
    dataset_kinds: ClassVar[tuple[str, ...]] = ("voc_masks",)
    Settings = SegmentationSettings

    def network(self, encoder: Encoder, context: Context) -> Segmenter:
        """A fully convolutional network with the head of the suite."""
        train: Any = context.dataset.train
        return Segmenter(encoder, context.settings, train, len(label_names(context)))

    def predict(
        self,
        network: Segmenter,
        split: MaskSplit,
        indices: Sequence[int],
        context: Context,
        stage: str,
    ) -> Arrays:
        """A confusion matrix for each image."""
        names = label_names(context)

        def confusion_of(index: int) -> np.ndarray:
            labels = network.segment(read(split.images.root / split.images.files[index]))
            truth = read_mask(split.masks.root / split.masks.files[index])
            return confusion_matrix(truth, labels.cpu().numpy(), len(names))

        with context.reporter.stage(stage, len(indices)) as bar:
            matrices = distributed.in_shares(indices, confusion_of, bar.advance)
        return mask_predictions(split, indices, matrices, names)

    def diagnostics(self, predictions: Arrays) -> dict[str, float | None]:
        """Share of the pixels with the right label."""
        return pixel_accuracy(predictions)

    def visualize(self, network: Segmenter, predictions: Arrays, context: Context) -> np.ndarray:
        """Pairs of the first test images. Left: the predicted labels; right: the mask."""
        return draw_masks(network.segment, context)
