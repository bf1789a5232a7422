"""The board as files: Markdown that explains itself, CSV, page, plots; and the terminal's table."""

from __future__ import annotations

import io
from collections.abc import Sequence
from csv import DictWriter
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table as Grid

from bench.errors import UserError
from bench.reporting import details, web
from bench.reporting.leaderboard import Board, Table, frame
from bench.reporting.markdown import PAGE, RESULT, markdown, result_cells, words
from bench.runtime.files import atomic_write

LEFT_OUT = ("over untrained [95 %]", "above next")  # of the terminal, which is narrow


def write(board: Board, folder: Path) -> None:
    """Write LEADERBOARD.md, leaderboard.csv, each task's plots, and leaderboard.html with these.

    Raises:
        UserError: the folder cannot be written.
    """
    from bench.reporting import plots

    drawn = {name: file for table in board.tables for name, file in plots.draw(table).items()}
    files = texts(board) | drawn | {PAGE: web.html(board, words(board), drawn)}
    try:
        for name, content in files.items():
            atomic_write(folder / name, content)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); see --out") from None


def texts(board: Board) -> dict[str, bytes]:
    """The board's text files by name."""
    return {
        "LEADERBOARD.md": markdown(board).encode(),
        "leaderboard.csv": csv(frame(board)).encode(),
    }


def stale(board: Board, folder: Path) -> list[str]:
    """The board's files that are missing or do not say what the records say.

    Plots need only be there, as another matplotlib draws other bytes; the page must hold them.
    """
    names = [f"{plot.name}_{t.task}.svg" for t in board.tables for plot in details.plots(t)]
    found = {n: (folder / n).read_bytes() for n in names if (folder / n).is_file()}
    drawn = {name: content for name, content in found.items() if b"<svg" in content}
    files = texts(board) | {PAGE: web.html(board, words(board), drawn)}
    differing = [
        name
        for name, content in files.items()
        if not (folder / name).is_file() or (folder / name).read_bytes() != content
    ]
    images = [f"gap_{t.task}.png" for t in board.tables if f"gap_{t.task}.svg" in names]
    absent = [name for name in images if not (folder / name).is_file()]
    return differing + [name for name in names if name not in drawn] + absent


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
