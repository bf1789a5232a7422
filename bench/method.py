"""What a method is, and how its encoder is obtained: once, then from the cache."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar, Protocol

import torch

from bench import plugins, processes
from bench.corpus import Corpus
from bench.data import Data
from bench.device import fast_bfloat16, seed_everything
from bench.digest import digest
from bench.encoder import Encoder, load_encoder
from bench.progress import Reporter
from bench.suite import Recipe, Suite
from bench.voc import Voc


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
    def corpus(self) -> Corpus:
        """The pretraining pictures; a method that uses them says so in `reads`."""
        assert self.data.corpus is not None, "declare reads = ('corpus',)"
        return self.data.corpus

    @property
    def voc(self) -> Voc:
        """The tasks' pictures; a task that uses them says so in `reads`."""
        assert self.data.voc is not None, "declare reads = ('voc',)"
        return self.data.voc

    @cached_property
    def key(self) -> str:
        """Digest of everything that decides the encoder."""
        plugin = plugins.load("methods", self.method)
        corpus = self.corpus.fingerprint if "corpus" in plugin.reads else None
        return digest(
            {
                "code": plugins.code("methods", self.method),
                "backbone": self.suite.backbone.model_dump(mode="json"),
                "recipe": self.recipe.model_dump(mode="json") if corpus else None,
                "corpus": corpus,
                "seed": self.seed,
                "versions": library_versions(),
                "device": [self.device.type, fast_bfloat16(self.device)],
            }
        )


class Method(Protocol):
    """One way to obtain a pretrained encoder. One file in `methods/`.

    Attributes:
        reference: paper, year, link.
        reads: the image sets it needs: ("corpus",) or ().
    """

    reference: ClassVar[str]
    reads: ClassVar[tuple[str, ...]]

    def pretrain(self, context: Context) -> Encoder:
        """Obtain the encoder, on any device; deterministic in `context.seed`."""
        ...


def library_versions() -> dict[str, str]:
    """The libraries whose release may change a number."""
    return {
        name: version(name)
        for name in ("torch", "torchvision", "timm", "kornia", "accelerate", "numpy", "pillow")
    }


def obtain(context: Context) -> Encoder:
    """The method's encoder, in evaluation mode: from the cache, or pretrained and cached now.

    One that needs no corpus costs nothing and is made afresh, so that new weights behind an old
    name are never missed.
    """
    method: Method = plugins.load("methods", context.method)()
    if not method.reads:
        seed_everything(context.seed)
        return method.pretrain(context).to(context.device).eval()
    path = context.cache / "encoders" / f"{context.method}-{context.key[:24]}.safetensors"
    with processes.alone(path.with_suffix(".lock")):
        if not processes.everywhere(path.exists()):
            seed_everything(context.seed)
            made = method.pretrain(context)
            if processes.is_main():
                made.save(path)
            processes.wait()
        encoder = load_encoder(path, context.suite.backbone.name)
    return encoder.to(context.device).eval()
