"""The leaderboard as files: Markdown, CSV, web page and plots, written or checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from bench.errors import UserError
from bench.reporting import csv, plots, web
from bench.reporting.leaderboard import Leaderboard
from bench.reporting.markdown import markdown
from bench.reporting.web import PAGE
from bench.runtime.files import atomic_write


def write(leaderboard: Leaderboard, folder: Path) -> None:
    """Write LEADERBOARD.md, leaderboard.csv, each task's plots, and leaderboard.html with these.

    The tables come first, so that a plot that fails loses none of them.

    Raises:
        UserError: the folder cannot be written.
    """
    _write(folder, texts(leaderboard))
    figures: dict[str, bytes] = {}
    try:
        for table in leaderboard.tables:
            figures |= plots.draw(table)
    finally:
        _write(folder, figures | {PAGE: web.html(leaderboard, figures)})


def render(leaderboard: Leaderboard, folder: Path, warn: Callable[[str], None]) -> None:
    """`write`, but where plots cannot be drawn: `warn` says so in a line, the rest is written.

    Raises:
        UserError: the folder cannot be written.
    """
    with plots.guarded(folder, warn):
        write(leaderboard, folder)


def write_without_plots(leaderboard: Leaderboard, folder: Path) -> None:
    """Write the tables and the page alone, which takes a fraction of a second.

    They have no rank correlations between tasks either.

    Raises:
        UserError: the folder cannot be written.
    """
    plain = replace(leaderboard, scores=())
    files = texts(plain, with_plots=False)
    _write(folder, files | {PAGE: web.html(plain, {})})


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        try:
            atomic_write(path, content)
        except OSError as error:
            hint = "move it away" if path.is_dir() else "see --out"
            raise UserError(f"{path}: cannot be written ({error.strerror}); {hint}") from None


def texts(leaderboard: Leaderboard, with_plots: bool = True) -> dict[str, bytes]:
    """The leaderboard's text files by name; `with_plots`: whether these are beside them."""
    return {
        "LEADERBOARD.md": markdown(leaderboard, PAGE, with_plots).encode(),
        "leaderboard.csv": csv.render(leaderboard.tables).encode(),
    }


def stale(leaderboard: Leaderboard, folder: Path) -> list[str]:
    """The leaderboard's files that are missing or do not say what the records say.

    Plots need only be there, as another matplotlib draws other bytes; the page must contain them.
    """
    names = [plot.file(table) for table in leaderboard.tables for plot in plots.plots(table)]
    present = {n: (folder / n).read_bytes() for n in names if (folder / n).is_file()}
    figures = {name: content for name, content in present.items() if b"<svg" in content}
    files = texts(leaderboard) | {PAGE: web.html(leaderboard, figures)}
    differing = [
        name
        for name, content in files.items()
        if not (folder / name).is_file() or (folder / name).read_bytes() != content
    ]
    images = [f"gap_{t.name}.png" for t in leaderboard.tables if f"gap_{t.name}.svg" in names]
    absent = [name for name in images if not (folder / name).is_file()]
    return differing + [name for name in names if name not in figures] + absent
