"""Files: data sets and the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import Cache, Verbose
from bench.commands.request import CACHE
from bench.runtime.progress import Reporter


def _published(incomplete: str) -> list[str]:
    from bench.data.published.catalog import CATALOG

    return [name for name in CATALOG if name.startswith(incomplete)]


DATA = Path("data")
data = typer.Typer(no_args_is_help=True)
DataName = Annotated[
    str, typer.Argument(metavar="NAME", help="See bench data list.", autocompletion=_published)
]
Published = Annotated[Path, typer.Option("--data-root", help="Folder of the data sets.")]


@data.callback()
def published() -> None:
    """List, download and verify the data sets of the shipped suites, and some more.

    Example: bench data get tiny-imagenet --data-root DIR
    """


@data.command("list")
def data_list() -> None:
    """Images, terms of use, sizes, checksums and mirrors of each data set.

    Example: bench data list
    """
    from bench.commands import data as command

    for line in command.lines():
        typer.echo(line)


@data.command("get")
def data_get(name: DataName, data_root: Published = DATA, verbose: Verbose = False) -> None:
    """Download a data set and put it in place, or say how to do so by hand; resumes.

    Example: bench data get voc2007 --data-root DIR
    """
    from bench.commands import data as command

    reporter = Reporter()
    typer.echo(command.get(name, data_root, reporter.say, reporter))


@data.command("verify")
def data_verify(name: DataName, data_root: Published = DATA, verbose: Verbose = False) -> None:
    """Read every image of a data set: what is missing, broken or extra; exit 1 if anything is.

    Example: bench data verify voc2007 --data-root DIR
    """
    from bench.commands import data as command

    ok = command.verify(name, data_root, typer.echo, Reporter())
    raise typer.Exit(0 if ok else 1)


caches = typer.Typer(invoke_without_command=True)


@caches.callback()
def cache_list(context: typer.Context, cache: Cache = CACHE) -> None:
    """What the cache has, by kind, size and last use; all of it can be computed again.

    Example: bench cache
    """
    from bench.commands import cache as command

    if context.invoked_subcommand is None:
        for line in command.lines(cache):
            typer.echo(line)


@caches.command("prune")
def cache_prune(
    cache: Cache = CACHE,
    older_than: Annotated[
        float | None, typer.Option(min=0, metavar="DAYS", help="Not used for so many days.")
    ] = None,
    to: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Least recently used first, down to 20GB.")
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Remove nothing.")] = False,
    verbose: Verbose = False,
) -> None:
    """Remove what was not used for long; what was used in the last day stays.

    Example: bench cache prune --older-than 30
    """
    from bench.commands import cache as command

    command.prune(cache, older_than, to, dry_run, typer.echo)
