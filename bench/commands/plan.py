"""The plan of a run: its cells, and which of them are up to date. Imports no torch."""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import plugins, specs
from bench.commands.cache import KINDS
from bench.commands.request import Cell, Request
from bench.config import overrides, settings
from bench.config.schema import Suite
from bench.encoders import kinds
from bench.errors import UserError, unknown
from bench.results import storage
from bench.results.differences import between
from bench.results.record import Record
from bench.runtime.files import same_files

SHOWN_KEYS = 3  # of those at which a record and the request differ


def cells(request: Request) -> list[Cell]:
    """Every cell of a request; the cells of one encoder follow one another.

    Reference rows come first, then untrained ones: the others are measured against them.

    Raises:
        UserError: the settings of a method or task are incomplete or wrong.
    """
    for task in request.tasks:
        settings.resolved_task_settings(request.suite, task, request.cache)
    _check_backbones(request)
    methods = sorted(with_baselines(request.methods, request.suite), key=_precedence)
    for method in methods:
        settings.resolved_recipe(request.suite, method, request.cache)
    return [
        Cell(method, task, seed)
        for method in methods
        for seed in request.seeds
        for task in request.tasks
    ]


def groups(cells: Iterable[Cell]) -> list[list[Cell]]:
    """The cells of each encoder, in order."""
    by_name: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        by_name[cell.group].append(cell)
    return list(by_name.values())


def needed_backbone(method: str, suite: Suite) -> str:
    """The kind of backbone that a method needs and the suite's is not; else empty.

    Raises:
        UserError: the method declares a kind that is unknown.
    """
    needed = plugins.describe("methods", method).backbones
    if needed and needed not in kinds.KINDS:
        raise UserError(f"{method}: {unknown('kind in `backbones`', needed, kinds.KINDS)}")
    return "" if needed in ("", kinds.kind_of(suite.backbone.name)) else needed


def _check_backbones(request: Request) -> None:
    """Refuse a method that cannot train the suite's backbone.

    One that names the suite's own backbone is refused too: there is a row without it.
    """
    for method in request.methods:
        if needed := needed_backbone(method, request.suite):
            kind = kinds.KINDS[needed]
            raise UserError(
                f"{method} trains {kind.words}, and backbone.name '{request.suite.backbone.name}' "
                f"is none; set one, for example --set backbone.name={kind.example}"
            )
        name, separator, backbone = method.partition(plugins.OF_BACKBONE)
        if separator and backbone == request.suite.backbone.name:
            raise UserError(f"{method}: {backbone} is the suite's backbone: say {name}")


def with_baselines(methods: Sequence[str], suite: Suite) -> list[str]:
    """The methods, and the untrained encoder of the same inputs and backbone for each pretrained.

    Reference rows of the suite's backbone need none.
    """
    described = [plugins.describe("methods", method) for method in methods]
    baselines = [
        plugins.untrained_name(d.inputs, other_backbone(d, suite))
        for d in described
        if d.trains_on_suite or (d.origin == "spec" and d.backbone) or other_backbone(d, suite)
    ]
    return list(dict.fromkeys([*methods, *baselines]))


def other_backbone(method: plugins.Description, suite: Suite) -> str:
    """The backbone of a method, where it is not the suite's; else empty."""
    return "" if method.backbone == suite.backbone.name else method.backbone


def _without_reference(request: Request) -> list[str]:
    """The backbones of the methods, other than the suite's, whose ImageNet weights have no row.

    Neither the request nor the folder of the records has it.
    """
    described = [plugins.describe("methods", method) for method in request.methods]
    backbones = dict.fromkeys(other_backbone(d, request.suite) for d in described if d.backbone)
    references = {name: f"{specs.REFERENCE}@{name}" for name in backbones if name}
    return [
        name
        for name, reference in references.items()
        if reference not in request.methods
        and not any(request.folder.glob(f"*/{reference}/seed*.json"))
    ]


def _precedence(method: str) -> int:
    """The place of a method among the others: low ones are computed first."""
    described = plugins.describe("methods", method)
    if described.constants.get("reference_row"):
        return 0
    if described.constants.get("untrained"):
        return 1 if described.inputs == ("rgb",) else 2
    return 3


