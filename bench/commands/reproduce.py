"""`bench reproduce`: run one recorded cell again, from its record alone.

What differs from the record in code, data, packages and machine is shown before anything is
computed. The numbers are compared afterwards. The usual cache is not used: the encoder is trained
again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from bench import plugins
from bench.commands import verdict
from bench.commands.compare import read_rows, runs_of, table
from bench.commands.request import Cell, Locations, Request
from bench.commands.verdict import Stored, Verdict, judge
from bench.errors import UserError
from bench.results import storage
from bench.results.differences import DIGITS, Difference, between
from bench.results.record import Record
from bench.runtime.progress import Reporter

if TYPE_CHECKING:
    from bench.data.datasets import Datasets

UNCHANGED = "code, data, packages and machine are those of the record"
SAME = "every number came out the same"
COMPARED = (
    *("value", "per_class", "per_stage", "diagnostics", "hyperparameters", "warnings", "encoder"),
)


@dataclass(frozen=True)
class Reproduction:
    """A record about to be reproduced.

    Attributes:
        path: of the record.
        record: the record.
        request: that runs its cell again.
        cell: which one it is.
    """

    path: Path
    record: Record
    request: Request
    cell: Cell


def reproduce(path: Path, locations: Locations, reporter: Reporter, console: Console) -> bool:
    """Run the cell of a record again and print what differs.

    Returns:
        Whether the score is within its tolerance; where nothing differs, on a processor, whether
        the predictions are the same bytes.

    Raises:
        UserError: the path is no finished record, or its cell cannot be run here.
    """
    reproduction = prepare(path, locations)
    differ, datasets = compare_present(reproduction, reporter)
    headings = ("setting", "record", "now")
    console.print(table("different from the record", headings, differ) if differ else UNCHANGED)
    new = run(reproduction, datasets, reporter)
    changed = changed_numbers(reproduction.record, new[1])
    headings = ("number", "record", "now")
    console.print(table("changed numbers", headings, changed) if changed else SAME)
    outcome = judge_new(reproduction, new)
    for part in (verdict.table([outcome]), *verdict.messages([outcome])):
        console.print(part, highlight=False, markup=False)
    exact = not differ and new[1].environment.get("device") == "cpu"
    if exact and not outcome.same:
        console.print("other bytes, though nothing differs: the same run must give the same")
    return not outcome.changes and (outcome.same or not exact)


def prepare(path: Path, locations: Locations) -> Reproduction:
    """Read a record and plan its reproduction.

    Raises:
        UserError: it is no finished record, names what is not here, or would be overwritten.
    """
    storage.check_name(path)
    record = storage.read(path)
    if record.status != "ok":
        raise UserError(
            f"{path}: failed ({record.error}); only a finished record can be reproduced"
        )
    storage.predictions_file(path, record)  # complete, before hours are spent
    plugins.source("methods", record.method)
    plugins.source("tasks", record.task)
    request = locations.request(record)
    cell = Cell(record.method, record.task, record.seed)
    if cell.path(request).exists():
        raise UserError(f"--out {locations.out}: has {cell.path(request)} already; use another")
    return Reproduction(path, record, request, cell)


def compare_present(
    reproduction: Reproduction, reporter: Reporter
) -> tuple[list[Difference], Datasets]:
    """What differs from the record in code, data, packages and machine; and the opened data.

    Raises:
        UserError: the data cannot be used.
    """
    from bench.commands.execute import open_for
    from bench.data.datasets import fingerprints
    from bench.runtime.device import select_device
    from bench.runtime.environment import describe

    device = select_device(reproduction.request.device)
    datasets = open_for([reproduction.cell], reproduction.request, reporter)
    environment = describe(device)
    return _differences(reproduction, environment, fingerprints(datasets)), datasets


def run(reproduction: Reproduction, datasets: Datasets, reporter: Reporter) -> Stored:
    """Run the cell again.

    Raises:
        UserError: the output folder cannot be used.
    """
    from bench.commands.execute import compute

    compute([reproduction.cell], reproduction.request, reporter, datasets)
    path = reproduction.cell.path(reproduction.request)
    return path, storage.read(path)


def _differences(
    reproduction: Reproduction, environment: Mapping[str, Any], fingerprints: Mapping[str, str]
) -> list[Difference]:
    record = reproduction.record
    kept = {key: value for key, value in record.environment.items() if key in environment}
    before = {
        "suite_sha256": record.suite_sha256,
        "code": record.provenance.model_dump(include={"method_code", "task_code"}),
        "method_version": record.method_version,
        "task_version": record.task_version,
        "data": record.data,
        "environment": kept,
    }
    now = {
        "suite_sha256": reproduction.request.suite.sha256,
        "code": {
            "method_code": plugins.code("methods", record.method),
            "task_code": plugins.code("tasks", record.task),
        },
        "method_version": plugins.describe("methods", record.method).version,
        "task_version": plugins.describe("tasks", record.task).version,
        "data": {name: fingerprints.get(name, "-") for name in record.data},
        "environment": environment,
    }
    return between(before, now)


def changed_numbers(before: Record, after: Record) -> list[Difference]:
    """The scores, selections and weights that changed."""
    old, new = (
        dict(_leaves({key: record.model_dump(mode="json")[key] for key in COMPARED}))
        for record in (before, after)
    )
    return [
        Difference(key, _text(old.get(key)), _text(new.get(key)))
        for key in old | new
        if old.get(key) != new.get(key)
    ]


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted keys of nested mappings and lists with their values."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, item in items:
            yield from _leaves(item, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6f}"
    return value[:DIGITS] if isinstance(value, str) else json.dumps(value)


def judge_new(reproduction: Reproduction, new: Stored) -> Verdict:
    """How far the value changed, by the tolerance of `bench check`.

    Raises:
        UserError: predictions are missing or were changed.
    """
    record = reproduction.record
    folder = reproduction.path.parents[2]
    runs = runs_of(read_rows(folder), (record.task, record.method), folder)
    return judge((reproduction.path, record), new, runs)
