"""Tasks that fine-tune a network on the encoder."""

from __future__ import annotations

import copy
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from bench import plugins
from bench.config.schema import FineTuning
from bench.data.datasets import Split
from bench.encoders.encoder import Encoder
from bench.encoders.promises import check_trainable
from bench.encoders.transformer import transformer_of
from bench.evaluation.task import Hyperparameters, TaskResult
from bench.metrics import NothingToScoreError, registry
from bench.runtime.distributed import is_main
from bench.training.context import Context
from bench.training.finetuning import FineTunedNetwork, TuningResult, suited, tune

Arrays = dict[str, np.ndarray]


class FineTunedTask(ABC):
    """A task that trains a network on the encoder, its learning rate selected for every encoder.

    A subclass says what the network is and what it predicts.
    """

    reference: ClassVar[str]
    version: ClassVar[int]
    metric: ClassVar[str]
    dataset_kinds: ClassVar[tuple[str, ...]]
    Settings: ClassVar[type[FineTuning]]

    @abstractmethod
    def network(self, encoder: Encoder, context: Context) -> FineTunedNetwork:
        """A fresh network that takes over an encoder."""

    @abstractmethod
    def predict(
        self, network: Any, split: Any, indices: Sequence[int], context: Context, stage: str
    ) -> Arrays:
        """`ids` and the arrays of the metric, for some images of a split.

        Args:
            network: trained, in evaluation mode.
            split: of the task's data set.
            indices: of the images.
            context: the cell.
            stage: what to call it beside the progress bar.
        """

    def excluded_classes(self, context: Context) -> list[str]:
        """Classes left out of the mean."""
        return []

    def diagnostics(self, predictions: Arrays) -> dict[str, float | None]:
        """Other measures of the test split by name."""
        return {}

    def visualize(self, network: Any, predictions: Arrays, context: Context) -> np.ndarray | None:
        """Predictions beside ground truth, uint8 (H, W, 3)."""
        return None

    def evaluate(self, encoder: Encoder, context: Context) -> TaskResult:
        """Select a learning rate, fine-tune on the training split, predict the test split."""
        settings = suited(context.settings, encoder)
        dataset = context.dataset
        train, test = dataset.train, dataset.test
        assert test is not None
        metric = registry.get(getattr(settings, "metric", self.metric))
        encoder.cpu()
        if not settings.frozen:
            check_trainable(encoder, context.method)

        def make() -> FineTunedNetwork:
            return self.network(copy.deepcopy(encoder), context)

        def score(network: FineTunedNetwork, indices: Sequence[int]) -> float:
            predictions = self.predict(network, train, indices, context, "validation images")
            try:
                return registry.value(metric, predictions)
            except NothingToScoreError:
                return math.nan

        started = time.monotonic()
        identity = self._identity(encoder, context)
        tuned = tune(context.task, make, score, train.images, settings, context, identity)
        trained = time.monotonic()
        predictions = self.predict(tuned.network, test, range(len(test.ids)), context, "testing")
        return TaskResult(
            predictions=predictions,
            hyperparameters=_hyperparameters(tuned, settings, dataset.name),
            excluded_classes=self.excluded_classes(context),
            diagnostics=self.diagnostics(predictions),
            timings={"tuning": trained - started, "testing": time.monotonic() - trained},
            image=self.visualize(tuned.network, predictions, context) if is_main() else None,
            trace=tuned.trace,
        )

    def _identity(self, encoder: Encoder, context: Context) -> dict[str, Any]:
        """Versions that decide weights and scores, beside settings, images and seed."""
        dataset = context.dataset
        train: Split = dataset.train
        by_block = {"rates": "by block"} if transformer_of(encoder) is not None else {}
        return {
            **by_block,
            "task": [context.task, self.version, plugins.own_digest("tasks", context.task)],
            "encoder": [encoder.weights_sha256(), context.method_digest],
            "split": train.fingerprint,
            "classes": list(dataset.classes),
            "excluded": self.excluded_classes(context),
        }


def _hyperparameters(tuned: TuningResult[Any], settings: FineTuning, data: str) -> Hyperparameters:
    """What was tried and selected; a given learning rate was neither."""
    selected = {"learning_rate": tuned.learning_rate}
    if not tuned.scores:
        return Hyperparameters(selected)
    return Hyperparameters(
        selected,
        num_settings=len(tuned.scores),
        split=f"{settings.validation_fraction:.0%} of {data} train",
        tried={
            "learning_rate": list(settings.learning_rates),
            "validation_score": tuned.scores,
        },
    )