def notices(request: Request) -> Iterator[str]:
    """What a user may have overlooked in a request, each in one line."""
    suite = request.suite
    sections = [f"[recipes.{name}]" for name in suite.recipes if not _known("methods", name)]
    sections += [f"[tasks.{name}]" for name in suite.tasks if not _known("tasks", name)]
    for section in sections:
        yield f"{section} of the suite is not used: no plug-in of that name is known here"
    if request.left_out:
        names = ", ".join(request.left_out)
        yield f"'all' leaves out {names}: not for the backbone {suite.backbone.name}"
    yield from overrides.without_effect(request)
    for backbone in _without_reference(request):
        reference = f"{specs.REFERENCE}@{backbone}"
        yield (
            f"no gap to the ImageNet labels of {backbone}: add {reference} to --methods, or "
            f"{reference}=file:PATH where timm has no such weights"
        )


def title(suite: Suite) -> str:
    """A suite in a line."""
    return f"suite {suite.name} ({suite.sha256[:8]}): {suite.summary}"


def counts(cells: Sequence[Cell], todo: Sequence[Cell]) -> str:
    """How many cells there are, are up to date, and are to be run."""
    count = "1 cell" if len(cells) == 1 else f"{len(cells)} cells"
    return f"{count}, {len(cells) - len(todo)} up to date, {len(todo)} to run"


def is_up_to_date(cell: Cell, request: Request) -> bool:
    """Whether a cell has a record of the suite, settings, versions and files in force.

    Raises:
        UserError: another experiment's record is there, or a copy of another cell's.
    """
    path = cell.path(request)
    record = storage.find(path)
    if record is None or record.status == "failed":
        return False
    storage.check_location(path, record, request.folder)
    check_settings(path, record, request)
    if not (_same_versions(record) and same_files(record.files)):
        return False
    if not (request.keep or _same_code(record)):
        return False
    storage.predictions_file(path, record)
    return True


def _same_versions(record: Record) -> bool:
    method = plugins.describe("methods", record.method)
    task = plugins.describe("tasks", record.task)
    return (record.method_version, record.task_version) == (method.version, task.version)


def _same_code(record: Record) -> bool:
    """Whether the plug-ins that do not ship with the project are unchanged."""
    method = plugins.own_digest("methods", record.method)
    task = plugins.own_digest("tasks", record.task)
    return (record.method_digest, record.task_digest) == (method, task)


def check_settings(path: Path, record: Record, request: Request) -> None:
    """Refuse a record of other settings: it is never overwritten, and never shares a table.

    Raises:
        UserError: names the record and what differs.
    """
    suite = request.suite
    if record.suite_sha256 != suite.sha256:
        raise UserError(
            f"{path}: has other settings of suite {suite.name} "
            f"({record.suite_sha256[:8]}, not {suite.sha256[:8]}); "
            "use another --out, or a new name with --set name=..."
        )
    hint = "use another --out, or move it out of this folder"
    if _known("methods", record.method) and record.status == "ok":
        recipe = settings.resolved_recipe(suite, record.method, request.cache)
        if record.recipe != recipe:
            raise UserError(
                f"{path}: was trained by another recipe than suite {suite.name} has for "
                f"{record.method}{_named(record.recipe, recipe)}; {hint}"
            )
    if _known("tasks", record.task) and record.task in (*request.tasks, *suite.tasks):
        own = settings.resolved_task_settings(suite, record.task, request.cache)
        declared = suite.datasets.get(record.dataset)
        recorded = record.suite_settings.datasets.get(record.dataset)
        if record.task_settings != own or recorded != declared:
            data = [
                {"datasets": {record.dataset: each.model_dump(mode="json")}} if each else {}
                for each in (recorded, declared)
            ]
            differing = _named(record.task_settings | data[0], own | data[1])
            raise UserError(
                f"{path}: was scored with other settings or data than [tasks.{record.task}] of "
                f"suite {suite.name} has{differing}; {hint}"
            )


