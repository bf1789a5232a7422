"""Leaderboards as booktabs tables for LaTeX."""

from __future__ import annotations

from collections.abc import Sequence

from bench.errors import unknown
from bench.reporting import columns
from bench.reporting.format import latex
from bench.reporting.rows import REFERENCE, Table, pivot


def render(tables: Sequence[Table], task: str | None) -> str:
    """Tables with intervals: the main columns of a task, or the gap of every method in every task.

    Args:
        tables: of a leaderboard.
        task: its name, for the tables of all backbones; the name of a table, for that one; or None.

    Raises:
        UserError: there is no such task or table.
    """
    if task is None:
        return _overview(tables)
    listed = [table for table in tables if task in (table.task, table.name)]
    if not listed:
        raise unknown("task", task, {name for t in tables for name in (t.task, t.name)})
    return "\n".join(_main_columns(table) for table in listed)


def _main_columns(table: Table) -> str:
    shown = columns.present(columns.shown("latex"), table)
    headings = [column.title(table) for column in shown]
    rows = [[column.text(table, row) for column in shown] for row in table.rows]
    left = [column.kind == "text" for column in shown]
    return _tabular(f"{table.name}: {table.metric}", headings, rows, left)


def _overview(tables: Sequence[Table]) -> str:
    gap = columns.named("gap")
    cells = ((row.method, t.name, gap.text(t, row)) for t in tables for row in t.rows)
    _, rows = pivot(cells)
    headings = ["Method", *(f"{table.name} ({table.metric})" for table in tables)]
    lines = [[method, *(text or "" for text in texts)] for method, texts in rows.items()]
    return _tabular(f"Gap to {REFERENCE} (95% CI)", headings, lines, [True])


def _tabular(
    title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[bool]
) -> str:
    """A tabular; `left`: which columns are aligned left, the others right."""
    sides = [*left, *(False for _ in headings[len(left) :])]
    lines = [_line(headings), r"\midrule", *(_line(row) for row in rows)]
    spec = "".join("l" if side else "r" for side in sides)
    begin = [f"% {title}", rf"\begin{{tabular}}{{{spec}}}", r"\toprule"]
    return "\n".join([*begin, *lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return " & ".join(latex(cell) for cell in cells) + r" \\"
