"""Compute: run, plan, work, status."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import Asked, Json, asking, output
from bench.errors import Interrupted, UserError
from bench.runtime import claims, distributed, signals
from bench.runtime.progress import Reporter

if TYPE_CHECKING:
    from bench.reporting.leaderboard import Leaderboard


class RunInterruptedError(Exception):
    """An interrupted run on its way past typer, which knows one status for all interrupts."""

    def __init__(self, stop: Interrupted) -> None:
        super().__init__(str(stop) or signals.INTERRUPTED)
        self.status = stop.status


@asking
def run(
    asked: Asked,
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
    from bench.commands import estimate, plan
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
        raise RunInterruptedError(stop) from None
    stdout = output(80)
    for number, table in enumerate(leaderboard.tables):
        if number:
            stdout.print()
        stdout.print(TaskTable(table))
    failed = given_up or leaderboard.failed(
        (cell.task, cell.method, cell.seed) for cell in plan.cells(request)
    )
    raise typer.Exit(1 if failed else 0)


def _run_elsewhere(asked: Asked, name: str, settings: Sequence[str]) -> tuple[Leaderboard, bool]:
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


def _provide_calibration(asked: Asked) -> None:
    """Put the calibration of a suite that is a file beside its records."""
    from bench.statistics import calibration

    if distributed.is_main():
        calibration.provide(asked.suite, asked.request.suite.sha256, asked.request.folder)


def _main_reporter() -> Reporter:
    """A reporter that speaks in the main process alone."""
    reporter = Reporter()
    reporter.console.quiet = not distributed.is_main()
    return reporter


@asking
def plan(asked: Asked, as_json: Json = False) -> None:
    """The cells of a run: what is up to date, how long the rest takes; computes nothing.

    Example: bench plan --methods all --tasks voc_cls --json
    """
    from bench.commands import cells as command

    if as_json:
        typer.echo(json.dumps(command.as_json(asked.request, asked.arguments), indent=1))
        return
    for line in command.lines(asked.request):
        typer.echo(line)


@asking
def work(
    asked: Asked,
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


@asking
def status(asked: Asked, as_json: Json = False) -> None:
    """What is done, running, failed or to do, on any machine; reads records and claims alone.

    Example: bench status --methods all --tasks voc_cls
    """
    from bench.commands import status as command

    if as_json:
        typer.echo(json.dumps(command.as_json(asked.request), indent=1))
        return
    for line in command.lines(asked.request):
        typer.echo(line)
