"""What a method is, and how its encoder comes about: once, then from the cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Protocol

from bench import plugins
from bench.encoders.encoder import Encoder, load_encoder
from bench.encoders.promises import check_promises
from bench.errors import UserError
from bench.runtime import distributed, switches
from bench.runtime.device import seed_everything
from bench.runtime.files import damaged, read_cached, same_files, write_cached
from bench.runtime.fingerprint import file_digest
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
    with switches.owned():  # those that the file of a plug-in set too
        return _load_or_pretrain(method, context)


def _load_or_pretrain(method: Method, context: Context) -> Encoder:
    if not method.datasets:
        seed_everything(context.seed)
        return _checked(method.pretrain(context), context)
    path = context.cache / "encoders" / f"{context.method}-{context.key[:24]}.safetensors"
    with distributed.main_process_lock(path.with_suffix(".lock")):
        if not distributed.all_processes(_is_usable(path, context)):
            seed_everything(context.seed)
            encoder = method.pretrain(context)
            if distributed.is_main():
                encoder.save(path)
                about = {"sha256": file_digest(path), "files": context.files}
                write_cached(_about(path), json.dumps(about).encode())
            distributed.barrier()
        context.files.update(_read_about(path, context)["files"])
        encoder = load_encoder(path, context.backbone.name)
    return _checked(encoder, context)


def _checked(encoder: Encoder, context: Context) -> Encoder:
    """An encoder on the device, in evaluation mode, that keeps its promises."""
    check_promises(encoder, context.method)
    return encoder.to(context.device).eval()


def _about(path: Path) -> Path:
    """The file beside a cached encoder: its digest, and those of the files it was made from."""
    return path.with_suffix(".files.json")


def _read_about(path: Path, context: Context) -> dict[str, Any]:
    """The content of that file; without any digest if there is none."""
    content = read_cached(_about(path), context.reporter.say)
    about: dict[str, Any] = json.loads(content) if content else {"sha256": "", "files": {}}
    return about


def _is_usable(path: Path, context: Context) -> bool:
    """Whether a cached encoder is what was saved, and made from files that have not changed.

    A damaged one is named.

    Raises:
        UserError: it cannot be read.
    """
    if not path.exists():
        return False
    about = _read_about(path, context)
    try:
        present = file_digest(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if present == about["sha256"]:
        return same_files(about["files"])
    if about["sha256"]:
        context.reporter.say(damaged(path))
    return False
