"""Linear classification of one label on frozen features: the stages' curve, or the last stage.

Two protocols, by settings. Goyal et al. 2019 (section 6.1 and their released code; Zhang et al.
2017 before): every stage is average-pooled to at most about 9,000 values, a batch norm without
parameters follows (`batch_norm`), and a linear classifier is trained by SGD on the cross-entropy,
at a rate of 0.01. He et al. 2020 (MoCo, section 4.1): the last stage's average alone
(`stages = "last"`), no batch norm, no weight decay, 100 epochs, the rate divided by ten after 60
and 80. Their rate is 30: it depends on the scale of features, so several are tried.

What changed: features are computed once, of the squashed image, where both papers train on random
crops; that costs accuracy, and the numbers are comparable within a table only. The batch norm has
the statistics of the training split instead of those of each batch. Rate and stage are selected on
held-out training images, the same for every row; the papers report every stage, or the best, on
the test split, and what that would add is the row's optimism. The classifier then trains on the
whole training split.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from bench.config.schema import Batch, Fraction, Positive, Rate, TaskSettings, ascending
from bench.data.datasets import labeled_splits
from bench.data.image_folder import LabeledImages
from bench.encoders.encoder import Encoder
from bench.evaluation.diagnostics import collapse_warnings, effective_rank
from bench.evaluation.features import features
from bench.evaluation.probes import linear_svm, softmax_regression
from bench.evaluation.task import Hyperparameters, TaskResult
from bench.runtime.distributed import in_shares, share
from bench.training.context import Context
from bench.training.trainer import NonFiniteLossError

TOP = 5  # of top-5 accuracy


class ImagenetLinear:
    """Top-1 accuracy of multinomial logistic regression on frozen features."""

    reference: ClassVar[str] = "Goyal et al. 2019, https://arxiv.org/abs/1905.01235"
    version: ClassVar[int] = 1
    metric: ClassVar[str] = "top1"
    dataset_kinds: ClassVar[tuple[str, ...]] = ("image_folder",)

    class Settings(TaskSettings):
        """The linear classifier."""

        dataset: str = "labeled"
        size: Positive
        """Side to which an image is resized, pixels."""
        dimensions: Positive
        """Most values a stage is pooled to."""
        stages: Literal["all", "last"] = "all"
        """Which stages are tried; `last` is the model's own vector where it has one."""
        batch_norm: bool = True
        """Whether every channel is scaled to mean 0 and variance 1."""
        learning_rates: tuple[Rate, ...]
        """The learning rates to select from, ascending."""
        epochs: Positive
        batch: Batch = 256
        """Images in one step."""
        weight_decay: Annotated[float, Field(ge=0, le=1e6)] = 0.0
        milestones: tuple[Fraction, ...] = (0.6, 0.8)
        """Shares of the epochs after which the learning rate is divided by ten."""
        validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
        """Share of the training split that selects rate and stage, and is not trained on then."""

        @field_validator("learning_rates")
        @classmethod
        def _ascending(cls, value: tuple[float, ...]) -> tuple[float, ...]:
            return ascending(value)

    def evaluate(self, encoder: Encoder, context: Context) -> TaskResult:
        """Extract features, select rate and stage, train on the whole split, predict the test."""
        settings: ImagenetLinear.Settings = context.settings
        train, test = labeled_splits(context.dataset, context.task)
        extraction = (settings.size, settings.dimensions, context)
        started = time.monotonic()
        train_features = features(encoder, train.images, *extraction, "train")
        test_features = features(encoder, test.images, *extraction, "test")
        extracted = time.monotonic()
        labels = np.asarray(train.labels)
        order = np.random.default_rng(0).permutation(len(labels))
        count = max(1, round(len(order) * settings.validation_fraction))
        held_out, remaining = np.sort(order[:count]), np.sort(order[count:])
        stages = range(len(train_features))
        stages = stages[-1:] if settings.stages == "last" else stages
        total = 2 * settings.epochs * len(share(stages))
        with context.reporter.stage("linear classifiers", total, "epoch") as bar:

            def probe(stage: int) -> tuple[np.ndarray, np.ndarray]:
                """Held-out accuracy of every rate, (R,), and its best classes, (R, M, 5)."""
                own, tested = train_features[stage], test_features[stage]
                # A model's own vector comes after the stages, and has no cells.
                channels = [*encoder.channels, own.shape[1]][stage]
                trained = (own, labels, channels, context, bar.advance)
                selecting = _best_classes(remaining, *trained, own, held_out)
                final = _best_classes(np.arange(len(own)), *trained, tested, np.arange(len(tested)))
                accuracy = (selecting[..., 0] == labels[held_out]).mean(1)
                diverged = (selecting < 0).any((1, 2)) | (final < 0).any((1, 2))
                return np.where(diverged, np.nan, accuracy), final

            validation, top = map(np.array, zip(*in_shares(stages, probe), strict=True))
        timings = {"features": extracted - started, "probe": time.monotonic() - extracted}
        if np.isnan(validation).all():
            raise NonFiniteLossError(
                f"{context.task}: diverged at every rate of {list(settings.learning_rates)}; "
                f"lower tasks.{context.task}.learning_rates"
            )
        rank = _rank(train_features, stages[_selected(validation)[0]], context)
        return _result(validation, top, stages, test, rank, context, timings)