def _named(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first keys at which two tables differ, in parentheses; nothing if none does."""
    keys = [difference.setting for difference in between(recorded, now)]
    more = [f"{len(keys) - SHOWN_KEYS} more"] if len(keys) > SHOWN_KEYS else []
    return f" ({', '.join(keys[:SHOWN_KEYS] + more)})" if keys else ""


def _known(kind: plugins.Kind, name: str) -> bool:
    """Whether a plug-in is there; a record may be of one that only its maker has."""
    try:
        plugins.source(kind, name)
    except UserError:
        return False
    return True


def check_writable(request: Request) -> None:
    """Refuse, before anything is computed, a folder that no record can be written to.

    Raises:
        UserError: names the folder.
    """
    folder = request.folder
    try:
        _try_writing(folder)
    except OSError as error:
        raise UserError(f"--out {folder}: cannot be written ({error.strerror})") from None


def check_cache(cache: Path) -> None:
    """Refuse, before anything is computed, a cache that nothing can be written to.

    Raises:
        UserError: names the folder.
    """
    kinds = [folder for kind in KINDS if os.path.lexists(folder := cache / kind)]
    for folder in (cache, *kinds):
        try:
            if os.path.lexists(folder) and not folder.is_dir():
                raise UserError(f"{folder}: is no folder; move it away, or see --cache")
            _try_writing(folder)
        except OSError as error:
            raise UserError(
                f"{folder}: cannot be written ({error.strerror}); see --cache"
            ) from None


def _try_writing(folder: Path) -> None:
    """Write a file of no name to a folder, or to the one in which it would be made.

    Nothing is made yet: the data or the device may still be refused.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    with tempfile.TemporaryFile(dir=existing):  # a name of its own: processes try side by side
        pass


def check_tables(todo: Sequence[Cell], request: Request) -> None:
    """Refuse, before anything is computed, to add cells to a table that cannot have them.

    Args:
        todo: the cells to be computed; what they replace does not count.
        request: names the folder of the records.

    Raises:
        UserError: a record that stays has other settings or versions than the cells will have.
    """
    tasks = {cell.task for cell in todo}
    methods = {cell.method for cell in todo}
    hint = "run it again in the same command, or move it out of this folder"
    for path, record in _staying(todo, request).items():
        check_settings(path, record, request)
        if record.task not in tasks:
            continue
        task = plugins.describe("tasks", record.task)
        if record.task_version != task.version:
            raise UserError(
                f"{path}: was scored by version {record.task_version} of {record.task}, which is "
                f"now {task.version}; {hint}"
            )
        if not request.keep and record.task_digest != plugins.own_digest("tasks", record.task):
            raise UserError(
                f"{path}: was scored by other code of {record.task}, version {task.version}; "
                f"{hint}, or accept it with --keep"
            )
        if record.method in methods:
            method = plugins.describe("methods", record.method)
            if record.method_version != method.version:
                raise UserError(
                    f"{path}: is of version {record.method_version} of {record.method}, which is "
                    f"now {method.version}; {hint}"
                )


def check_data(todo: Iterable[Cell], request: Request, fingerprints: Mapping[str, str]) -> None:
    """Refuse, before anything is computed, to add cells to a table of other images.

    Args:
        todo: the cells to be computed; what they replace does not count.
        request: names the folder of the records.
        fingerprints: of the splits that are open now.

    Raises:
        UserError: a record that stays has other data.
    """
    todo = list(todo)
    tasks = {cell.task for cell in todo}
    for path, record in _staying(todo, request).items():
        for name, fingerprint in record.data.items():
            if record.task in tasks and fingerprints.get(name, fingerprint) != fingerprint:
                raise UserError(
                    f"{path}: the images changed since this result was recorded ({name}); "
                    "use another --out, or move it out of this folder"
                )


def _staying(todo: Iterable[Cell], request: Request) -> dict[Path, Record]:
    """The records that the cells to be computed will not replace."""
    replaced = {cell.path(request) for cell in todo}
    records = storage.read_all(request.folder)
    return {path: record for path, record in records.items() if path not in replaced}
