"""`bench test`: the contracts of methods and tasks, checked on somebody's own file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table

from bench import plugins
from bench.commands import execute
from bench.commands.contracts import (
    Bench,
    Check,
    ContractError,
    checks,
    first_task,
    fitting,
)
from bench.commands.request import Cell, Request
from bench.config import loader
from bench.errors import UserError
from bench.plugins import Kind
from bench.runtime.partial import temporary_folder
from bench.runtime.progress import Reporter

PLURALS: dict[str, Kind] = {"method": "methods", "task": "tasks"}


def test(
    path: Path,
    kind: Literal["method", "task"] | None,
    suite: str,
    overrides: Sequence[str],
    cache: Path,
    reporter: Reporter,
    console: Console,
) -> bool:
    """Run every check on one file and print the outcome.

    Returns:
        Whether all passed.

    Raises:
        UserError: the file is neither a method nor a task, or the suite cannot be used.
    """
    plural: Kind = PLURALS[kind] if kind is not None else _kind(path)
    name = plugins.add_path(plural, path)
    settings = loader.load(suite, list(overrides))
    if settings.synthetic is None:
        raise UserError(f"suite {settings.name}: bench test needs a suite that renders its images")
    if plural == "methods":
        settings = fitting(settings, name)
    method = name if plural == "methods" else plugins.UNTRAINED
    task = name if plural == "tasks" else first_task(settings)
    cells = [Cell(method, task, 0)]
    request = Request(settings, (method,), (task,), (0,), None, cache, cache, "cpu")
    datasets = execute.open_for(cells, request, reporter)
    table = Table(title=f"{plural[:-1]} {name}", box=box.SIMPLE, title_justify="left")
    table.add_column("check")
    table.add_column("outcome", overflow="fold")
    passed = True
    with temporary_folder() as folder:
        bench = Bench(name, settings, datasets, Path(folder), reporter)
        for check in checks(plural, name):
            outcome = "ok"
            try:
                check(bench, plural)
            except Exception as error:  # whatever somebody's code raises is the outcome
                passed = False
                text = str(error).strip() or "no message"
                named = isinstance(error, ContractError | UserError)
                outcome = f"FAILED: {text if named else f'{type(error).__name__}: {text}'}"
            table.add_row(_title(check), outcome)
    console.print(table)
    return passed


def _title(check: Check) -> str:
    return (check.__doc__ or check.__name__).strip().split("\n")[0]


def _kind(path: Path) -> Kind:
    """What a file defines: only a task has a metric."""
    constants = plugins.describe_file(path).constants
    if "version" not in constants:
        raise UserError(f"{path}: defines neither a method nor a task with a literal `version`")
    return "tasks" if "metric" in constants else "methods"
