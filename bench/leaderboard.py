"""The board as files: Markdown that explains itself, CSV, plots; and the terminal's table."""

from __future__ import annotations

import io
from collections.abc import Sequence
from csv import DictWriter
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table as Grid

from bench import record
from bench.board import Board, Table, frame
from bench.errors import UserError
from bench.markdown import RESULT, markdown, result_cells

LEFT_OUT = ("over untrained [95 %]", "above next")  # of the terminal, which is narrow


def write(board: Board, folder: Path) -> None:
    """Write LEADERBOARD.md, leaderboard.csv and a gap plot for each task.

    Raises:
        UserError: the folder cannot be written.
    """
    from bench import plots  # matplotlib takes longer to import than a board to check

    files = texts(board)
    for table in board.tables:
        files |= plots.gap(table)
    try:
        for name, content in files.items():
            record.write(folder / name, content)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); see --out") from None


def texts(board: Board) -> dict[str, bytes]:
    """The board's text files by name."""
    return {
        "LEADERBOARD.md": markdown(board).encode(),
        "leaderboard.csv": csv(frame(board)).encode(),
    }


def stale(board: Board, folder: Path) -> list[str]:
    """The board's text files that are missing or do not say what the records say."""
    return [
        name
        for name, content in texts(board).items()
        if not (folder / name).is_file() or (folder / name).read_bytes() != content
    ]


def csv(rows: Sequence[dict[str, Any]]) -> str:
    """Comma-separated rows; points with four decimals, empty where there is no value."""
    stream = io.StringIO()
    writer = DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()})
    return stream.getvalue()


def terminal(table: Table) -> Grid:
    """One task as a rich table: its main columns."""
    grid = Grid(title=f"{table.task} (version {table.example.task_version})", box=box.SIMPLE)
    shown = [place for place, header in enumerate(RESULT) if header not in LEFT_OUT]
    for place in shown:
        title = RESULT[place].format(metric=table.example.metric)
        grid.add_column(title, justify="left" if title in ("method", "flags") else "right")
    for row in table.rows:
        cells = result_cells(row)
        grid.add_row(*(cells[place] for place in shown))
    return grid
