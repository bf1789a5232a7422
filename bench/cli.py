"""The command line: bench run, list, board, compare, check, reproduce, reported, audit."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated, Literal

import platformdirs
import typer
from rich.console import Console

from bench import plugins
from bench.config import loader
from bench.errors import UserError
from bench.runtime import distributed
from bench.runtime.progress import Reporter

app = typer.Typer(
    help="How far is self-supervised pretraining from ImageNet labels, and how sure are we.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
CACHE = Path(platformdirs.user_cache_dir("ssl-gap"))
OUT = Path("results/local")

ALIKE = "code, data, packages and machine are those of the record"
SAME = "every number came out the same"

Kind = Literal["methods", "tasks", "suites"]
Out = Annotated[Path, typer.Option(help="Where records and boards go.")]
Cache = Annotated[Path, typer.Option(envvar="SSL_GAP_CACHE", help="For what can be made again.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; auto: a GPU if any.")]
DataRoot = Annotated[Path | None, typer.Option(help="Where the suite's images lie.")]
SuiteName = Annotated[
    str, typer.Option("--suite", metavar="NAME|FILE", help="A shipped suite, or a TOML file.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the suite."),
]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Show the traceback of a failure.")]


@app.command()
def run(
    methods: Annotated[str, typer.Option(help="Comma-separated names, or 'all'.")],
    tasks: Annotated[str, typer.Option(help="Comma-separated names, or 'all'.")],
    suite_: SuiteName = "mini",
    seeds: Annotated[int, typer.Option(min=0, help="How many seeds; 0: as the suite says.")] = 0,
    data_root: DataRoot = None,
    out: Out = OUT,
    cache: Cache = CACHE,
    device: Device = "auto",
    set_: Overrides = None,
    verbose: Verbose = False,
) -> None:
    """Plan the cells, skip those recorded, run the rest, render the board."""
    from bench.commands.request import Request
    from bench.commands.run import run as run_request
    from bench.reporting import publish

    chosen = loader.load(suite_, set_)
    request = Request(
        suite=chosen,
        methods=tuple(plugins.select("methods", methods)),
        tasks=tuple(plugins.select("tasks", tasks)),
        seeds=seeds or chosen.seeds,
        data_root=data_root,
        out=out,
        cache=cache,
        device=device,
        verbose=verbose,
    )
    reporter = Reporter()
    reporter.console.quiet = not distributed.is_main()
    board = run_request(request, reporter)
    stdout = _stdout()
    for table in board.tables:
        stdout.print(publish.terminal(table))
    raise typer.Exit(1 if board.failed(request.methods, request.tasks) else 0)


def _stdout() -> Console:
    """Where results go: as wide as the terminal, or 140 columns."""
    return Console(width=None if sys.stdout.isatty() else 140, quiet=not distributed.is_main())


@app.command("list")
def list_(
    kind: Annotated[Kind | None, typer.Argument(help="What to list.")] = None,
) -> None:
    """Names, one line each, with their references."""
    kinds: tuple[Kind, ...] = (kind,) if kind else ("methods", "tasks", "suites")
    for name in kinds:
        lines = _described(name)
        width = max(len(key) for key, _ in lines)
        typer.echo(f"{name}:" if kind is None else "", nl=kind is None)
        for key, text in lines:
            typer.echo(f"  {key:{width}}  {text}")


def _described(kind: Kind) -> list[tuple[str, str]]:
    if kind == "suites":
        return [(name, loader.load(name).summary) for name in loader.names()]
    found = [plugins.describe(kind, name) for name in plugins.names(kind)]
    return [(d.name, f"{d.summary} [{d.constants.get('reference', '')}]") for d in found]


@app.command()
def board(
    out: Out = OUT,
    check: Annotated[bool, typer.Option("--check", help="Only say whether one is stale.")] = False,
    cache: Cache = CACHE,
    verbose: Verbose = False,
) -> None:
    """Render the boards of every suite below --out from their records, in place."""
    from bench.reporting import leaderboard, publish

    folders = sorted({path.parents[2] for path in out.glob("*/*/*/seed*.json")})
    if not folders:
        inside = any(out.glob("*/*/seed*.json"))
        hint = f"name the folder above, {out.parent}" if inside else "make some with bench run"
        raise UserError(f"--out {out}: holds no records of suites; {hint}")
    for folder in folders:
        found = leaderboard.load(folder, cache)
        if not check:
            publish.write(found, folder)
            typer.echo(folder / "LEADERBOARD.md")
        elif files := publish.stale(found, folder):
            raise UserError(f"{folder}: stale: {', '.join(files)}; run bench board --out {out}")


@app.command()
def compare(
    one: Annotated[str, typer.Argument(metavar="A", help="METHOD, FOLDER/METHOD or FOLDER.")],
    other: Annotated[str, typer.Argument(metavar="B", help="The same.")],
    out: Annotated[Path, typer.Option(help="Where methods and suites are looked up.")] = OUT,
    verbose: Verbose = False,
) -> None:
    """Compare two rows: difference, interval, classes, and every setting in which they differ."""
    from bench.commands import compare

    stdout = _stdout()
    for part in compare.render(compare.compare(one, other, out), one, other):
        stdout.print(part, highlight=False, markup=False)


@app.command()
def check(
    reference: Annotated[Path, typer.Option(help="Records to compare with, and order.toml.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where the cells are run; those recorded there are taken. Else a temporary folder."
        ),
    ] = None,
    data_root: DataRoot = None,
    cache: Cache = CACHE,
    device: Device = "auto",
    verbose: Verbose = False,
) -> None:
    """Run the cells of a reference and say what moved; status 1 if anything did."""
    from bench.commands import check
    from bench.commands.request import Places

    with tempfile.TemporaryDirectory() as temporary:
        places = Places(out or Path(temporary), cache, data_root, device)
        verdicts, pairs = check.check(reference, places, Reporter())
    stdout = _stdout()
    for part in check.render(verdicts, pairs):
        stdout.print(part, highlight=False, markup=False)
    raise typer.Exit(1 if check.failed(verdicts, pairs) else 0)


@app.command()
def reproduce(
    path: Annotated[Path, typer.Argument(metavar="RECORD", help="A seedK.json.")],
    out: Annotated[
        Path | None, typer.Option(help="Where the new record goes; else a temporary folder.")
    ] = None,
    data_root: DataRoot = None,
    cache: Annotated[
        Path | None, typer.Option(help="Else a temporary one, so that all is made again.")
    ] = None,
    device: Device = "auto",
    verbose: Verbose = False,
) -> None:
    """Make a record again from what it says; status 1 if its value moves beyond its tolerance."""
    from bench.commands import check, reproduce
    from bench.commands.request import Places
    from bench.results.differences import table

    stdout = _stdout()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        places = Places(out or folder / "out", cache or folder / "cache", data_root, device)
        what = reproduce.prepare(path, places)
        reporter = Reporter()
        differ, data = reproduce.present(what, reporter)
        title = "what differs from the record"
        stdout.print(table(title, ("setting", "then", "now"), differ) if differ else ALIKE)
        new = reproduce.run(what, data, reporter)
        moved = reproduce.numbers(what.found, new[1])
        title = "what came out otherwise"
        stdout.print(table(title, ("number", "then", "now"), moved) if moved else SAME)
        verdict = reproduce.verdict(what, new)
    for part in check.render([verdict], []):
        stdout.print(part, highlight=False, markup=False)
    raise typer.Exit(1 if check.failed([verdict], []) else 0)


@app.command()
def reported(
    out: Annotated[Path, typer.Option(help="The folder of CSV files.")] = Path("results/reported"),
    check: Annotated[bool, typer.Option("--check", help="Only say whether it is stale.")] = False,
    verbose: Verbose = False,
) -> None:
    """Render the literature's numbers, which are never ranked with measured ones."""
    from bench.reporting import literature

    if not check:
        literature.write(out)
        typer.echo(out / literature.PAGE)
    elif literature.stale(out):
        raise UserError(f"{out / literature.PAGE} is stale; run bench reported --out {out}")


