"""The command line: arguments to commands; a user's mistake is one line and status 2."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from bench.cli import checks, data, plugins, results, runs
from bench.errors import Interrupted, explanation, message
from bench.runtime import distributed, signals, streams, variables

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


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


COMPUTE = (runs.run, runs.plan, runs.work, runs.status)
RESULTS = (
    *(results.leaderboard, results.compare, results.merge, results.publish),
    results.literature,
)
CHECKS = (checks.check, checks.reproduce, checks.calibrate, checks.audit)
PLUGINS = (plugins.list_, plugins.test, plugins.doctor, plugins.export)
for panel, verbs in {
    "Compute": COMPUTE,
    "Results": RESULTS,
    "Checks": CHECKS,
    "Methods, tasks, suites and weights": PLUGINS,
}.items():
    for verb in verbs:
        app.command(verb.__name__.rstrip("_"), rich_help_panel=panel)(verb)
app.add_typer(data.data, name="data", rich_help_panel="Files")
app.add_typer(data.caches, name="cache", rich_help_panel="Files")


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
    if isinstance(error, runs.RunInterruptedError):
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
    package = str(Path(__file__).parents[1])
    frames = traceback.extract_tb(error.__traceback__)
    ours = {frame.name for frame in frames if frame.filename.startswith(package)}
    return ours <= {main.__name__, _status.__name__}
