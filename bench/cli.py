"""The command line: arguments to commands; a user's mistake is one line and status 2."""

from __future__ import annotations

import functools
import inspect
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from bench import plugins, specs
from bench.commands.plan import needed_backbone
from bench.commands.request import (
    CACHE,
    CACHE_VARIABLE,
    Locations,
    Request,
    checked_cache,
    recorded_command,
)
from bench.config import loader
from bench.config.schema import SEEDS
from bench.errors import Interrupted, UserError, explanation, message
from bench.runtime import claims, distributed, signals, streams, variables
from bench.runtime.partial import temporary_folder
from bench.runtime.progress import Reporter
from bench.runtime.workers import cores

if TYPE_CHECKING:
    from bench.reporting.leaderboard import Leaderboard

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


def _completed(known: Callable[[], list[str]]) -> Callable[[str], list[str]]:
    """The shell completion of a comma-separated list of known names, by its last one."""

    def complete(incomplete: str) -> list[str]:
        *before, _ = incomplete.split(",")
        left = [name for name in known() if name not in before]
        return [",".join([*before, name]) for name in left]

    return complete


def _suites(incomplete: str) -> list[str]:
    return loader.names()


_methods = _completed(lambda: [*plugins.names("methods"), "all"])
_tasks = _completed(lambda: [*plugins.names("tasks"), "all"])

OUT = Path("results/local")
TABLES = Path("results/literature")  # of published numbers

