"""Detection: Faster R-CNN on the encoder, fine-tuned end to end.

The protocol is the suite's: a feature pyramid, or that of MoCo (He et al. 2020, appendix A), with
proposals from stride 16 and the last stage in the head. Objects marked `difficult` count neither
way in testing. Boxes are matched as the VOC devkit does. COCO's scores are of the same detections.

What changed: the learning rate is selected for every row, from the same values, on a part of the
training split, where the papers give all rows one rate; a suite with one rate does so too. With the
pyramid, images are scaled by their longest side and put into the upper left of a square, so that
every encoder is given each alone; difficult objects are not trained on; regions are pooled and
boxes regressed as torchvision does it. MoCo's detector is as released; docs/protocols.md lists what
differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from bench.data.datasets import usable_classes
from bench.data.image_files import read
from bench.data.voc import BoxSplit
from bench.encoders.encoder import Encoder
from bench.evaluation.faster_rcnn import DetectionSettings, Detector
from bench.evaluation.faster_rcnn_c4 import C4Detector
from bench.evaluation.finetuned_task import Arrays, FineTunedTask
from bench.evaluation.visualize import MIN_SCORE, NUM_IMAGES, grid, with_boxes
from bench.metrics import registry
from bench.metrics.coco import coco_scores
from bench.runtime import distributed
from bench.training.context import Context


class VocDet(FineTunedTask):
    """VOC average precision at an overlap of one half, 11-point or area as the suite says."""

    reference: ClassVar[str] = "Ren et al. 2015, https://arxiv.org/abs/1506.01497"
    metric: ClassVar[str] = "AP50"
    version: ClassVar[int] = 2
    dataset_kinds: ClassVar[tuple[str, ...]] = ("voc", "coco")
    Settings = DetectionSettings

    def network(self, encoder: Encoder, context: Context) -> Detector | C4Detector:
        """Faster R-CNN by the protocol of the suite."""
        train: Any = context.dataset.train
        build = C4Detector if context.settings.protocol == "c4" else Detector
        return build(encoder, context.settings, train.objects, context.dataset.classes)

    def predict(
        self,
        network: Detector | C4Detector,
        split: BoxSplit,
        indices: Sequence[int],
        context: Context,
        stage: str,
    ) -> Arrays:
        """Detections and objects, one line each; images are numbered from 0."""
        names = context.dataset.classes

        def detect(index: int) -> dict[str, list[Any]]:
            detections = network.detect(read(split.images.root / split.images.files[index]))
            return {key: values.cpu().tolist() for key, values in detections.items()}

        with context.reporter.stage(stage, len(indices)) as bar:
            detections = distributed.in_shares(indices, detect, bar.advance)
        lines: dict[str, list[Any]] = {name: [] for name in ("image", "label", "score", "box")}
        for number, detected in enumerate(detections):
            lines["image"] += [number] * len(detected["labels"])
            for name, key in (("label", "labels"), ("score", "scores"), ("box", "boxes")):
                lines[name] += detected[key]
        objects = [(n, entry) for n, index in enumerate(indices) for entry in split.objects[index]]
        crowd = np.array([o.crowd for _, o in objects], dtype=bool)
        return {
            **({"true_crowd": crowd} if crowd.any() else {}),
            "ids": np.array([split.ids[index] for index in indices]),
            "classes": np.array(names),
            "counted": np.array(usable_classes(context.dataset)[0]),
            "image": np.array(lines["image"], dtype=np.int32),
            "label": np.array(lines["label"], dtype=np.int16),
            "score": np.array(lines["score"], dtype=np.float32),
            "box": np.array(lines["box"], dtype=np.float32).reshape(-1, 4),
            "true_image": np.array([n for n, _ in objects], dtype=np.int32),
            "true_class": np.array([names.index(o.name) for _, o in objects], dtype=np.int16),
            "true_box": np.array([o.box for _, o in objects], dtype=np.float32).reshape(-1, 4),
            "true_difficult": np.array([o.difficult for _, o in objects], dtype=bool),
        }

    def excluded_classes(self, context: Context) -> list[str]:
        """Classes with too few positive images in a split."""
        return usable_classes(context.dataset)[1]

    def diagnostics(self, predictions: Arrays) -> dict[str, float | None]:
        """Both VOC average precisions, and COCO's."""
        metrics = [registry.get(name) for name in AVERAGE_PRECISIONS]
        both = {metric.name: registry.value(metric, predictions) for metric in metrics}
        return both | coco_scores(predictions)

    def visualize(self, network: Any, predictions: Arrays, context: Context) -> np.ndarray:
        """Pairs of the first test images. Left: detections of score 0.5 or more; right: objects."""
        split: Any = context.dataset.test
        panels = []
        for number in range(min(NUM_IMAGES, len(split.ids))):
            image = read(split.images.root / split.images.files[number])
            certain = predictions["score"] >= MIN_SCORE
            detected = (predictions["image"] == number) & certain
            true = predictions["true_image"] == number
            for box, label, rows in (("box", "label", detected), ("true_box", "true_class", true)):
                labels = predictions[label][rows]
                boxes = predictions[box][rows]
                panels.append(with_boxes(image, boxes, labels, len(context.dataset.classes)))
        return grid(panels)


AVERAGE_PRECISIONS = ("AP50", "AP50_area")
