"""The protocol of a task, and its result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np

from bench.config.schema import TaskSettings
from bench.encoders.encoder import Encoder
from bench.encoders.pretraining import TrainingTrace
from bench.training.context import Context


@dataclass(frozen=True)
class Hyperparameters:
    """Hyperparameters that a task selected, on training images alone.

    Attributes:
        selected: name -> selected value, JSON-compatible.
        num_settings: how many settings were compared; 1 if nothing was tuned.
        split: on which images they were compared.
        tried: the settings and their scores, one list for each name.
    """

    selected: dict[str, Any] = field(default_factory=dict)
    num_settings: int = 1
    split: str = ""
    tried: dict[str, list[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskResult:
    """Predictions of a task on the test split. The framework computes the scores.

    Attributes:
        predictions: `ids`, the N names of the test images, and the arrays of the task's metric.
        hyperparameters: what was tuned; nothing by default.
        excluded_classes: classes left out of the mean.
        per_stage: the main score of every stage of the encoder in points, fine to coarse.
        selected_stage: the stage whose predictions these are.
        diagnostics: other measures by name; `optimism` and `effective_rank` have a column.
        warnings: what a reader must know before believing the score.
        timings: seconds by stage.
        image: predictions beside ground truth, uint8 (H, W, 3).
        trace: of the task's own training, if it trains a network.
    """

    predictions: dict[str, np.ndarray]
    hyperparameters: Hyperparameters = field(default_factory=Hyperparameters)
    excluded_classes: list[str] = field(default_factory=list)
    per_stage: list[float] | None = None
    selected_stage: int | None = None
    diagnostics: dict[str, float | None] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    image: np.ndarray | None = None
    trace: TrainingTrace | None = None


class Task(Protocol):
    """One protocol that scores an encoder. One file.

    Attributes:
        reference: paper, year, link.
        version: raised whenever a score may change.
        metric: name of the main score in `metrics.registry`; a field `metric` of the settings
            takes its place.
        dataset_kinds: the kinds of data set it can use, see `config.schema`.
        Settings: the model of its section `[tasks.NAME]`.
    """

    reference: ClassVar[str]
    version: ClassVar[int]
    metric: ClassVar[str]
    dataset_kinds: ClassVar[tuple[str, ...]]
    Settings: ClassVar[type[TaskSettings]]

    def evaluate(self, encoder: Encoder, context: Context) -> TaskResult:
        """Score an encoder of its own (a copy), in evaluation mode on `context.device`."""
        ...
