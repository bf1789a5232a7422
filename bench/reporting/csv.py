"""leaderboard.csv: one row per task and method."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any

from bench.reporting import columns
from bench.reporting.rows import Table
from bench.statistics.intervals import Estimate

DTYPES = {"text": "str", "integer": "Int64", "number": "float64"}  # pandas' names
ENDS = ("", "_low", "_high")  # of an estimate


def dtypes() -> dict[str, str]:
    """The names of the columns, in order, with the types that a DataFrame gives them."""
    types: dict[str, str] = {}
    for column in columns.shown("csv"):
        if column.kind == "estimate":
            types |= {f"{column.key}{end}": "float64" for end in ENDS}
        else:
            types[column.key] = DTYPES[column.kind]
    return types


def rows(tables: Iterable[Table]) -> list[dict[str, Any]]:
    """The rows of every task: column -> number, text or None."""
    lines = []
    for table in tables:
        for row in table.rows:
            cells: dict[str, Any] = {}
            for column in columns.shown("csv"):
                value = column.value(table, row)
                if column.kind == "estimate":
                    cells |= _ends(column.key, value)
                else:
                    cells[column.key] = value
            lines.append(cells)
    return lines


def _ends(key: str, value: Any) -> dict[str, float | None]:
    if not isinstance(value, Estimate):
        return dict.fromkeys(f"{key}{end}" for end in ENDS)
    return {key: value.value, f"{key}_low": value.low, f"{key}_high": value.high}


def render(tables: Iterable[Table]) -> str:
    """The file: points with four decimals, empty where there is no value.

    The bytes of `Leaderboard.to_dataframe().to_csv(index=False, float_format="%.4f")`, without
    importing pandas: that takes longer than the rest of a run in which every cell is up to date.
    """
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(dtypes()), lineterminator="\n")
    writer.writeheader()
    for row in rows(tables):
        writer.writerow({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()})
    return stream.getvalue()
