"""`bench run`, from top to bottom. Imports torch only when there is something to compute."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.commands import plan
from bench.commands.request import Cell, Request
from bench.errors import UserError
from bench.reporting import leaderboard, publish
from bench.runtime import distributed
from bench.runtime.progress import Reporter


def run(request: Request, reporter: Reporter) -> leaderboard.Leaderboard:
    """Plan the cells, compute those that are not up to date, render the leaderboard.

    Raises:
        UserError: the request, its data or its output folder cannot be used.
    """
    cells = plan.cells(request)
    _check_writable(request.folder)
    todo = [cell for cell in cells if not plan.is_up_to_date(cell, request)]
    _announce(request, cells, todo, reporter)
    if todo:
        plan.check_tables(todo, request)
        from bench.commands.execute import compute

        compute(todo, request, reporter)
    result = leaderboard.load(request.folder, request.cache)
    for problem in result.problems:
        reporter.say(f"left out: {problem}")
    if distributed.is_main() and (todo or publish.stale(result, request.folder)):
        publish.write(result, request.folder)
    reporter.say(f"leaderboard: {request.folder / 'LEADERBOARD.md'}")
    return result


def _announce(
    request: Request, cells: Sequence[Cell], todo: Sequence[Cell], reporter: Reporter
) -> None:
    suite = request.suite
    reporter.say(f"suite {suite.name} ({suite.sha256[:8]}): {suite.summary}")
    added = [c.method for c in cells if c.method not in request.methods]
    if added:
        names = ", ".join(dict.fromkeys(added))
        reporter.say(f"with {names}: the untrained encoder of the same input")
    count = "1 cell" if len(cells) == 1 else f"{len(cells)} cells"
    reporter.say(f"{count}, {len(cells) - len(todo)} up to date, {len(todo)} to run")


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # a name of its own: processes try side by side
            pass
    except OSError as error:
        raise UserError(f"--out {folder}: cannot be written ({error.strerror})") from None
