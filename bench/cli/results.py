"""Records and numbers: merge, publish, leaderboard, compare, literature."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench import plugins, specs
from bench.cli.options import (
    OUT,
    Cache,
    Metrics,
    Out,
    Verbose,
    output,
    warn,
)
from bench.commands.request import CACHE
from bench.errors import UserError

TABLES = Path("results/literature")  # of published numbers


def merge(
    sources: Annotated[
        list[Path], typer.Argument(metavar="SRC...", help="Folders of records, as --out of a run.")
    ],
    out: Annotated[Path, typer.Option(help="The folder that gets them; it may have records.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only make the checks.")] = False,
    cache: Cache = CACHE,
    verbose: Verbose = False,
) -> None:
    """Copy records of several folders or people into one; refuses what cannot share a leaderboard.

    Example: bench merge results/ann results/bob --out results/all
    """
    from bench.commands import merge as command

    for line in command.merge(sources, out, cache, dry_run):
        typer.echo(line)


def publish(
    sources: Annotated[
        list[Path], typer.Argument(metavar="SRC...", help="Folders of records, as --out of a run.")
    ],
    out: Annotated[Path, typer.Option(help="The new folder that gets what the reference lacks.")],
    into: Annotated[Path, typer.Option(help="The reference, in a clone of the project.")] = Path(
        "results/reference"
    ),
    methods: Annotated[
        str, typer.Option(help="Comma-separated names whose records are meant; else all.")
    ] = "",
    source: Annotated[
        str,
        typer.Option(metavar="URL", help="Where code or weights that do not ship can be found."),
    ] = "",
    cache: Cache = CACHE,
    verbose: Verbose = False,
) -> None:
    """Check records against the reference, and lay them out for a pull request.

    Example: bench publish results/local --methods mine --out submission --source https://...
    """
    from bench.commands import publish as command

    for line in command.publish(sources, out, into, specs.parts(methods), source, cache):
        typer.echo(line)


def leaderboard(
    out: Out = OUT,
    check: Annotated[bool, typer.Option("--check", help="Only say whether one is stale.")] = False,
    metric: Metrics = None,
    cache: Cache = CACHE,
    verbose: Verbose = False,
) -> None:
    """Render the leaderboards of every suite below --out from their records, in place.

    Example: bench leaderboard --out results/local
    """
    from bench.commands import leaderboard as command

    for path in metric or []:
        plugins.add_metric(path)

    for line in command.leaderboards(out, cache, check, warn):
        typer.echo(line)


def compare(
    left: Annotated[str, typer.Argument(metavar="A", help="METHOD, FOLDER/METHOD or FOLDER.")],
    right: Annotated[
        str, typer.Argument(metavar="B", help="The same, or `literature`: published numbers.")
    ],
    out: Annotated[Path, typer.Option(help="Where methods and suites are looked up.")] = OUT,
    metric: Metrics = None,
    verbose: Verbose = False,
) -> None:
    """Compare two rows: difference, interval, classes, and every setting in which they differ.

    Example: bench compare rotation random_init --out results/reference/mini
    """
    from bench.commands import compare as command

    for path in metric or []:
        plugins.add_metric(path)
    stdout = output()
    if right == command.LITERATURE:
        parts = command.render_published(command.published(left, out, TABLES), left)
    else:
        parts = command.render(command.compare(left, right, out), left, right)
    for part in parts:
        stdout.print(part, highlight=False, markup=False)


def literature(
    out: Annotated[Path, typer.Option(help="The folder of CSV files.")] = TABLES,
    check: Annotated[bool, typer.Option("--check", help="Only say whether it is stale.")] = False,
    verbose: Verbose = False,
) -> None:
    """Render published numbers, which are never ranked with measured ones.

    Example: bench literature --check
    """
    from bench.reporting import literature as page

    if not check:
        page.write(out, warn)
        typer.echo(out / page.PAGE)
    elif page.stale(out):
        raise UserError(f"{out / page.PAGE} is stale; run bench literature --out {out}")
