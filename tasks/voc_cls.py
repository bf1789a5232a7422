"""Classification by linear SVMs on one stage of the frozen network; AP: area below the envelope.

The protocol of Goyal et al. 2019 (section 4 and the released `tools/svm` scripts): every stage is
average-pooled to at most about 9,000 values and L2-normalized; a squared-hinge linear SVM with
positives weighted 2:1 is trained per class, its cost selected per class by 3-fold cross-validation
on the training split. Images that only have `difficult` objects of a class count as negatives in
training and are ignored in testing, as in those scripts.

What changed: the stage is selected by the same cross-validation instead of being the best on the
test split, which that paper reports; folds are scored by the area under the envelope, the metric of
the main score; pooling windows are adaptive (the same grids).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, field_validator

from bench.config.schema import Positive, TaskSettings, ascending
from bench.data.datasets import usable_classes
from bench.encoders.encoder import Encoder
from bench.evaluation.diagnostics import collapse_warnings, effective_rank
from bench.evaluation.features import features
from bench.evaluation.probes import linear_svm
from bench.evaluation.task import Hyperparameters, TaskResult
from bench.metrics.average_precision import (
    class_average_precisions,
    mean_average_precision,
    mean_average_precisions,
)
from bench.runtime.distributed import in_shares, share
from bench.training.context import Context


class VocCls:
    """Mean average precision (area under the envelope, difficult ignored) of frozen features."""

    reference: ClassVar[str] = "Goyal et al. 2019, https://arxiv.org/abs/1905.01235"
    metric: ClassVar[str] = "mAP"
    version: ClassVar[int] = 1
    dataset_kinds: ClassVar[tuple[str, ...]] = ("voc", "coco")

    class Settings(TaskSettings):
        """The frozen linear support vector machine."""

        dataset: str = "voc"
        size: Positive
        """Side to which an image is resized, pixels."""
        dimensions: Positive
        """Most values a stage is pooled to."""
        costs: tuple[float, ...]
        """The costs to select from, ascending."""
        folds: Annotated[int, Field(ge=2)]
        """Of the cross-validation on the training split that selects among them."""

        @field_validator("costs")
        @classmethod
        def _ascending(cls, value: tuple[float, ...]) -> tuple[float, ...]:
            return ascending(value)

    def evaluate(self, encoder: Encoder, context: Context) -> TaskResult:
        """Extract features, select and refit on the training split, score the test split."""
        settings: VocCls.Settings = context.settings
        dataset = context.dataset
        train: Any = dataset.train
        test: Any = dataset.test
        classes, excluded = usable_classes(dataset, settings.folds, "tasks.voc_cls.folds")
        labels = train.labels[:, classes]
        truth = test.labels[:, classes]
        extraction = (settings.size, settings.dimensions, context)
        started = time.monotonic()
        train_features = features(encoder, train.images, *extraction, "train")
        test_features = features(encoder, test.images, *extraction, "test")
        extracted = time.monotonic()
        stages = range(len(train_features))
        problems = len(classes) * len(settings.costs) * (settings.folds + 1)
        with context.reporter.stage("probing", problems * len(share(stages)), "fit") as bar:

            def probe(stage: int) -> tuple[float, linear_svm.Probe]:
                fitted, scored = (
                    linear_svm.normalized_stage(split[stage], stage, context.device)
                    for split in (train_features, test_features)
                )
                return effective_rank(fitted), linear_svm.fit(
                    fitted, labels, scored, settings.costs, settings.folds, advance=bar.advance
                )

            ranks, probes = zip(*in_shares(stages, probe), strict=True)
        names = [dataset.classes[c] for c in classes]
        timings = {"features": extracted - started, "probe": time.monotonic() - extracted}
        return _result(probes, ranks, truth, names, test.ids, excluded, context, timings)


def _result(
    probes: Sequence[linear_svm.Probe],
    ranks: Sequence[float],
    truth: np.ndarray,
    names: Sequence[str],
    ids: Sequence[str],
    excluded: list[str],
    context: Context,
    timings: dict[str, float],
) -> TaskResult:
    """Predictions of the stage and the costs that cross-validation selects."""
    costs = context.settings.costs
    index = np.arange(len(names))
    validation = np.array([probe.cv[index, probe.selected].mean() for probe in probes])
    stage = int(validation.argmax())
    by_stage = np.stack([probe.scores[index, probe.selected].T for probe in probes])  # (S, N, C)
    best = _best_on_test(probes, truth)
    curve = [100 * mean_average_precision(scores, truth) for scores in by_stage]
    best_value = 100 * mean_average_precision(best, truth)
    unconverged = sum(probe.unconverged for probe in probes)
    warnings = collapse_warnings(ranks[stage])
    if unconverged:
        warnings.append(f"{unconverged} probe fits unconverged")
    selected = [costs[k] for k in probes[stage].selected]
    return TaskResult(
        predictions={
            "ids": np.array(ids),
            "classes": np.array(names),
            "scores": by_stage[stage],
            "truth": truth,
            "stage_scores": by_stage,
            "best_scores": best,
        },
        hyperparameters=Hyperparameters(
            selected={"stage": stage, "cost": dict(zip(names, selected, strict=True))},
            num_settings=len(costs) * len(probes),
            split=f"{context.settings.folds}-fold cross-validation of {context.dataset.name} train",
            tried={"cost": list(costs), "stage_validation_mAP": (100 * validation).tolist()},
        ),
        excluded_classes=excluded,
        per_stage=curve,
        selected_stage=stage,
        diagnostics={
            **mean_average_precisions(by_stage[stage], truth),
            "best_on_test": best_value,
            "optimism": best_value - curve[stage],
            "effective_rank": ranks[stage],
        },
        warnings=warnings,
        timings=timings,
    )


def _best_on_test(probes: Sequence[linear_svm.Probe], truth: np.ndarray) -> np.ndarray:
    """Scores (N, C) of the stage and costs that are best on the test split: a diagnostic only."""
    candidates = []
    for probe in probes:
        table = np.array(
            [
                class_average_precisions(probe.scores[:, k].T, truth)
                for k in range(probe.cv.shape[1])
            ]
        )
        best = table.argmax(0)
        index = np.arange(len(best))
        candidates.append((table[best, index].mean(), probe.scores[index, best].T))
    best_scores: np.ndarray = max(candidates, key=lambda pair: float(pair[0]))[1]
    return best_scores
