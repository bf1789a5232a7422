"""What a method is, and how its encoder comes about: once, then from the cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar, Protocol

from bench import plugins
from bench.encoders.encoder import Encoder, load_encoder
from bench.runtime import distributed
from bench.runtime.device import seed_everything
from bench.runtime.files import atomic_write, same_files
from bench.training.context import Context


class Method(Protocol):
    """One way to obtain a pretrained encoder. One file.

    Attributes:
        reference: paper, year, link.
        version: raised whenever its weights may change.
        datasets: `("pretraining",)` if it trains on the suite's images, else `()`.
    """

    reference: ClassVar[str]
    version: ClassVar[int]
    datasets: ClassVar[tuple[str, ...]]

    def pretrain(self, context: Context) -> Encoder:
        """The encoder, on any device; deterministic in `context.seed`."""
        ...


def load_or_pretrain(context: Context) -> Encoder:
    """The method's encoder, in evaluation mode: from the cache, or pretrained and cached now.

    One that trains on no images costs nothing and is made afresh, so that new weights behind an old
    name are never missed.
    """
    method: Method = plugins.load("methods", context.method)()
    if not method.datasets:
        seed_everything(context.seed)
        return method.pretrain(context).to(context.device).eval()
    path = context.cache / "encoders" / f"{context.method}-{context.key[:24]}.safetensors"
    files = path.with_suffix(".files.json")
    with distributed.main_process_lock(path.with_suffix(".lock")):
        if not distributed.all_processes(path.exists() and _unchanged(files)):
            seed_everything(context.seed)
            encoder = method.pretrain(context)
            if distributed.is_main():
                path.parent.mkdir(parents=True, exist_ok=True)
                atomic_write(files, json.dumps(context.files).encode())
                encoder.save(path)
            distributed.barrier()
        context.files.update(json.loads(files.read_bytes()))
        encoder = load_encoder(path, context.suite.backbone.name)
    return encoder.to(context.device).eval()


def _unchanged(files: Path) -> bool:
    """Whether the files that a cached encoder was made from are what they were."""
    try:
        return same_files(json.loads(files.read_bytes()))
    except (OSError, ValueError):
        return False
