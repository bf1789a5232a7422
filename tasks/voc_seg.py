"""Segmentation: a fully convolutional head on the encoder, fine-tuned end to end.

The head is the suite's: that of MoCo (He et al. 2020, appendix A) at stride 16, or FCN-32s (Long et
al. 2015). One confusion matrix over the whole test list, at the masks' own resolution, pixels of
index 255 left out.

What changed: the rate is chosen for every row, from the same candidates, on a held-out part of the
training list; the FCN-32s has one linear layer where the paper has two fully connected ones too.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from bench import plugins
from bench.data.image_files import read
from bench.data.voc_masks import Masked, read_mask
from bench.encoders.encoder import Encoder
from bench.errors import UserError
from bench.evaluation.fcn import Segmenter
from bench.evaluation.task import TaskResult
from bench.evaluation.visualize import SHOWN, grid, with_mask
from bench.metrics.rescore import headline
from bench.metrics.segmentation import class_ious, confusion_matrix
from bench.training.context import Context
from bench.training.finetuning import tune


class VocSeg:
    """Mean intersection over union of the classes that are there or found, background included."""

    reference: ClassVar[str] = "Long et al. 2015, https://arxiv.org/abs/1411.4038"
    metric: ClassVar[str] = "mIoU"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("masks",)

    def evaluate(self, encoder: Encoder, context: Context) -> TaskResult:
        """Choose a rate, fine-tune on the training list, label the test list."""
        settings, masks = context.suite.voc_seg, context.data.masks
        assert settings is not None and masks is not None
        names = ("background", *context.suite.voc.classes)
        encoder.cpu()
        about = {
            "code": plugins.code("tasks", "voc_seg"),
            "encoder": encoder.weights_sha256(),
            "list": masks.train.fingerprint,
            "classes": names,
        }

        def make() -> Segmenter:
            return Segmenter(copy.deepcopy(encoder), settings, masks.train, len(names))

        def score(network: Segmenter, places: Sequence[int]) -> float:
            return headline(_label(network, masks.train, places, context, "held-out images"))

        started = time.monotonic()
        tuned = tune("voc_seg", make, score, masks.train.images, settings, context, about)
        network = tuned.network
        trained = time.monotonic()
        places = range(len(masks.test.ids))
        predictions = _label(network, masks.test, places, context, "labeling")
        predictions["classes"] = np.array(names)
        whole = predictions["confusion"].sum(0)
        ious = class_ious(whole)
        present = np.isfinite(ious)
        scores: dict[str, Any] = {
            "mIoU": headline(predictions),
            "pixel_accuracy": 100 * float(np.diag(whole).sum() / whole.sum()),
            "per_class": {names[c]: 100 * float(ious[c]) for c in np.flatnonzero(present)},
            "excluded_classes": [names[c] for c in np.flatnonzero(~present)],
        }
        return TaskResult(
            value=scores["mIoU"],
            scores=scores,
            selection=tuned.selection | {"split": settings.train},
            predictions=predictions,
            data={"masks_train": masks.train.fingerprint, "masks_test": masks.test.fingerprint},
            timings={"tuning": trained - started, "testing": time.monotonic() - trained},
            image=_show(network, masks.test, len(names)),
        )


def _label(
    network: Segmenter, masked: Masked, places: Sequence[int], context: Context, stage: str
) -> dict[str, np.ndarray]:
    """A confusion matrix for each image."""
    size, matrices = len(context.suite.voc.classes) + 1, []
    with context.reporter.stage(stage, len(places)) as bar:
        for place in places:
            found = network.segment(read(masked.images.root / masked.images.files[place]))
            truth = read_mask(masked.masks.root / masked.masks.files[place])
            matrices.append(confusion_matrix(truth, found.cpu().numpy(), size))
            bar.advance(1)
    confusion = np.array(matrices, dtype=np.int32)
    if not confusion.any():
        raise UserError(f"the masks of {len(places)} images hold no pixel that counts")
    return {
        "ids": np.array([masked.ids[place] for place in places]),
        "confusion": confusion,
    }


def _show(network: Segmenter, masked: Masked, labels: int) -> np.ndarray:
    """The first test images under the labels found, each beside that under its mask."""
    panels = []
    for number in range(min(SHOWN, len(masked.ids))):
        image = read(masked.images.root / masked.images.files[number])
        truth = torch.from_numpy(read_mask(masked.masks.root / masked.masks.files[number]))
        panels += [with_mask(image, m, labels) for m in (network.segment(image).cpu(), truth)]
    return grid(panels)
