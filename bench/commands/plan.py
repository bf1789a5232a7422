"""The plan of a run: its cells, and which of them stand recorded already. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import plugins
from bench.commands.request import Cell, Request
from bench.config.schema import TUNED
from bench.errors import UserError
from bench.results import storage
from bench.results.record import Record


def cells(request: Request) -> list[Cell]:
    """Every cell of a request; the cells of one encoder follow one another.

    Raises:
        UserError: the suite has no settings for a task.
    """
    for task in request.tasks:
        if task in TUNED and request.suite.tuning(task) is None:
            raise UserError(
                f"suite {request.suite.name} does not say how {task} trains: it has no [{task}]"
            )
    return [
        Cell(method, task, seed)
        for method in request.methods
        for seed in range(request.seeds)
        for task in request.tasks
    ]






def is_recorded(cell: Cell, request: Request) -> bool:
    """Whether a cell stands recorded, by the code, task version and suite in force.

    Raises:
        UserError: the place is taken by another experiment's record.
    """
    path = cell.path(request)
    if not path.exists():
        return False
    found = storage.read(path)
    if found.status == "failed":
        return False
    _check_settings(path, found, request)
    task = plugins.describe("tasks", cell.task)
    current = (
        found.task_version == task.constants["version"]
        and found.method_code == plugins.code("methods", cell.method)
        and found.task_code == plugins.code("tasks", cell.task)
    )
    if current:
        storage.read_predictions(path, found)
    return current


def _check_settings(path: Path, found: Record, request: Request) -> None:
    """Refuse a record of other settings: it is never overwritten, and never shares a table."""
    suite = request.suite
    if found.suite_sha256 != suite.sha256:
        raise UserError(
            f"{path}: was made by other settings of suite {suite.name} "
            f"({found.suite_sha256[:8]}, not {suite.sha256[:8]}); "
            "choose another --out, or a new name with --set name=..."
        )
    if found.status == "ok" and found.recipe != suite.recipe(found.method).model_dump(mode="json"):
        raise UserError(
            f"{path}: was trained by another recipe than suite {suite.name} now gives "
            f"{found.method}; choose another --out, or move it out of this folder"
        )
    if found.tuning != suite.tuning(found.task):
        raise UserError(
            f"{path}: was scored by another [{found.task}] than suite {suite.name} now holds; "
            "choose another --out, or move it out of this folder"
        )


def check_board(todo: Sequence[Cell], request: Request) -> None:
    """Refuse, before anything is computed, to add cells to a board that cannot hold them.

    Args:
        todo: the cells about to be computed; what they replace does not count.
        request: says where the records stand.

    Raises:
        UserError: a record that stays was made by other settings, another task version, or other
            code than the cells would be.
    """
    tasks, methods = {cell.task for cell in todo}, {cell.method for cell in todo}
    for path, found in _staying(todo, request).items():
        _check_settings(path, found, request)
        mend = "run it again in the same command, or move it out of this folder"
        if found.task not in tasks:
            continue
        version = plugins.describe("tasks", found.task).constants["version"]
        if found.task_version != version:
            raise UserError(
                f"{path}: was scored by version {found.task_version} of {found.task}, which is now "
                f"{version}; {mend}"
            )
        if found.task_code != plugins.code("tasks", found.task):
            raise UserError(f"{path}: was scored by other code of {found.task}; {mend}")
        if found.method in methods and found.method_code != plugins.code("methods", found.method):
            raise UserError(f"{path}: was made by other code of {found.method}; {mend}")


def check_data(todo: Sequence[Cell], request: Request, fingerprints: Mapping[str, str]) -> None:
    """Refuse, before anything is computed, to add cells to a board of other images.

    Args:
        todo: the cells about to be computed; what they replace does not count.
        request: says where the records stand.
        fingerprints: of the image sets that are open now.

    Raises:
        UserError: a record that stays was made on other data.
    """
    tasks = {cell.task for cell in todo}
    for path, found in _staying(todo, request).items():
        for name, fingerprint in found.data.items():
            if found.task in tasks and fingerprints.get(name, fingerprint) != fingerprint:
                raise UserError(
                    f"{path}: was made on other images ({name}) than lie there now; "
                    "choose another --out, or move it out of this folder"
                )


def _staying(todo: Sequence[Cell], request: Request) -> dict[Path, Record]:
    """The records that the cells about to be computed will not replace."""
    replaced = {cell.path(request) for cell in todo}
    found = storage.read_all(request.out / request.suite.name)
    return {path: entry for path, entry in found.items() if path not in replaced}
