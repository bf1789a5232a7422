"""`bench.evaluate`: score a Python object beside the rows of a suite."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from torch import nn

from bench import plugins
from bench.commands.request import CACHE, CACHE_VARIABLE, Request
from bench.commands.run import run
from bench.config import loader
from bench.encoders.encoder import Encoder
from bench.encoders.module_encoder import ModuleEncoder
from bench.encoders.weights import identity
from bench.errors import UserError
from bench.reporting.leaderboard import Leaderboard
from bench.runtime import variables
from bench.runtime.fingerprint import digest
from bench.runtime.progress import Reporter
from bench.training.context import Context


def evaluate(
    model: nn.Module | type | str | Sequence[str],
    tasks: str | Sequence[str],
    suite: str = "mini",
    *,
    name: str = "model",
    data_root: str | Path | None = None,
    out: str | Path = "results/local",
    cache: str | Path | None = None,
    device: str = "auto",
    seeds: int = 0,
    overrides: Sequence[str] = (),
) -> Leaderboard:
    """Score a model or methods; what is up to date is not computed again.

    Args:
        model: a network on RGB in [0, 1] (see `ModuleEncoder`), a timm model, an `Encoder`; a
            method's class; or names of methods, as `bench run --methods` takes them.
        tasks: names or files, comma-separated or as a list; `all` is every one.
        suite: a shipped suite, or a TOML file.
        name: of the row, where `model` is an object.
        data_root: folder with the suite's data sets, if it does not render its own.
        out: folder for records and leaderboards.
        cache: folder for what can be computed again; None is as on the command
            line: SSL_GAP_CACHE, or the user's cache folder.
        device: a torch device's name, or `auto`.
        seeds: how many; 0 is as the suite says.
        overrides: keys of the suite, as `pretraining.crop=48`.

    Returns:
        The leaderboard of the suite below `out`.

    Raises:
        UserError: the request cannot be carried out; the message says what to do.

    Example:
        >>> import bench, timm  # doctest: +SKIP
        >>> model = timm.create_model("resnet18", pretrained=True)  # doctest: +SKIP
        >>> leaderboard = bench.evaluate(  # doctest: +SKIP
        ...     model, "voc_cls", name="resnet18", out="results/resnet18"
        ... )
        >>> leaderboard.to_dataframe()  # doctest: +SKIP
    """
    variables.own(os.environ)
    if isinstance(model, str) or (isinstance(model, Sequence) and not isinstance(model, type)):
        methods = plugins.select("methods", _joined(model))
    elif isinstance(model, type):
        plugins.add_object("methods", name, model, _source_digest(model))
        methods = [name]
    else:
        encoder = _encoder(model, name)
        plugins.add_object("methods", name, _method(encoder), identity(encoder))
        methods = [name]
    selected = plugins.select("tasks", _joined(tasks))
    settings = loader.load(suite, list(overrides))
    request = Request(
        suite=settings,
        methods=tuple(methods),
        tasks=tuple(selected),
        seeds=tuple(range(seeds or settings.seeds)),
        data_root=None if data_root is None else Path(data_root),
        out=Path(out),
        cache=Path(cache or os.environ.get(CACHE_VARIABLE) or CACHE),
        device=device,
        command=("bench.evaluate",),
    )
    return run(request, Reporter())


def _joined(names: str | Sequence[str]) -> str:
    return names if isinstance(names, str) else ",".join(names)


def _source_digest(method: type) -> str:
    """What identifies the code of a class: its source, where Python can say it."""
    import inspect

    try:
        return digest(inspect.getsource(method))
    except (OSError, TypeError):
        raise UserError(
            f"{method.__name__}: its source cannot be read; write it into a file and give its path"
        ) from None


def _encoder(model: nn.Module, name: str) -> Encoder:
    """A copy of a model as an encoder, on the CPU, in evaluation mode."""
    own = copy.deepcopy(model).cpu().eval()
    return own if isinstance(own, Encoder) else ModuleEncoder(own, name)


def _method(encoder: Encoder) -> type:
    """A method that hands over an encoder as it is."""

    class Given:
        """A model from a Python program."""

        reference: ClassVar[str] = ""
        version: ClassVar[int] = 1
        datasets: ClassVar[tuple[str, ...]] = ()
        inputs: ClassVar[tuple[str, ...]] = tuple(encoder.inputs)

        def pretrain(self, context: Context) -> Encoder:
            return copy.deepcopy(encoder)

    return Given