Out = Annotated[Path, typer.Option(help="Folder for records and leaderboards.")]
Cache = Annotated[
    Path,
    typer.Option(
        envvar=CACHE_VARIABLE, callback=checked_cache, help="Cache folder; it is safe to delete."
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; auto takes a GPU if any.")]
DataRoot = Annotated[Path | None, typer.Option(help="Folder with the suite's data sets.")]
SuiteName = Annotated[
    str,
    typer.Option(
        "--suite",
        metavar="NAME|FILE",
        help="A shipped suite, or a TOML file.",
        autocompletion=_suites,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the suite."),
]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Show the traceback of a failure.")]
AllowMissing = Annotated[
    bool,
    typer.Option("--allow-missing", help="Read a file that lacks weights of its encoder."),
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run the code of hub: repositories.")
]
Workers = Annotated[
    int,
    typer.Option(
        min=0,
        envvar="SSL_GAP_WORKERS",
        help="Encoders computed side by side on a processor; 0: as many as cores allow.",
    ),
]
Threads = Annotated[
    int, typer.Option(min=1, help="Of each worker; another number changes scores by rounding.")
]
Metrics = Annotated[
    list[Path] | None,
    typer.Option("--metric", metavar="FILE", help="A metric that no installed package has."),
]


def _version(value: bool) -> None:
    if value:
        typer.echo(f"ssl-gap {version('ssl-gap')}")
        raise typer.Exit


@app.callback()
def root(
    version_: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """How far is self-supervised pretraining from ImageNet labels, and how sure are we?

    Example: bench run --methods all --tasks voc_cls
    """


@dataclass(frozen=True)
class _Asked:
    """What the options that `run` shares with other commands ask for.

    Attributes:
        request: made of them.
        suite: NAME or FILE, as it was given.
        arguments: the options that repeat the request.
    """

    request: Request
    suite: str
    arguments: tuple[str, ...]


def _asked(
    methods: Annotated[
        str,
        typer.Option(
            help="Comma-separated names, files (./flip.py) and specs of weights "
            "(mine=file:my.pth?arch=resnet50), or 'all'.",
            autocompletion=_methods,
        ),
    ],
    tasks: Annotated[
        str,
        typer.Option(help="Comma-separated names and files, or 'all'.", autocompletion=_tasks),
    ],
    suite: SuiteName = "mini",
    seeds: Annotated[int, typer.Option(min=0, help="How many seeds; 0: as the suite says.")] = 0,
    seed: Annotated[
        int | None, typer.Option(min=0, metavar="K", help="One seed alone, instead of --seeds.")
    ] = None,
    data_root: DataRoot = None,
    out: Out = OUT,
    cache: Cache = CACHE,
    device: Device = "auto",
    set_: Overrides = None,
    workers: Workers = 0,
    threads: Threads = 1,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep results of changed code of the same version.")
    ] = False,
    allow_missing: AllowMissing = False,
    trust_remote_code: TrustRemoteCode = False,
    track: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Trackers of the training losses: tensorboard, wandb, mlflow, aim, ...",
        ),
    ] = "",
    verbose: Verbose = False,
) -> _Asked:
    """The request that these options make; their names, types and help are those of `run`."""
    arguments = _repeated(locals())
    selected_methods = plugins.select("methods", methods, allow_missing, trust_remote_code)
    selected_tasks = plugins.select("tasks", tasks)
    settings = loader.load(suite, set_)
    named = specs.parts(methods)
    left_out = [
        name
        for name in (selected_methods if "all" in named else ())
        if name not in named and needed_backbone(name, settings)
    ]
    if max(seeds, threads) > SEEDS:
        raise UserError(f"--seeds {seeds} --threads {threads}: at most {SEEDS} of each")
    if seed is not None and (seeds or seed >= SEEDS):
        raise UserError(f"--seed {seed}: must be less than {SEEDS}, and without --seeds")
    trackers: tuple[str, ...] = ()
    if track:
        from bench.training.tracking import select_trackers

        trackers = select_trackers(track)
    request = Request(
        suite=settings,
        methods=tuple(name for name in selected_methods if name not in left_out),
        tasks=tuple(selected_tasks),
        seeds=tuple(range(seeds or settings.seeds)) if seed is None else (seed,),
        data_root=data_root,
        out=out,
        cache=cache,
        device=device,
        workers=1 if device.startswith("cuda") else workers or max(1, cores() // threads),
        threads=threads,
        keep=keep,
        track=trackers,
        verbose=verbose,
        command=recorded_command(sys.argv[1:]),
        overrides=tuple(set_ or ()),
        left_out=tuple(left_out),
    )
    return _Asked(request, suite, arguments)


def _repeated(options: dict[str, Any]) -> tuple[str, ...]:
    """The command line of options by name, less those that are as by default."""
    arguments: list[str] = []
    for name, parameter in inspect.signature(_asked).parameters.items():
        value = options[name]
        option = f"--{name.strip('_').replace('_', '-')}"
        if value is True:
            arguments.append(option)
        elif isinstance(value, list):
            arguments += [part for item in value for part in (option, str(item))]
        elif value not in (None, False, parameter.default) or name == "cache":
            arguments += [option, str(value)]
    return tuple(arguments)


def _asking(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `_asked`, and in their place what they ask for."""
    shared = inspect.signature(_asked, eval_str=True).parameters
    _, *own = inspect.signature(command, eval_str=True).parameters.values()

    @functools.wraps(command)
    def call(**options: Any) -> None:
        asked = _asked(**{name: options.pop(name) for name in shared})
        command(asked, **options)

    parameters = [*shared.values(), *own]
    call.__dict__["__signature__"] = inspect.Signature(parameters)
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


Json = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]


@app.command()
@_asking
def run(
    asked: _Asked,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be computed, and what it takes.")
    ] = False,
    on: Annotated[
        str, typer.Option(metavar="ENGINE", help="Compute by jobs of slurm or ray; see the docs.")
    ] = "",
    engine_set: Annotated[
        list[str] | None,
        typer.Option("--engine-set", metavar="KEY=VALUE", help="Set partition, time, ... of jobs."),
    ] = None,
) -> None:
    """Plan the cells, skip those that are up to date, run the rest, render the leaderboard.

    Example: bench run --methods rotation,random_init,imagenet --tasks voc_cls
    """
    from bench.commands import estimate
    from bench.commands.run import run as run_request
    from bench.reporting.terminal import TaskTable

    request = asked.request
    if engine_set and not on:
        raise UserError("--engine-set: needs --on slurm or --on ray")
    if dry_run:
        if on:
            raise UserError("--dry-run and --on: give one of them; without --on it says the same")
        for line in estimate.dry_run(request):
            typer.echo(line)
        return
    _provide_calibration(asked)
    given_up = False
    try:
        if on:
            leaderboard, given_up = _run_elsewhere(asked, on, engine_set or [])
        else:
            leaderboard = run_request(request, _main_reporter())
    except Interrupted as stop:
        raise _InterruptedError(stop) from None
    stdout = _stdout(80)
    for number, table in enumerate(leaderboard.tables):
        if number:
            stdout.print()
        stdout.print(TaskTable(table))
    failed = given_up or leaderboard.failed(request.methods, request.tasks)
    raise typer.Exit(1 if failed else 0)


def _run_elsewhere(asked: _Asked, name: str, settings: Sequence[str]) -> tuple[Leaderboard, bool]:
    """The leaderboard of a run on other machines, and whether the jobs of a cell were given up."""
    from bench.commands import submit
    from bench.commands.run import RESUME
    from bench.commands.run import run as run_request
    from bench.execution.engine import open_engine, parse_settings
    from bench.results import storage

    if distributed.world_size() > 1:
        raise UserError("--on: one process submits the jobs; run it without torchrun")
    request = asked.request
    reporter = _main_reporter()
    engine = open_engine(name, parse_settings(settings), request.folder / submit.FOLDER / name)
    submitter = submit.Submitter(request, asked.arguments, engine, reporter)
    resume = submit.REST if engine.jobs_go_on else RESUME
    try:
        leaderboard = run_request(request, reporter, submitter.compute, resume)
    except UserError:
        if submitter.given_up and not storage.files(request.folder):
            raise typer.Exit(1) from None  # no record, no leaderboard; why has been said
        raise
    finally:
        engine.close()
    return leaderboard, bool(submitter.given_up)


def _provide_calibration(asked: _Asked) -> None:
    """Put the calibration of a suite that is a file beside its records."""
    from bench.statistics import calibration

    if distributed.is_main():
        calibration.provide(asked.suite, asked.request.suite.sha256, asked.request.folder)


def _main_reporter() -> Reporter:
    """A reporter that speaks in the main process alone."""
    reporter = Reporter()
    reporter.console.quiet = not distributed.is_main()
    return reporter


@app.command()
@_asking
def plan(asked: _Asked, as_json: Json = False) -> None:
    """The cells of a run: what is up to date, how long the rest takes; computes nothing.

    Example: bench plan --methods all --tasks voc_cls --json
    """
    from bench.commands import cells as command

    if as_json:
        typer.echo(json.dumps(command.as_json(asked.request, asked.arguments), indent=1))
        return
    for line in command.lines(asked.request):
        typer.echo(line)


@app.command()
@_asking
def work(
    asked: _Asked,
    cells: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Only the cells of a plan that bench plan --json made."),
    ] = None,
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="Only this share of the encoders: 0/4 to 3/4.")
    ] = "",
    stale_after: Annotated[
        int,
        typer.Option(
            min=1,
            max=claims.LONGEST,
            metavar="SECONDS",
            help="Age of this worker's last sign of life from which on others do its work.",
        ),
    ] = claims.STALE,
) -> None:
    """Compute what no other worker computes, beside any number of them; renders nothing.

    Exit status: 0 all cells are ok, 1 some failed, 75 some are not recorded yet: run it again.

    Example: bench work --methods all --tasks voc_cls --shard 0/4
    """
    from bench.commands import plan as plans
    from bench.commands import work as command

    request = asked.request
    own = planned = plans.cells(request)
    if cells and shard:
        raise UserError("--cells and --shard: give one of them")
    if cells:
        own = command.of_file(planned, cells, request)
    elif shard:
        own = command.of_shard(planned, shard)
    _provide_calibration(asked)
    raise typer.Exit(command.work(request, planned, own, stale_after, _main_reporter()))


@app.command()
@_asking
def status(asked: _Asked, as_json: Json = False) -> None:
    """What is done, running, failed or to do, on any machine; reads records and claims alone.

    Example: bench status --methods all --tasks voc_cls
    """
    from bench.commands import status as command

    if as_json:
        typer.echo(json.dumps(command.as_json(asked.request), indent=1))
        return
    for line in command.lines(asked.request):
        typer.echo(line)


@app.command()
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


@app.command()
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


class _InterruptedError(Exception):
    """An interrupted run on its way past typer, which knows one status for all interrupts."""

    def __init__(self, stop: Interrupted) -> None:
        super().__init__(str(stop) or signals.INTERRUPTED)
        self.status = stop.status


def _stdout(width: int = 140) -> Console:
    """Where results go: as wide as the terminal, or `width` columns."""
    return Console(width=None if sys.stdout.isatty() else width, quiet=not distributed.is_main())


def _warn(text: str) -> None:
    typer.echo(text, err=True)


@app.command("list")
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


@app.command()
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

    for line in command.leaderboards(out, cache, check, _warn):
        typer.echo(line)


@app.command()
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
    stdout = _stdout()
    if right == command.LITERATURE:
        parts = command.render_published(command.published(left, out, TABLES), left)
    else:
        parts = command.render(command.compare(left, right, out), left, right)
    for part in parts:
        stdout.print(part, highlight=False, markup=False)


@app.command()
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
    stdout = _stdout()
    for part in command.render(*command.calibrate(folder, to, cache)):
        stdout.print(part, highlight=False, markup=False)


@app.command()
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
    stdout = _stdout()
    for part in command.render(verdicts, pairs):
        stdout.print(part, highlight=False, markup=False)
    raise typer.Exit(1 if command.failed(verdicts, pairs) else 0)


@app.command()
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

    stdout = _stdout()
    with temporary_folder() as folder:
        locations = Locations(out or folder / "out", cache or folder / "cache", data_root, device)
        ok = command.reproduce(path, locations, Reporter(), stdout)
    raise typer.Exit(0 if ok else 1)


@app.command()
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
        page.write(out, _warn)
        typer.echo(out / page.PAGE)
    elif page.stale(out):
        raise UserError(f"{out / page.PAGE} is stale; run bench literature --out {out}")


@app.command()
def audit(
    suite: SuiteName = "mini",
    tasks: Annotated[
        str, typer.Option(help="Whose test splits are searched.", autocompletion=_tasks)
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


def _published(incomplete: str) -> list[str]:
    from bench.data.published.catalog import CATALOG

    return [name for name in CATALOG if name.startswith(incomplete)]


DATA = Path("data")
data = typer.Typer(no_args_is_help=True)
app.add_typer(data, name="data")
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
app.add_typer(caches, name="cache")


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


@app.command()
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
    stdout = _stdout(100)
    for part in diagnosis.render():
        stdout.print(part, highlight=False, markup=False)
    raise typer.Exit(1 if diagnosis.suspicions else 0)


@app.command()
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


@app.command()
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

    ok = command.test(path, kind, suite, set_ or [], cache, Reporter(), _stdout())
    raise typer.Exit(0 if ok else 1)


def main() -> None:
    """Run the command line; what a user, a disk or a signal causes is one line and a status."""
    verbose = bool({"-v", "--verbose"} & set(sys.argv))
    ends = signals.statuses(sys.argv[1:])
    numbers = tuple(ends) if distributed.is_main() else (signal.SIGINT,)  # the others end at once
    with streams.guarded():
        try:
            with signals.raised(numbers, ends):
                variables.own(os.environ)
                status = _status()
                sys.stdout.flush()
        except BrokenPipeError:
            status = 1  # nobody reads on, as in `| head`
        except BaseException as error:
            line, status = _outcome(error)
            if not line or (verbose and isinstance(error, Exception)):
                raise
            if status in signals.STATUS.values():
                signals.say_no_more()
            print(f"bench: {line}", file=sys.stderr)
    sys.exit(status)


def _status() -> int:
    """The exit status of the command that was asked for."""
    try:
        app()
    except SystemExit as end:
        if end.code == Interrupted.CTRL_C:  # what typer makes of an interrupt
            raise Interrupted("", signals.received() or Interrupted.CTRL_C) from None
        if isinstance(end.code, str):
            raise  # of somebody's code
        return end.code or 0
    return 0


def _outcome(error: BaseException) -> tuple[str, int]:
    """The line about what ended a command, and its exit status; no line for a fault of ours."""
    if isinstance(error, _InterruptedError):
        return str(error), error.status
    interrupted = signals.received()  # which libraries turn into errors of their own
    if isinstance(error, KeyboardInterrupt) or interrupted:
        return signals.INTERRUPTED, interrupted or Interrupted.CTRL_C
    if _is_of_arguments(error):
        return f"the arguments cannot be read: {message(error)}", 2
    return explanation(error), 2


def _is_of_arguments(error: BaseException) -> bool:
    """Whether a library raised what has no explanation before any command began."""
    if not isinstance(error, Exception) or explanation(error):
        return False
    package = str(Path(__file__).parent)
    frames = traceback.extract_tb(error.__traceback__)
    ours = {frame.name for frame in frames if frame.filename.startswith(package)}
    return ours <= {main.__name__, _status.__name__}
