"""What a task is, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np

from bench.encoders.encoder import Encoder
from bench.training.context import Context


@dataclass(frozen=True)
class TaskResult:
    """What one evaluation found.

    Attributes:
        value: the headline, in points 0-100, higher is better.
        scores: every variant by name, JSON-compatible.
        selection: what was tuned, over how many candidates, what was chosen, on which split.
        predictions: arrays from which every score can be computed again.
        data: fingerprint of each image set used.
        timings: seconds by stage.
        flags: what a reader must know before believing the value.
        image: predictions beside the truth, to look at, uint8 (H, W, 3).
    """

    value: float
    scores: dict[str, Any]
    selection: dict[str, Any]
    predictions: dict[str, np.ndarray]
    data: dict[str, str]
    timings: dict[str, float]
    flags: list[str] = field(default_factory=list)
    image: np.ndarray | None = None


class Task(Protocol):
    """One way to score an encoder. One file in `tasks/`.

    Attributes:
        reference: paper, year, link.
        metric: name of the headline.
        version: raised whenever a score may change.
        reads: the image sets it needs: any of "voc" and "masks".
    """

    reference: ClassVar[str]
    metric: ClassVar[str]
    version: ClassVar[int]
    reads: ClassVar[tuple[str, ...]]

    def evaluate(self, encoder: Encoder, context: Context) -> TaskResult:
        """Score an encoder of its own (a copy), in evaluation mode on `context.device`."""
        ...
