"""The plan of a run: its cells, and which of them stand recorded already. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from bench import plugins, record
from bench.errors import UserError
from bench.record import Record
from bench.suite import TUNED, Suite, tuples


@dataclass(frozen=True)
class Request:
    """What `bench run` was asked for.

    Attributes:
        suite: the experiment, overrides applied.
        methods: names, without repeats.
        tasks: names, without repeats.
        seeds: how many; they are 0, 1, ...
        data_root: where the pictures lie; None for a suite that renders its own.
        out: where records and boards go.
        cache: where what can be computed again goes.
        device: a torch device's name, or `auto`.
        verbose: whether a failure shows its traceback.
    """

    suite: Suite
    methods: tuple[str, ...]
    tasks: tuple[str, ...]
    seeds: int
    data_root: Path | None
    out: Path
    cache: Path
    device: str = "auto"
    verbose: bool = False


@dataclass(frozen=True)
class Cell:
    """method x task x seed."""

    method: str
    task: str
    seed: int

    def __str__(self) -> str:
        return f"{self.method} x {self.task}, seed {self.seed}"

    def path(self, request: Request) -> Path:
        """Where its record stands."""
        return record.path_of(request.out, request.suite.name, self.task, self.method, self.seed)


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


@dataclass(frozen=True)
class Places:
    """Where cells that stand recorded elsewhere are run again.

    Attributes:
        out: where the new records go.
        cache: where what can be computed again goes.
        data_root: where the pictures lie, for suites that do not render their own.
        device: a torch device's name, or `auto`.
    """

    out: Path
    cache: Path
    data_root: Path | None = None
    device: str = "auto"

    def request(self, path: Path, found: Record) -> Request:
        """The request that makes a record again.

        Raises:
            UserError: this version of the harness reads the record's suite otherwise.
        """
        suite = suite_of(path, found)
        return Request(
            suite=suite,
            methods=(found.method,),
            tasks=(found.task,),
            seeds=found.seed + 1,
            data_root=None if suite.scenes else self.data_root,
            out=self.out,
            cache=self.cache,
            device=self.device,
        )


def suite_of(path: Path, found: Record) -> Suite:
    """The suite that a record was made with, from what the record says.

    Raises:
        UserError: this version of the harness reads suites otherwise.
    """
    try:
        return Suite.model_validate(tuples(found.suite_settings))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"{path}: its suite cannot be run by this version (key '{key}': {first['msg']}); "
            "make the record again"
        ) from None


def is_recorded(cell: Cell, request: Request) -> bool:
    """Whether a cell stands recorded, by the code, task version and suite in force.

    Raises:
        UserError: the place is taken by another experiment's record.
    """
    path = cell.path(request)
    if not path.exists():
        return False
    found = record.read(path)
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
        record.read_predictions(path, found)
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
    """Refuse, before anything is computed, to add cells to a board of other pictures.

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
                    f"{path}: was made on other pictures ({name}) than lie there now; "
                    "choose another --out, or move it out of this folder"
                )


def _staying(todo: Sequence[Cell], request: Request) -> dict[Path, Record]:
    """The records that the cells about to be computed will not replace."""
    replaced = {cell.path(request) for cell in todo}
    found = record.read_all(request.out / request.suite.name)
    return {path: entry for path, entry in found.items() if path not in replaced}
