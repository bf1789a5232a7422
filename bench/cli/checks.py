"""Whether numbers hold: check, reproduce, calibrate, audit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench import plugins
from bench.cli.options import (
    OUT,
    Cache,
    DataRoot,
    Device,
    Metrics,
    Out,
    Overrides,
    SuiteName,
    Verbose,
    Workers,
    output,
    task_names,
)
from bench.commands.request import CACHE, Locations
from bench.config import loader
from bench.runtime.partial import temporary_folder
from bench.runtime.progress import Reporter
from bench.runtime.workers import cores


def check(
    reference: Annotated[Path, typer.Option(help="Records to compare with, and order.toml.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the new records; those in it are taken as they are."),
    ] = None,
    data_root: DataRoot = None,
    cache: Cache = CACHE,
    device: Device = "auto",
    workers: Workers = 0,
    verbose: Verbose = False,
) -> None:
    """Rerun a folder of reference results; exit 1 if one changed or the order no longer holds.

    Example: bench check --reference results/check
    """
    from bench.commands import check as command

    with temporary_folder() as temporary:
        locations = Locations(out or temporary, cache, data_root, device, workers or cores())
        verdicts, pairs = command.check(reference, locations, Reporter())
    stdout = output()
    for part in command.render(verdicts, pairs):
        stdout.print(part, highlight=False, markup=False)
    raise typer.Exit(1 if command.failed(verdicts, pairs) else 0)


def reproduce(
    path: Annotated[Path, typer.Argument(metavar="RECORD", help="A seedK.json.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the new record; else a temporary one.")
    ] = None,
    data_root: DataRoot = None,
    cache: Annotated[
        Path | None, typer.Option(help="Cache folder; else a temporary one, to use nothing old.")
    ] = None,
    device: Device = "auto",
    verbose: Verbose = False,
) -> None:
    """Rerun one result from its record; exit 1 if the score changed beyond tolerance.

    Example: bench reproduce results/reference/mini/voc_cls/rotation/seed0.json
    """
    from bench.commands import reproduce as command

    stdout = output()
    with temporary_folder() as folder:
        locations = Locations(out or folder / "out", cache or folder / "cache", data_root, device)
        ok = command.reproduce(path, locations, Reporter(), stdout)
    raise typer.Exit(0 if ok else 1)


def calibrate(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Of one suite's records.")],
    to: Annotated[
        Path | None,
        typer.Option(help="A suite's file that gets the section; else a file beside the records."),
    ] = None,
    metric: Metrics = None,
    cache: Cache = CACHE,
    verbose: Verbose = False,
) -> None:
    """Measure how much runs vary, from records of several seeds, for rows that have one seed.

    Example: bench calibrate results/local/mini
    """
    from bench.commands import calibrate as command

    for path in metric or []:
        plugins.add_metric(path)
    stdout = output()
    for part in command.render(*command.calibrate(folder, to, cache)):
        stdout.print(part, highlight=False, markup=False)


def audit(
    suite: SuiteName = "mini",
    tasks: Annotated[
        str, typer.Option(help="Whose test splits are searched.", autocompletion=task_names)
    ] = "all",
    data_root: DataRoot = None,
    out: Out = OUT,
    cache: Cache = CACHE,
    set_: Overrides = None,
    verbose: Verbose = False,
) -> None:
    """Search the pretraining images for near-duplicates of test images.

    Example: bench audit --suite tiny --data-root DIR
    """
    from bench.commands import audit as command

    selected = plugins.select("tasks", tasks)
    settings = loader.load(suite, set_)
    for line in command.audit(settings, selected, data_root, out, cache, Reporter()):
        typer.echo(line)
