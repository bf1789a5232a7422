"""What can be named, and what users bring: list, test, doctor, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from bench import plugins
from bench.cli.options import (
    OUT,
    AllowMissing,
    Cache,
    DataRoot,
    Device,
    Out,
    Overrides,
    SuiteName,
    TrustRemoteCode,
    Verbose,
    output,
)
from bench.commands.request import CACHE, Locations, Request
from bench.config import loader
from bench.errors import UserError
from bench.runtime.progress import Reporter


def list_(
    kind: Annotated[
        Literal["methods", "tasks", "suites"] | None, typer.Argument(help="What to list.")
    ] = None,
) -> None:
    """Methods, tasks and suites by name, one line each.

    Example: bench list methods
    """
    from bench.commands import list as command

    for line in command.lines(kind):
        typer.echo(line)


def test(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A method or a task: one file.")],
    kind: Annotated[
        Literal["method", "task"] | None,
        typer.Option(help="What it is; by default what its class says."),
    ] = None,
    suite: SuiteName = "smoke",
    cache: Cache = CACHE,
    set_: Overrides = None,
    verbose: Verbose = False,
) -> None:
    """Run the contract tests on a method or task of your own; exit 1 if one fails.

    Example: bench test ./flip.py
    """
    from bench.commands import test as command

    ok = command.test(path, kind, suite, set_ or [], cache, Reporter(), output())
    raise typer.Exit(0 if ok else 1)


def doctor(
    spec: Annotated[
        str, typer.Argument(metavar="SPEC", help="Weights, as file:my.pth?arch=resnet50.")
    ],
    suite: SuiteName = "mini",
    data_root: DataRoot = None,
    out: Out = OUT,
    cache: Cache = CACHE,
    device: Device = "auto",
    set_: Overrides = None,
    allow_missing: AllowMissing = False,
    trust_remote_code: TrustRemoteCode = False,
    verbose: Verbose = False,
) -> None:
    """How a checkpoint is read, and what its features look like; exit 1 if that is suspicious.

    Example: bench doctor "file:my.pth?arch=resnet50"
    """
    from bench.commands import doctor as command

    methods = plugins.select("methods", spec, allow_missing, trust_remote_code)
    if len(methods) != 1:
        raise UserError(f"{spec}: name one at a time")
    settings = loader.load(suite, set_)
    request = Request(settings, tuple(methods), (), (0,), data_root, out, cache, device)
    diagnosis = command.diagnose(request, Reporter())
    stdout = output(100)
    for part in diagnosis.render():
        stdout.print(part, highlight=False, markup=False)
    raise typer.Exit(1 if diagnosis.suspicions else 0)


def export(
    record: Annotated[Path, typer.Argument(metavar="RECORD", help="A seedK.json.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new .safetensors or .pth.")],
    data_root: DataRoot = None,
    cache: Cache = CACHE,
    device: Device = "auto",
    verbose: Verbose = False,
) -> None:
    """Write the encoder of a record as a timm state dict; it is trained again if not cached.

    Example: bench export results/local/mini/voc_cls/rotation/seed0.json rotation.safetensors
    """
    from bench.commands import export as command

    locations = Locations(OUT, cache, data_root, device)
    typer.echo(command.export(record, file, locations, Reporter()))
