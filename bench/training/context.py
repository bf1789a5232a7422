"""TODO."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from bench import plugins
from bench.config.schema import Recipe, Suite
from bench.data.datasets import Data
from bench.data.image_folder import LabeledImages
from bench.data.voc import Voc
from bench.runtime.device import fast_bfloat16
from bench.runtime.environment import library_versions
from bench.runtime.fingerprint import digest
from bench.runtime.progress import Reporter


@dataclass(frozen=True)
class Context:
    """What a run hands to a method and to a task.

    Attributes:
        suite: the experiment.
        method: name of the method at work, whose recipe counts.
        seed: of every random draw.
        device: where to compute.
        data: the image sets.
        cache: a folder for what can be computed again.
        reporter: where progress is shown.
    """

    suite: Suite
    method: str
    seed: int
    device: torch.device
    data: Data
    cache: Path
    reporter: Reporter

    @property
    def recipe(self) -> Recipe:
        """How the method at work is trained."""
        return self.suite.recipe(self.method)

    @property
    def images(self) -> LabeledImages:
        """The pretraining images; a method that uses them says so in `datasets`."""
        assert self.data.corpus is not None, "declare datasets = ('pretraining',)"
        return self.data.corpus

    @property
    def voc(self) -> Voc:
        """The tasks' images; a task that uses them says so in `reads`."""
        assert self.data.voc is not None, "declare reads = ('voc',)"
        return self.data.voc

    @cached_property
    def key(self) -> str:
        """Digest of everything that decides the encoder."""
        plugin = plugins.load("methods", self.method)
        images = self.images.fingerprint if "pretraining" in plugin.datasets else None
        return digest(
            {
                "code": plugins.code("methods", self.method),
                "backbone": self.suite.backbone.model_dump(mode="json"),
                "recipe": self.recipe.model_dump(mode="json") if images else None,
                "images": images,
                "seed": self.seed,
                "versions": library_versions(),
                "device": [self.device.type, fast_bfloat16(self.device)],
            }
        )