@app.command()
def audit(
    suite_: SuiteName = "mini",
    tasks: Annotated[str, typer.Option(help="Whose test lists are searched.")] = "all",
    data_root: DataRoot = None,
    out: Out = OUT,
    cache: Cache = CACHE,
    set_: Overrides = None,
    verbose: Verbose = False,
) -> None:
    """Search the pretraining corpus for near-duplicates of test images; the board counts them."""
    from bench.results import audit

    chosen = loader.load(suite_, set_)
    selected = [plugins.describe("tasks", name) for name in plugins.select("tasks", tasks)]
    reads = {name for task in selected for name in task.constants["reads"]}
    found = audit.search(chosen, reads, data_root, cache, Reporter())
    path = audit.save(found, out / chosen.name)
    for name, searched in found.tests.items():
        count = found.contaminated({name})
        typer.echo(
            f"{name}: {count} of {searched.images:,} test images have a near-duplicate among "
            f"{found.corpus.images:,} corpus images"
        )
    typer.echo(f"{path}; bench board --out {out} counts it")


def main() -> None:
    """Run the command line; a user's mistake is one line and status 2."""
    try:
        app()
    except UserError as error:
        if {"-v", "--verbose"} & set(sys.argv):
            raise
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if {"-v", "--verbose"} & set(sys.argv):
            raise
        print(f"bench: {error.filename or 'the file system'}: {error.strerror}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as end:
        if end.code == 130:  # what typer makes of Ctrl-C
            print("bench: stopped; the same command goes on from here", file=sys.stderr)
        raise
