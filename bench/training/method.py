"""What a method is, and how its encoder is obtained: once, then from the cache."""

from __future__ import annotations

from typing import ClassVar, Protocol

from bench import plugins
from bench.encoders.encoder import Encoder, load_encoder
from bench.runtime import distributed
from bench.runtime.device import seed_everything
from bench.training.context import Context


class Method(Protocol):
    """One way to load_or_pretrain a pretrained encoder. One file in `methods/`.

    Attributes:
        reference: paper, year, link.
        version: raised when its weights may change.
        datasets: what it trains on: ("pretraining",) or ().
    """

    reference: ClassVar[str]
    version: ClassVar[int]
    datasets: ClassVar[tuple[str, ...]]

    def pretrain(self, context: Context) -> Encoder:
        """Obtain the encoder, on any device; deterministic in `context.seed`."""
        ...


def load_or_pretrain(context: Context) -> Encoder:
    """The method's encoder, in evaluation mode: from the cache, or pretrained and cached now.

    One that trains on nothing costs nothing and is not cached, so that new weights behind an old
    name are never missed.
    """
    method: Method = plugins.load("methods", context.method)()
    if not method.datasets:
        seed_everything(context.seed)
        return method.pretrain(context).to(context.device).eval()
    path = context.cache / "encoders" / f"{context.method}-{context.key[:24]}.safetensors"
    with distributed.main_process_lock(path.with_suffix(".lock")):
        if not distributed.all_processes(path.exists()):
            seed_everything(context.seed)
            made = method.pretrain(context)
            if distributed.is_main():
                made.save(path)
            distributed.barrier()
        encoder = load_encoder(path, context.suite.backbone.name)
    return encoder.to(context.device).eval()
