"""Classification, the whole network fine-tuned; AP is the mean precision at positives, no envelope.

The protocol of Krähenbühl et al. 2016 (voc-classification): a linear layer on the last stage,
binary cross-entropy, images that hold only `difficult` objects of a class left out for that class
in training and testing, scores of a fixed number of random crops added up at test, average
precision without an envelope, as scikit-learn computes it.

What changed: the rate is chosen for every row, from the same candidates, on a held-out part of the
training list; gradients are not clipped, biases learn at the rate of weights; equal scores share a
threshold instead of counting against the positives.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from typing import Any, ClassVar, get_args

import numpy as np
import torch

from bench import plugins
from bench.data.image_files import read
from bench.data.voc import Split, usable_classes
from bench.encoders.encoder import Encoder
from bench.evaluation.multilabel import MultiLabel
from bench.evaluation.task import TaskResult
from bench.metrics.average_precision import (
    Difficult,
    Kind,
    class_average_precisions,
    mean_average_precision,
)
from bench.metrics.rescore import headline
from bench.runtime.device import seed_everything
from bench.training.context import Context
from bench.training.finetuning import finite, tune

KIND: Kind = "step"  # scikit-learn's average_precision_score, in the released train_cls.py


class VocClsFinetune:
    """Mean average precision of fine-tuned networks, many crops of each test image."""

    reference: ClassVar[str] = "Krähenbühl et al. 2016, https://arxiv.org/abs/1511.06856"
    metric: ClassVar[str] = "mAP"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("voc",)

    def evaluate(self, encoder: Encoder, context: Context) -> TaskResult:
        """Choose a rate, fine-tune on the training list, score the test list."""
        settings = context.suite.voc_cls_finetune
        assert settings is not None
        train, test = context.voc.train, context.voc.test
        counted, excluded = usable_classes(
            context.voc, context.suite.voc.classes, context.suite.voc.min_positives
        )
        names = [context.suite.voc.classes[c] for c in counted]
        encoder.cpu()
        about = {
            "code": plugins.code("tasks", "voc_cls_finetune"),
            "encoder": encoder.weights_sha256(),
            "list": train.fingerprint,
            "classes": context.suite.voc.classes,
            "counted": counted,
        }

        def make() -> MultiLabel:
            return MultiLabel(copy.deepcopy(encoder), settings, train.truth)

        def predict(
            network: MultiLabel, split: Split, places: Sequence[int], stage: str
        ) -> dict[str, np.ndarray]:
            scores = _scores(network, split, places, settings.crops, context, stage)
            return {
                "ids": np.array([split.ids[place] for place in places]),
                "classes": np.array(names),
                "kind": np.array([KIND]),
                "scores": scores[:, counted],
                "truth": split.truth[list(places)][:, counted],
            }

        started = time.monotonic()
        tuned = tune(
            "voc_cls_finetune",
            make,
            lambda network, held: headline(predict(network, train, held, "held-out images")),
            train.images,
            settings,
            context,
            about,
        )
        network = tuned.network
        trained = time.monotonic()
        predictions = predict(network, test, range(len(test.ids)), "scoring")
        values, truth = predictions["scores"], predictions["truth"]
        scores: dict[str, Any] = {"mAP": headline(predictions), "excluded_classes": excluded}
        for kind in get_args(Kind):
            for difficult in get_args(Difficult):
                mean = mean_average_precision(values, truth, kind, difficult)
                scores[f"mAP_{kind}_difficult_{difficult}"] = 100 * mean
        each = (100 * class_average_precisions(values, truth, KIND)).tolist()
        scores["per_class"] = dict(zip(names, each, strict=True))
        return TaskResult(
            value=scores["mAP"],
            scores=scores,
            selection=tuned.selection | {"split": context.suite.voc.train, "crops": settings.crops},
            predictions=predictions,
            data={"voc_train": train.fingerprint, "voc_test": test.fingerprint},
            timings={"tuning": trained - started, "testing": time.monotonic() - trained},
        )


def _scores(
    network: MultiLabel,
    split: Split,
    places: Sequence[int],
    crops: int,
    context: Context,
    stage: str,
) -> np.ndarray:
    """Mean logits over the crops of each image, float32 (N, C); the same crops for every row."""
    rows = []
    with context.reporter.stage(stage, len(places)) as bar, torch.inference_mode():
        for place in places:
            seed_everything(place)
            image = read(split.images.root / split.images.files[place])
            views = torch.stack([network.view(image) for _ in range(crops)])
            rows.append(finite(network.score(views).float()).mean(0).cpu().numpy())
            bar.advance(1)
    return np.array(rows)
