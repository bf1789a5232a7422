"""The options that commands share, and the request that they make."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bench import plugins, specs
from bench.commands.plan import needed_backbone
from bench.commands.request import (
    CACHE,
    CACHE_VARIABLE,
    Request,
    checked_cache,
    recorded_command,
)
from bench.config import loader
from bench.config.schema import SEEDS
from bench.errors import UserError
from bench.runtime import distributed
from bench.runtime.workers import cores


def _completed(known: Callable[[], list[str]]) -> Callable[[str], list[str]]:
    """The shell completion of a comma-separated list of known names, by its last one."""

    def complete(incomplete: str) -> list[str]:
        *before, _ = incomplete.split(",")
        left = [name for name in known() if name not in before]
        return [",".join([*before, name]) for name in left]

    return complete


def suite_names(incomplete: str) -> list[str]:
    """The shell completion of a suite."""
    return loader.names()


method_names = _completed(lambda: [*plugins.names("methods"), "all"])
task_names = _completed(lambda: [*plugins.names("tasks"), "all"])

OUT = Path("results/local")

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
        autocompletion=suite_names,
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
Json = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]


@dataclass(frozen=True)
class Asked:
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
            autocompletion=method_names,
        ),
    ],
    tasks: Annotated[
        str,
        typer.Option(help="Comma-separated names and files, or 'all'.", autocompletion=task_names),
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
) -> Asked:
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
    return Asked(request, suite, arguments)


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


def asking(command: Callable[..., None]) -> Callable[..., None]:
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


def output(width: int = 140) -> Console:
    """Where results go: as wide as the terminal, or `width` columns."""
    return Console(width=None if sys.stdout.isatty() else width, quiet=not distributed.is_main())


def warn(text: str) -> None:
    """Say what is no result, on standard error."""
    typer.echo(text, err=True)
