"""Detection: Faster R-CNN on the encoder, fine-tuned end to end.

The protocol is the suite's: a feature pyramid, or the one of MoCo (He et al. 2020, appendix A),
with proposals from stride 16 and the last stage in the head. Objects marked `difficult` are not
trained on and count neither way in testing. Boxes are matched as the VOC devkit does; COCO's scores
are of the same detections.

What changed: images are scaled by their longest side and stand in the upper left of a square, so
that every encoder sees each alone; the rate is chosen for every row, from the same candidates, on a
held-out part of the training list, where the papers give all rows one rate; regions are pooled and
boxes regressed as torchvision does it, where detectron2 differs; statistics are the running ones.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from bench import plugins
from bench.data.image_files import ImageFiles, read
from bench.data.voc import Split, usable_classes
from bench.encoders.encoder import Encoder
from bench.evaluation.faster_rcnn import Detector
from bench.evaluation.task import TaskResult
from bench.evaluation.visualize import SHOWN, SURE, grid, with_boxes
from bench.metrics.average_precision import Kind
from bench.metrics.coco import coco_scores
from bench.metrics.rescore import detection_precisions, headline
from bench.training.context import Context
from bench.training.finetuning import tune


class VocDet:
    """VOC average precision at an overlap of one half, 11-point or area as the suite says."""

    reference: ClassVar[str] = "Ren et al. 2015, https://arxiv.org/abs/1506.01497"
    metric: ClassVar[str] = "AP50"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("voc",)

    def evaluate(self, encoder: Encoder, context: Context) -> TaskResult:
        """Choose a rate, fine-tune on the training list, detect on the test list."""
        settings, names = context.suite.voc_det, context.suite.voc.classes
        assert settings is not None
        train, test = context.voc.train, context.voc.test
        counted, excluded = usable_classes(
            context.voc, context.suite.voc.classes, context.suite.voc.min_positives
        )
        encoder.cpu()
        about = {
            "code": plugins.code("tasks", "voc_det"),
            "encoder": encoder.weights_sha256(),
            "list": train.fingerprint,
            "classes": names,
            "counted": counted,
        }

        def make() -> Detector:
            return Detector(copy.deepcopy(encoder), settings, train.objects, names)

        def score(network: Detector, places: Sequence[int]) -> float:
            found = _detect(network, train, places, names, context, "held-out images")
            return _headline(found | {"counted": np.array(counted)}, settings.metric)

        started = time.monotonic()
        tuned = tune("voc_det", make, score, train.images, settings, context, about)
        network = tuned.network
        trained = time.monotonic()
        places = range(len(test.ids))
        predictions = _detect(network, test, places, names, context, "detecting")
        predictions |= {"counted": np.array(counted), "kind": np.array([settings.metric])}
        scores: dict[str, Any] = {}
        for kind in ("11-point", "area"):
            scores[f"AP50_{kind}"] = _headline(predictions, kind)
        scores |= coco_scores(predictions)
        precisions = detection_precisions(predictions, settings.metric)
        scores["per_class"] = {
            names[c]: 100 * float(p) for c, p in zip(counted, precisions, strict=True)
        }
        scores["excluded_classes"] = excluded
        return TaskResult(
            value=scores[f"AP50_{settings.metric}"],
            scores=scores,
            selection=tuned.selection | {"split": context.suite.voc.train},
            predictions=predictions,
            data={"voc_train": train.fingerprint, "voc_test": test.fingerprint},
            timings={"tuning": trained - started, "testing": time.monotonic() - trained},
            image=_show(predictions, test, len(names)),
        )


def _headline(predictions: dict[str, np.ndarray], kind: Kind) -> float:
    return headline(predictions | {"kind": np.array([kind])})


def _detect(
    network: Detector,
    split: Split,
    places: Sequence[int],
    names: Sequence[str],
    context: Context,
    stage: str,
) -> dict[str, np.ndarray]:
    """Detections and objects of some images of a list, one line each, images from 0."""
    found: dict[str, list[Any]] = {name: [] for name in ("image", "label", "score", "box")}
    images: ImageFiles = split.images
    with context.reporter.stage(stage, len(places)) as bar:
        for number, place in enumerate(places):
            shown = network.detect(read(images.root / images.files[place]))
            found["image"] += [number] * len(shown["labels"])
            for name, key in (("label", "labels"), ("score", "scores"), ("box", "boxes")):
                found[name] += shown[key].cpu().tolist()
            bar.advance(1)
    objects = [(n, thing) for n, place in enumerate(places) for thing in split.objects[place]]
    return {
        "ids": np.array([split.ids[place] for place in places]),
        "classes": np.array(names),
        "image": np.array(found["image"], dtype=np.int32),
        "label": np.array(found["label"], dtype=np.int16),
        "score": np.array(found["score"], dtype=np.float32),
        "box": np.array(found["box"], dtype=np.float32).reshape(-1, 4),
        "true_image": np.array([n for n, _ in objects], dtype=np.int32),
        "true_class": np.array([names.index(t.name) for _, t in objects], dtype=np.int16),
        "true_box": np.array([t.box for _, t in objects], dtype=np.float32).reshape(-1, 4),
        "true_difficult": np.array([t.difficult for _, t in objects], dtype=bool),
    }


def _show(predictions: dict[str, np.ndarray], split: Split, classes: int) -> np.ndarray:
    """The first test images with the detections that are sure, each beside its objects."""
    panels = []
    for number in range(min(SHOWN, len(split.ids))):
        image = read(split.images.root / split.images.files[number])
        mine = (predictions["image"] == number) & (predictions["score"] >= SURE)
        true = predictions["true_image"] == number
        for boxes, labels, chosen in (("box", "label", mine), ("true_box", "true_class", true)):
            found = predictions[boxes][chosen], predictions[labels][chosen]
            panels.append(with_boxes(image, *found, classes))
    return grid(panels)
