"""Comparability of records: what would make two rows incomparable is refused."""

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
    """Refuse records below OUT/SUITE that are not of one experiment.

    Raises:
        UserError: names the records.
    """
    for path, record in records.items():
        if record.suite != folder.name:
            advice = "rename its folder to that"
            if folder.with_name(record.suite).exists():
                advice = f"move {folder} out of {folder.parent}"
            raise UserError(f"{path}: is of suite {record.suite}; {advice}")
    _check_same(records, "settings of the suite", lambda r: r.suite_sha256)
    _check_same(records, "settings of the suite", lambda r: r.suite_settings.sha256)


def check_places(records: Records, folder: Path) -> None:
    """Refuse copies: records below a suite's folder that name another task, method or seed.

    Raises:
        UserError: names the record and where it belongs.
    """
    for path, record in records.items():
        storage.check_location(path, record, folder)


def check_table(records: Records, task: str) -> None:
    """Refuse records of one task and backbone that cannot be compared with one another.

    Raises:
        UserError: two of them differ in what all rows, or all seeds of a row, must share.
    """
    _check_same(records, "task version", lambda r: r.task_version)
    _check_same(records, f"code of {task}", lambda r: r.task_digest)
    _check_same(records, "metric", lambda r: r.metric)
    _check_same(records, "backbone", lambda r: r.encoder.backbone if r.encoder else None)
    _check_same(records, f"settings of {task}", _task_settings)
    _check_same(records, f"data set of {task}", _dataset_settings)
    for name in sorted({name for r in records.values() for name in r.data}):
        _check_same(records, f"images ({name})", partial(_fingerprint, name=name))
    for method in sorted({r.method for r in records.values()}):
        row = {path: record for path, record in records.items() if record.method == method}
        check_seeds(row, method)


def check_seeds(records: Records, method: str) -> None:
    """Refuse seeds of one row that are not of one method.

    Raises:
        UserError: two of them differ in version, code, role, recipe, settings of the suite, or in
            the files or the reference weights that they read.
    """
    _check_same(records, "settings of the suite", lambda r: r.suite_sha256)
    _check_same(records, f"version of {method}", lambda r: r.method_version)
    _check_same(records, f"code of {method}", lambda r: r.method_digest)
    _check_same(records, f"role of {method}", lambda r: r.role)
    _check_same(records, f"recipe of {method}", _recipe)
    for name in sorted({name for record in records.values() for name in record.files}):
        _check_same(records, f"content of {name}", partial(_file, name=name))
    _check_same(records, f"weights of {method}", _reference_weights)


def other_method(record: Record, other: Record) -> str:
    """What says that two records of one name are of two methods; empty if nothing does.

    Recipes and versions may differ between suites.
    """
    facts: dict[str, Callable[[Record], Any]] = {
        "code": lambda r: r.method_digest,
        "role": lambda r: r.role,
    }
    if record.suite == other.suite:
        facts |= {"version": lambda r: r.method_version, "recipe": _recipe}
    pairs = ((what, read(record), read(other)) for what, read in facts.items())
    return next((w for w, a, b in pairs if None not in (a, b) and a != b), "")


def check_sizes(sizes: Mapping[int, Path]) -> None:
    """Refuse predictions of one task that are of different numbers of images.

    Args:
        sizes: how many images -> a record whose predictions are of so many.

    Raises:
        UserError: there are several.
    """
    if len(sizes) > 1:
        (count, path), (other_count, other_path), *_ = sizes.items()
        raise UserError(
            f"{path} has predictions of {count} images, {other_path} of {other_count}: they cannot "
            "share a table; move one away"
        )


def check_truths(truths: Mapping[str, Path]) -> None:
    """Refuse predictions of one task with another ground truth than those before them.

    Args:
        truths: digest of the images' names and ground truth -> the first record that has it.

    Raises:
        UserError: there are several.
    """
    if len(truths) > 1:
        path, other, *_ = truths.values()
        raise UserError(
            f"{other} has other images or another ground truth than {path}: they cannot share a "
            "table; move one away"
        )


def _task_settings(record: Record) -> str | None:
    """The task's settings as text; None of a failed record that has none."""
    return _text(record.task_settings) if record.task_settings or _scored(record) else None


def _dataset_settings(record: Record) -> str | None:
    """The suite's section of the data set that the task used, as text."""
    section = record.suite_settings.datasets.get(record.dataset)
    return None if section is None else section.model_dump_json()


def _recipe(record: Record) -> str | None:
    """The method's recipe as text; None of a failed record that has none."""
    return _text(record.recipe) if record.recipe or _scored(record) else None


def _file(record: Record, name: str) -> str | None:
    return record.files.get(name)


def _reference_weights(record: Record) -> str | None:
    return record.encoder.weights_sha256 if record.role == "reference" and record.encoder else None


def _scored(record: Record) -> bool:
    return record.status == "ok"


def _text(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)


def _fingerprint(record: Record, name: str) -> str | None:
    return record.data.get(name)


def _check_same(records: Records, what: str, read: Callable[[Record], Any]) -> None:
    values: dict[Any, Path] = {}
    for path, record in records.items():
        value = read(record)
        if value is not None:
            values.setdefault(value, path)
    if len(values) > 1:
        path, other, *_ = values.values()
        raise UserError(
            f"{path} and {other} differ in the {what}: they cannot share a table; move one away"
        )
