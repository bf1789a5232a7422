"""Results as a pandas DataFrame: one row per cell."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import UserError
from bench.results import storage
from bench.results.record import Record
from bench.results.storage import Problem

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = {
    **dict.fromkeys(("suite", "task", "method"), "str"),
    "seed": "Int64",
    "metric": "str",
    "value": "float64",
    **dict.fromkeys(("status", "role", "backbone", "inputs"), "str"),
    **dict.fromkeys(("method_version", "task_version"), "Int64"),
    "num_images": "Int64",
    "parameters": "Int64",
    "views_seen": "Int64",
    "seconds": "float64",
    "selected_stage": "Int64",
    "num_settings": "Int64",
    "optimism": "float64",
    "effective_rank": "float64",
    **dict.fromkeys(("warnings", "error", "created", "path"), "str"),
}


def load_results(folder: str | Path, *, per_class: bool = False) -> pd.DataFrame:
    """Records as a DataFrame: one row per suite, task, method and seed.

    `value` is the main score in points, `num_images` counts test images, and `seconds` is the time
    of pretraining. A record that cannot be used is left out with a warning.

    Args:
        folder: OUT, with the records of several suites, or OUT/SUITE.
        per_class: one row per cell and class, with the columns `class` and `class_value`, points.

    Raises:
        UserError: the folder contains no records.

    Examples:
        The mean over seeds, methods by tasks::

            results = bench.load_results("results/reference/mini")
            results.pivot_table(index="method", columns="task", values="value")
    """
    import pandas as pd

    records, problems = _read(Path(folder))
    for problem in problems:
        warnings.warn(str(problem), stacklevel=2)
    rows = [_row(path, record) for path, record in records.items()]
    types = dict(COLUMNS)
    if per_class:
        rows = [cells | each for cells in rows for each in cells["per_class"]]
        types |= {"class": "str", "class_value": "float64"}
    return pd.DataFrame(rows, columns=list(types)).astype(types)


def _read(folder: Path) -> tuple[dict[Path, Record], list[Problem]]:
    """The records that can be used, in order, and what is wrong with the others."""
    suites = [folder] if storage.files(folder) else _suites(folder)
    if not suites:
        raise UserError(f"{folder}: contains no records; name the folder that `--out` named")
    records: dict[Path, Record] = {}
    problems: list[Problem] = []
    for suite in suites:
        readable, unreadable = storage.read_valid(suite)
        problems += unreadable
        for path, record in readable.items():
            try:
                if record.status == "ok":
                    storage.predictions_file(path, record)
            except UserError as error:
                problems.append(storage.problem(path, suite, error))
            else:
                records[path] = record
    return records, problems


def _suites(folder: Path) -> list[Path]:
    """The folders of suites in OUT."""
    return sorted({path.parents[2] for path in storage.files(folder, storage.IN_OUT)})


def _row(path: Path, record: Record) -> dict[str, Any]:
    encoder = record.encoder
    classes = record.per_class.items()
    return {
        "suite": record.suite,
        "task": record.task,
        "method": record.method,
        "seed": record.seed,
        "metric": record.metric,
        "value": record.value,
        "status": record.status,
        "role": record.role,
        "backbone": encoder and encoder.backbone,
        "inputs": ", ".join(encoder.inputs) if encoder else None,
        "method_version": record.method_version,
        "task_version": record.task_version,
        "num_images": record.num_images.get(f"{record.dataset}_test"),
        "parameters": encoder and encoder.parameters,
        "views_seen": record.pretraining.views_seen,
        "seconds": record.pretraining.seconds,
        "selected_stage": record.selected_stage,
        "num_settings": record.hyperparameters.num_settings,
        "optimism": record.diagnostics.get("optimism"),
        "effective_rank": record.diagnostics.get("effective_rank"),
        "warnings": "; ".join(record.warnings),
        "error": record.error,
        "created": record.created,
        "path": str(path),
        "per_class": [{"class": name, "class_value": value} for name, value in classes],
    }
