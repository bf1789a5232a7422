"""`bench run`, from top to bottom. Imports torch only when there is something to compute."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from bench.commands import estimate, plan
from bench.commands.request import Cell, Request
from bench.errors import Interrupted, UserError
from bench.reporting import leaderboard, publish
from bench.reporting.leaderboard import Leaderboard
from bench.reporting.terminal import row_line
from bench.reporting.web import PAGE
from bench.results.record import Record
from bench.runtime import distributed, signals
from bench.runtime.partial import sweep_cache
from bench.runtime.progress import Reporter, about
from bench.runtime.workers import cores, load

BUSY = 0.4  # of the cores, by other programs: a run is then told to take longer
RESUME = "run the same command again to resume"

Compute = Callable[[Sequence[Cell], Callable[[Cell, Record], None]], None]


def run(
    request: Request, reporter: Reporter, elsewhere: Compute | None = None, resume: str = RESUME
) -> Leaderboard:
    """Plan the cells, compute those that are not up to date, render the leaderboard.

    The leaderboard is also rendered, less its plots, after every cell.

    Args:
        request: what was asked for.
        reporter: for progress.
        elsewhere: computes the cells, and calls its second argument once each is recorded; by
            default this machine does.
        resume: how an interrupted run goes on.

    Raises:
        UserError: the request, its data or its output folder cannot be used.
        Interrupted: Ctrl-C or SIGTERM; the leaderboard of the finished rows is rendered.
    """
    started = time.monotonic()
    reporter.say(plan.title(request.suite))
    cells = plan.cells(request)
    plan.check_writable(request)
    todo = [cell for cell in cells if not plan.is_up_to_date(cell, request)]
    _announce(request, cells, todo, reporter)
    if elsewhere is None:
        _say_if_busy(todo, reporter)
    rows = _Rows(request, reporter)
    if todo:
        plan.check_tables(todo, request)
        try:
            sequences = [[str(cell) for cell in group] for group in plan.groups(todo)]
            workers = len(sequences) if elsewhere else request.workers
            with reporter.cells(estimate.by_name(todo, request), workers, sequences):
                compute = elsewhere or _here(request, reporter)
                compute(todo, rows.show)
        except KeyboardInterrupt as stop:
            raise rows.interrupted(stop, resume) from None
    elif distributed.is_main():
        sweep_cache(request.cache)  # of a run that was killed after its last cell
    result = rows.finish(changed=bool(todo))
    if elsewhere is None:
        _check_recorded(todo, request)
    reporter.say(f"leaderboard: {request.folder / PAGE}")
    if todo:
        taken = time.monotonic() - started
        reporter.say(f"took {about(taken)}, of which rendering {rows.seconds:.1f} s")
    return result


def _check_recorded(todo: Sequence[Cell], request: Request) -> None:
    """Refuse to end well where records are gone that this run wrote.

    Raises:
        UserError: names the first.
    """
    gone = [cell for cell in todo if not cell.path(request).exists()]
    if gone:
        raise UserError(
            f"{gone[0].path(request)}: is gone, with {len(gone)} of {len(todo)} new records; "
            "was the folder moved while this run was at work? move it back, or run again"
        )


def _here(request: Request, reporter: Reporter) -> Compute:
    """What computes cells on this machine."""
    with signals.deferred():
        from bench.commands.execute import compute
    return lambda todo, announce: compute(todo, request, reporter, announce=announce)


class _Rows:
    """The leaderboard of a run in progress; only the main process renders it.

    Args:
        request: names the folder.
        reporter: for the new rows.
    """

    def __init__(self, request: Request, reporter: Reporter) -> None:
        self._request = request
        self._reporter = reporter
        self.seconds = 0.0

    def show(self, cell: Cell, record: Record) -> None:
        """Render the leaderboard less its plots, then print the row of a cell."""
        if not distributed.is_main():
            return
        started = time.monotonic()
        try:
            result = self._load()
            publish.write_without_plots(result, self._request.folder)
        except Exception as error:  # whatever a metric raises: the other cells go on
            message = " ".join(str(error).split()) or type(error).__name__
            self._reporter.say(f"the leaderboard was not rendered: {message}")
            return
        finally:
            self.seconds += time.monotonic() - started
        for table in result.tables:
            row = table.row(cell.method)
            if table.task == cell.task and row and row.value and record.status == "ok":
                self._reporter.say_finished(row_line(table, row))

    def finish(self, changed: bool) -> Leaderboard:
        """Render all of the leaderboard, if a record is new or a file is stale."""
        started = time.monotonic()
        folder = self._request.folder
        result = self._load()
        for problem in result.problems:
            self._reporter.say(str(problem))
        if distributed.is_main() and (changed or publish.stale(result, folder)):
            publish.render(result, folder, self._reporter.say)
        self.seconds += time.monotonic() - started
        return result

    def interrupted(self, stop: KeyboardInterrupt, resume: str) -> Interrupted:
        """Render what is there; the exception that says so, and how the run goes on."""
        status = stop.status if isinstance(stop, Interrupted) else Interrupted.CTRL_C
        if not distributed.is_main():
            return Interrupted(f"interrupted; {resume}", status)
        try:
            result = self.finish(changed=True)
        except UserError as error:
            return Interrupted(f"interrupted; no leaderboard: {error}; {resume}", status)
        count = sum(bool(row.scored) for table in result.tables for row in table.rows)
        rows = "1 finished row" if count == 1 else f"{count} finished rows"
        path = self._request.folder / PAGE
        return Interrupted(f"interrupted; leaderboard of {rows}: {path}; {resume}", status)

    def _load(self) -> Leaderboard:
        return leaderboard.load(self._request.folder, self._request.cache)


def _announce(
    request: Request, cells: Sequence[Cell], todo: Sequence[Cell], reporter: Reporter
) -> None:
    added = [c.method for c in cells if c.method not in request.methods]
    if added:
        names = ", ".join(dict.fromkeys(added))
        reporter.say(f"with {names}: the untrained encoder of the same input")
    for notice in plan.notices(request):
        reporter.say(notice)
    reporter.say(plan.counts(cells, todo))


def _say_if_busy(todo: Sequence[Cell], reporter: Reporter) -> None:
    if todo and load() > BUSY * cores():
        reporter.say(
            f"this machine is busy (load {load():.1f} on {cores()} cores): "
            "expect the run to take longer"
        )
