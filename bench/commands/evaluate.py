"""`bench.evaluate`: score a Python object beside the rows of a suite."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from bench import own_code, plugins
from bench.commands.request import CACHE, CACHE_VARIABLE, Request, checked_cache
from bench.commands.run import run
from bench.config import loader
from bench.config.schema import SEEDS
from bench.encoders.encoder import Encoder
from bench.encoders.module_encoder import encoder_around
from bench.encoders.weights import identity
from bench.errors import SHOWN, UserError, message, one_line
from bench.reporting.leaderboard import Leaderboard
from bench.results.record import LONGEST, plain_name
from bench.runtime import switches, variables
from bench.runtime.progress import Reporter
from bench.training.context import Context

# Threads share the random generators of torch, numpy and Python, and what `switches` owns.
_ONE_AT_A_TIME = threading.RLock()


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

    Process-wide switches, such as torch's default type or numpy's errors, do not count: they are
    put aside, and are as before at the end, as are the states of the random generators.

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
    with _ONE_AT_A_TIME, variables.owned(os.environ), switches.owned():
        methods = _methods(model, name)
        selected = plugins.select("tasks", ",".join(_texts("tasks", tasks)))
        if not isinstance(seeds, int) or not 0 <= seeds <= SEEDS:
            raise UserError(f"seeds={seeds}: must be a whole number of 0 to {SEEDS}")
        changes = _texts("overrides", overrides)
        settings = loader.load(suite, changes)
        request = Request(
            suite=settings,
            methods=tuple(methods),
            tasks=tuple(selected),
            seeds=tuple(range(seeds or settings.seeds)),
            data_root=None if data_root is None else Path(data_root),
            out=Path(out),
            cache=checked_cache(Path(cache or os.environ.get(CACHE_VARIABLE) or CACHE)),
            device=device,
            command=("bench.evaluate",),
            overrides=tuple(changes),
        )
        return run(request, Reporter())


def _methods(model: Any, name: str) -> list[str]:
    """The methods that a model, a class or names are, made known."""
    if isinstance(model, str | Sequence):
        return plugins.select("methods", ",".join(_texts("model", model)))
    _check_name(name)
    if isinstance(model, type):
        for attribute in ("datasets", "pretrain"):
            if not hasattr(model, attribute):
                raise UserError(f"{model.__name__}: has no `{attribute}`, so it is no method")
        plugins.add_object("methods", name, model, own_code.class_digest(model))
    else:
        encoder = _encoder(model, name)
        plugins.add_object("methods", name, _method(encoder), identity(encoder, name))
    return [name]


def _check_name(name: object) -> None:
    """Refuse what cannot be a row's name and a folder's, before anything is computed.

    Raises:
        UserError: it cannot, or a method has it.
    """
    if not isinstance(name, str):
        raise UserError(f"name={name}: must be text, not {type(name).__name__}")
    try:
        plain_name(name)
    except ValueError as error:
        raise UserError(f"name={name}: {error}") from None
    if len(os.fsencode(name)) > LONGEST:
        raise UserError(f"name={name[:SHOWN]}...: must be at most {LONGEST} bytes long")
    plugins.check_object_name("methods", name)


def _texts(argument: str, value: Any) -> list[str]:
    """One text or several, as a list.

    Raises:
        UserError: it is something else; names the argument.
    """
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{argument}: must be text or a list of texts, not {one_line(repr(value))}")
    return list(texts)


def _encoder(model: object, name: str) -> Encoder:
    """A copy of a model as an encoder, on the CPU, in evaluation mode."""
    if not isinstance(model, nn.Module):
        raise UserError(
            f"the model is a {type(model).__name__}; give a network (torch.nn.Module), the class "
            "of a method, or names of methods"
        )
    try:
        own = copy.deepcopy(model).cpu().eval()
    except Exception as error:  # whatever a module raises that cannot be copied
        raise UserError(f"{name}: the model cannot be copied: {message(error)}") from error
    return encoder_around(own, name)


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
