"""A task's table for the terminal: names are never cut, columns that do not fit are left out."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.table import Table as Grid
from rich.text import Text

from bench.reporting import columns
from bench.reporting.columns import Column
from bench.reporting.format import estimate
from bench.reporting.rows import REFERENCE, Row, Table

LEFT_OUT = ("gain", "rank_range", "gap")  # in a terminal that is too narrow, in this order

INDENTED: Any = {
    "initial_indent": "  ",
    "subsequent_indent": "    ",
    "break_long_words": False,
    "break_on_hyphens": False,
}  # of a row's warnings


@dataclass(frozen=True)
class TaskTable:
    """A task's main columns as wide as the terminal allows, and below them the warnings.

    Rows with the same warnings share a line.
    """

    table: Table

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        """The renderables of rich's protocol."""
        shown = columns.present(columns.shown("terminal", "main"), self.table)
        grid = self._grid(shown)
        for key in LEFT_OUT:
            if _width(grid, console, options) <= options.max_width:
                break
            shown = [column for column in shown if column.key != key]
            grid = self._grid(shown)
        yield grid
        warned = {tuple(self.table.shared_warnings): ["every pretrained row"]}
        for row in self.table.rows:
            warned.setdefault(tuple(self.table.own_warnings(row)), []).append(row.method)
        for warnings, names in warned.items():
            if warnings:
                line = f"{', '.join(names)}: {'; '.join(warnings)}"
                yield Text(textwrap.fill(line, options.max_width, **INDENTED))

    def _grid(self, shown: Sequence[Column]) -> Grid:
        table = self.table
        title = Text(f"{table.name} (version {table.example.task_version})")
        # Two spaces between columns: the longest shipped name fits 80 beside score and gap.
        style: Any = {"padding": (0, 1, 0, 0), "pad_edge": False, "show_edge": False}
        grid = Grid(title=title, box=box.SIMPLE_HEAD, **style)
        for column in shown:
            texts = [column.text(table, row) for row in table.rows]
            heading = textwrap.fill(
                column.title(table), max(map(len, texts)), break_long_words=False
            )
            left = column.key == "method"
            grid.add_column(
                Text(heading),
                justify="left" if left else "right",
                no_wrap=not left,
                overflow="fold",
            )
        for row in table.rows:
            grid.add_row(*(Text(column.text(table, row)) for column in shown))
        return grid


def row_line(table: Table, row: Row) -> str:
    """One scored row in a line: method, task, score with interval, and the gap if there is one."""
    assert row.value is not None
    parts = [f"{row.method} x {table.task}: {table.metric} {estimate(row.value)}"]
    if row.gap is not None and row.method != table.reference:
        parts.append(f"gap to {REFERENCE} {estimate(row.gap)}")
    if row.runs.source == "unknown" and row.value.interval:
        parts.append("test images only")
    if len(row.scored) > 1:
        parts.append(f"{len(row.scored)} seeds")
    return ", ".join(parts)


def _width(grid: Grid, console: Console, options: ConsoleOptions) -> int:
    """The columns of the terminal that a grid takes where nothing is wrapped."""
    return Measurement.get(console, options.update(max_width=10_000), grid).maximum