def _best_classes(
    rows: np.ndarray,
    own: np.ndarray,
    labels: np.ndarray,
    channels: int,
    context: Context,
    advance: Callable[[int], None],
    on: np.ndarray,
    asked: np.ndarray,
) -> np.ndarray:
    """Train on some images; the best classes of others at every rate, (R, M, 5); -1 if diverged.

    Args:
        rows: positions of the training images.
        own: features of the training split, (N, D).
        labels: its labels, (N,).
        channels: of the stage.
        context: the cell.
        advance: called with the number of epochs done.
        on: features of the others' split.
        asked: positions of the M others.
    """
    settings, classes = context.settings, len(context.dataset.classes)
    scale = softmax_regression.scale_of(own, rows, channels) if settings.batch_norm else None
    weights = softmax_regression.fit(
        *(own, labels, rows, classes, settings, scale, context.seed, context.device, advance)
    )
    best = softmax_regression.best_classes(on, asked, weights, scale, min(TOP, classes))
    finite = weights.isfinite().all(2).all(0).cpu().numpy()
    return np.where(finite[:, None, None], best, -1)


def _selected(validation: np.ndarray) -> tuple[int, int]:
    """The position of the best stage and rate, of held-out accuracies (S, R); nan is none."""
    stage, rate = np.unravel_index(np.nanargmax(validation), validation.shape)
    return int(stage), int(rate)


def _rank(train_features: Sequence[np.ndarray], stage: int, context: Context) -> float:
    """Effective rank of one stage, of the rows that `effective_rank` would take of all."""
    rows = train_features[stage]
    some = rows[:: max(1, len(rows) // 1024)]
    return effective_rank(linear_svm.normalized_stage(some, stage, context.device))


def _result(
    validation: np.ndarray,
    top: np.ndarray,
    stages: Sequence[int],
    test: LabeledImages,
    rank: float,
    context: Context,
    timings: dict[str, float],
) -> TaskResult:
    """Predictions of the stage and the rate that held-out training images select."""
    settings, dataset = context.settings, context.dataset
    label = np.asarray(test.labels)
    values = 100 * (top[..., 0] == label).mean(2)  # (S, R)
    place, rate = _selected(validation)
    reached = np.where(np.isnan(validation), -1, validation)
    curve = [float(own[best]) for own, best in zip(values, reached.argmax(1), strict=True)]
    every = settings.stages == "all"
    top5 = 100 * float((top[place, rate] == label[:, None]).any(1).mean())
    return TaskResult(
        predictions={
            "ids": np.array(test.ids),
            "classes": np.array(dataset.classes),
            "predicted": top[place, rate, :, 0],
            "label": label,
        },
        hyperparameters=Hyperparameters(
            selected={"stage": stages[place], "learning_rate": settings.learning_rates[rate]},
            num_settings=validation.size,
            split=f"{settings.validation_fraction:.0%} of {dataset.name} train",
            tried={
                "learning_rate": list(settings.learning_rates),
                "stage_validation_top1": (100 * reached.max(1).clip(0)).tolist(),
            },
        ),
        per_stage=curve if every else None,
        selected_stage=place if every else None,
        diagnostics={
            "top5": top5 if len(dataset.classes) > TOP else None,
            "best_on_test": float(values.max()),
            "optimism": float(values.max() - values[place, rate]),
            "effective_rank": rank,
        },
        warnings=collapse_warnings(rank),
        timings=timings,
    )
