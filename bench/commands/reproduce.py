"""One record, run again from what it says: `bench reproduce`.

What differs from the record in code, data, packages and machine is said before anything is
computed; the numbers are compared afterwards. Nothing is taken from the usual cache: the encoder
is made again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import plugins
from bench.commands.check import Found, Verdict, judge
from bench.commands.request import Cell, Places, Request
from bench.errors import UserError
from bench.results import storage
from bench.results.differences import Difference, leaves
from bench.results.record import Record
from bench.runtime.progress import Reporter

if TYPE_CHECKING:
    from bench.data.datasets import Data


@dataclass(frozen=True)
class Again:
    """A record about to be made again.

    Attributes:
        path: of the record.
        found: the record.
        request: that makes it again.
        cell: which one it is.
    """

    path: Path
    found: Record
    request: Request
    cell: Cell


def prepare(path: Path, places: Places) -> Again:
    """Read a record and plan to make it again, elsewhere.

    Raises:
        UserError: it is no finished record, names what is not here, or would be overwritten.
    """
    if path.suffix != ".json":
        raise UserError(f"{path}: is no record; name one, TASK/METHOD/seedK.json")
    found = storage.read(path)
    if found.status != "ok":
        raise UserError(f"{path}: failed ({found.error}); only a finished record can be reproduced")
    storage.predictions_file(path, found)  # whole, before it is made again
    plugins.select("methods", found.method)
    plugins.select("tasks", found.task)
    request = places.request(path, found)
    cell = Cell(found.method, found.task, found.seed)
    if cell.path(request).exists():
        raise UserError(f"--out {places.out}: holds {cell.path(request)} already; choose another")
    return Again(path, found, request, cell)


def present(again: Again, reporter: Reporter) -> tuple[list[Difference], Data]:
    """In what code, data, packages and machine differ from the record's; and the data, opened.

    Raises:
        UserError: the data cannot be used.
    """
    from bench.commands.execute import opened
    from bench.runtime.device import select_device
    from bench.runtime.environment import describe

    data = opened([again.cell], again.request, reporter)
    environment = describe(select_device(again.request.device))
    return _differences(again, environment, data.fingerprints()), data


def run(again: Again, data: Data, reporter: Reporter) -> Found:
    """Make the record again.

    Raises:
        UserError: the output folder cannot be used.
    """
    from bench.commands.execute import compute

    compute([again.cell], again.request, reporter, data)
    path = again.cell.path(again.request)
    return path, storage.read(path)


def _differences(
    again: Again, environment: Mapping[str, Any], fingerprints: Mapping[str, str]
) -> list[Difference]:
    """In what the present differs from a record, key by key."""
    found = again.found
    task = plugins.describe("tasks", found.task).constants
    before = {
        "suite_sha256": found.suite_sha256,
        "code": {"method": found.method_code, "task": found.task_code},
        "task_version": found.task_version,
        "data": found.data,
        "environment": found.environment,
    }
    now = {
        "suite_sha256": again.request.suite.sha256,
        "code": {
            "method": plugins.code("methods", found.method),
            "task": plugins.code("tasks", found.task),
        },
        "task_version": task["version"],
        "data": {name: fingerprints.get(name, "-") for name in found.data},
        "environment": environment,
    }
    then, here = dict(leaves(before)), dict(leaves(now))
    pairs = (Difference(k, then.get(k, "-"), here.get(k, "-")) for k in then | here)
    return [pair for pair in pairs if pair.one != pair.other]


def numbers(before: Record, after: Record) -> list[Difference]:
    """The scores, choices and weights that came out otherwise."""
    kept = ("value", "scores", "selection", "flags", "encoder")
    then, here = (
        dict(_flat({key: entry.model_dump(mode="json")[key] for key in kept}))
        for entry in (before, after)
    )
    return [
        Difference(key, _text(then.get(key)), _text(here.get(key)))
        for key in then | here
        if then.get(key) != here.get(key)
    ]


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted keys of nested mappings and lists with their values."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, item in items:
            yield from _flat(item, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6f}"
    return value[:12] if isinstance(value, str) else json.dumps(value)


def verdict(again: Again, new: Found) -> Verdict:
    """How far the value moved, judged as `bench check` does.

    Raises:
        UserError: predictions are missing or were changed.
    """
    return judge((again.path, again.found), new)
