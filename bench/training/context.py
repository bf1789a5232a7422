"""What a run hands to a method and to a task."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from bench import plugins
from bench.config import settings
from bench.config.schema import PRETRAINING, Backbone, Recipe, Suite
from bench.data.datasets import Dataset, Datasets
from bench.data.image_folder import LabeledImages
from bench.encoders.imagenet import source_of
from bench.runtime.device import fast_bfloat16
from bench.runtime.environment import library_versions
from bench.runtime.fingerprint import digest, file_digest
from bench.runtime.progress import Reporter
from bench.training.tracking import Tracking


@dataclass(frozen=True)
class Context:
    """What a run hands to a method and to a task.

    Attributes:
        suite: the experiment.
        method: name of the method at work, whose recipe counts.
        seed: of every random draw.
        device: where to compute.
        datasets: the opened data sets by name.
        cache: a folder for what can be computed again.
        reporter: for progress.
        task: name of the task at work; empty while the method is.
        files: digests of the files that the method read, see `read_file`.
        tracking: the trackers that follow every training run.
        method_digest: of the method's own code, see `plugins.own_digest`, as it was at the start.
    """

    suite: Suite
    method: str
    seed: int
    device: torch.device
    datasets: Datasets
    cache: Path
    reporter: Reporter
    task: str = ""
    files: dict[str, str] = field(default_factory=dict)
    tracking: Tracking = field(default_factory=Tracking)
    method_digest: str = ""

    def __post_init__(self) -> None:
        own = self.method_digest or plugins.own_digest("methods", self.method)
        object.__setattr__(self, "method_digest", own)

    @cached_property
    def backbone(self) -> Backbone:
        """The network of the method at work: its own, or the suite's."""
        name = plugins.describe("methods", self.method).backbone
        return Backbone(name=name, imagenet=source_of(name)) if name else self.suite.backbone

    @cached_property
    def recipe(self) -> Recipe:
        """How the method at work is trained: its own `Settings`."""
        return settings.recipe(self.suite, self.method)

    @cached_property
    def settings(self) -> Any:
        """The settings of the task at work: its own `Settings`."""
        return settings.task_settings(self.suite, self.task)

    @property
    def images(self) -> LabeledImages:
        """The pretraining images; a method that uses them names them in its `datasets`."""
        split = self.datasets[PRETRAINING].train
        assert isinstance(split, LabeledImages)
        return split

    @property
    def validation(self) -> LabeledImages | None:
        """The images on which a pretext task is scored, if the suite declares any."""
        return self.datasets[PRETRAINING].validation

    @property
    def dataset(self) -> Dataset:
        """The data set that the settings of the task at work name."""
        return self.datasets[self.settings.dataset]

    def run_tracking(self, part: str = "") -> Tracking:
        """The tracking of one training run: METHOD/seedK, or METHOD/TASK/seedK of a task.

        Args:
            part: what sets one run of a task apart, after seedK.
        """
        names = (self.method, self.task, f"seed{self.seed}", part)
        run = "/".join(name for name in names if name)
        return replace(self.tracking, run=run, say=self.reporter.say)

    def read_file(self, path: Path, name: str = "") -> Path:
        """Note that the method reads a file: another content makes its records outdated.

        Args:
            path: the file.
            name: what records call it, see `runtime.files.locate`; the path by default.

        Returns:
            The path.
        """
        self.files[name or str(path)] = file_digest(path)
        return path

    @cached_property
    def key(self) -> str:
        """Digest of everything that decides the encoder."""
        described = plugins.describe("methods", self.method)
        trains = described.trains_on_suite
        skips = trains and self.images.images.damaged == "skip"
        validation = self.validation if trains else None
        return digest(
            {
                "method": [self.method, described.version],
                "own": self.method_digest,
                "backbone": self.backbone.model_dump(mode="json"),
                "recipe": self.recipe.model_dump(mode="json") if trains else None,
                "images": self.images.fingerprint if trains else None,
                "seed": self.seed,
                "versions": library_versions(),
                "device": [self.device.type, fast_bfloat16(self.device)],
                **({"damaged": "skip"} if skips else {}),
                **({"validation": validation.fingerprint} if validation else {}),
            }
        )
