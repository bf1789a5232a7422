"""Which records may share a table: everything that would make two rows incomparable is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.results import storage
from bench.results.record import Record

Records = Mapping[Path, Record]


def check_suite(records: Records, folder: Path) -> None:
    """Refuse records below OUT/SUITE that are not of one experiment, or not where they belong.

    Raises:
        UserError: names the records.
    """
    check_places(records, folder)
    for path, found in records.items():
        if found.suite != folder.name:
            raise UserError(f"{path}: is of suite {found.suite}; name its folder so")
    _check_same(records, "settings of the suite", lambda r: r.suite_sha256)


def check_places(records: Records, folder: Path) -> None:
    """Refuse copies: records below a suite's folder that name another task, method or seed.

    Raises:
        UserError: names the record and where it belongs.
    """
    for path, found in records.items():
        place = storage.path_of(folder.parent, folder.name, found.task, found.method, found.seed)
        if path != place:
            mend = "remove it" if place.exists() else "move it there"
            raise UserError(f"{path}: is a copy of the record that belongs at {place}; {mend}")


def check_table(records: Records, task: str) -> None:
    """Refuse records of one task that cannot be compared with one another.

    Raises:
        UserError: two of them differ in what all rows, or all seeds of a row, must share.
    """
    _check_same(records, "task version", lambda r: r.task_version)
    _check_same(records, "backbone", lambda r: r.encoder.backbone if r.encoder else None)
    _check_same(records, f"settings of {task}", lambda r: json.dumps(r.tuning, sort_keys=True))
    for name in sorted({name for r in records.values() for name in r.data}):
        _check_same(records, f"images ({name})", partial(_fingerprint, name=name))
    _check_same(records, f"code that scored {task}", lambda r: r.task_code)
    for method in {r.method for r in records.values()}:
        mine = {path: found for path, found in records.items() if found.method == method}
        check_seeds(mine, method)


def check_seeds(records: Records, method: str) -> None:
    """Refuse seeds of one row that are not of one method.

    Raises:
        UserError: two of them differ in code, recipe or settings.
    """
    _check_same(records, "settings of the suite", lambda r: r.suite_sha256)
    _check_same(records, f"code of {method}", lambda r: r.method_code)
    _check_same(records, f"recipe of {method}", lambda r: json.dumps(r.recipe, sort_keys=True))


def check_sizes(sizes: Mapping[int, Path]) -> None:
    """Refuse predictions of one task that are of different numbers of images.

    Args:
        sizes: how many images -> a record whose predictions are of so many.

    Raises:
        UserError: there are several.
    """
    if len(sizes) > 1:
        (one, first), (two, second), *_ = sizes.items()
        raise UserError(
            f"{first} has predictions of {one} images, {second} of {two}: never in one table; "
            "move one away"
        )


def _fingerprint(found: Record, name: str) -> str | None:
    return found.data.get(name)


def _check_same(records: Records, what: str, read: Callable[[Record], Any]) -> None:
    values: dict[Any, Path] = {}
    for path, found in records.items():
        if (value := read(found)) is not None:
            values.setdefault(value, path)
    if len(values) > 1:
        one, two, *_ = values.values()
        raise UserError(f"{one} and {two} differ in the {what}: never in one table; move one away")
