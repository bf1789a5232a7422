"""LEADERBOARD.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bench.plugins import Kind
from bench.reporting import columns, text
from bench.reporting.columns import Column
from bench.reporting.format import MISSING, coefficient, points
from bench.reporting.leaderboard import Leaderboard
from bench.reporting.plots import Plot, plots
from bench.reporting.rows import REFERENCE, Cell, Row, Table, of_several_backbones, overview
from bench.results.record import Record

NO_TITLES: Mapping[str, str] = {}
ANCHOR = "how-to-read-the-tables"
NO_REFERENCE = "no ImageNet weights"
BACKBONES = (
    "Every backbone has tables of its own, and its gap is to ImageNet labels on that backbone. The"
    " rows are listed by backbone. They are not ranked together, since a larger network may score"
    " higher whatever it was pretrained on."
)
LINKS: tuple[tuple[str, Kind, Callable[[Record], str | None]], ...] = (
    ("Generated images", "methods", lambda record: record.samples),
    ("Predictions beside ground truth", "tasks", lambda record: record.predictions_image),
)  # title, whose `visualize` draws it, name of the file


def markdown(leaderboard: Leaderboard, page: str, with_plots: bool = True) -> str:
    """The whole text.

    Args:
        leaderboard: the leaderboard.
        page: name of the web page beside it.
        with_plots: whether the plots are beside it.
    """
    link = f"[{page}]({page}) has the same tables, to sort, filter and compare."
    titles = text.titles(leaderboard)
    parts = [
        f"# How far from ImageNet labels? Suite `{leaderboard.suite}`",
        f"{text.summary(leaderboard)} {link} [How to read the tables](#{ANCHOR}).",
        "\n".join(text.problems(leaderboard)),
        *(_section(leaderboard, table, titles, with_plots) for table in leaderboard.tables),
        agreement(leaderboard),
        backbones(leaderboard),
        _overview(leaderboard),
        "\n\n".join(["## How to read the tables", *text.key(leaderboard)]),
        setup(leaderboard),
        reading(leaderboard),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def setup(leaderboard: Leaderboard) -> str:
    """Table of the settings that all rows share."""
    rows = [[_escaped(name), value] for name, value in text.setup(leaderboard)]
    return "\n".join(["## What all rows share", "", *_grid(("", ""), rows, (True, True))])


def reading(leaderboard: Leaderboard) -> str:
    """Glossary, methods and provenance."""
    parts = {
        "Glossary": text.glossary(leaderboard.tables),
        "Methods": text.methods(leaderboard),
        "Provenance": text.provenance(leaderboard),
    }
    return "\n\n".join("\n".join([f"## {title}", "", *lines]) for title, lines in parts.items())


def _section(
    leaderboard: Leaderboard, table: Table, titles: Mapping[str, str], with_plots: bool
) -> str:
    first, others = answer(plots(table) if with_plots else [])
    parts = [
        f"## {table.name}",
        *(_image(plot, table) for plot in first),
        text.lead(table),
        *text.shared_warnings(table),
        _table(table, columns.present(columns.shown("markdown", "main"), table), titles),
        *(plot.caption for plot in first),
        *text.caveats(leaderboard, table),
    ]
    more = columns.present(columns.shown("markdown", "more"), table)
    parts += ["### More columns", _table(table, [columns.named("method"), *more])] if more else []
    obtained = columns.present(columns.shown("markdown", "obtained"), table)
    parts += ["### How each row was obtained", *text.protocol(table)]
    parts += [_table(table, [columns.named("method"), *obtained])] if obtained else []
    for plot in others:
        parts += [_image(plot, table), plot.caption]
    return "\n\n".join([*parts, *_stages(table), *_links(table)])


def answer(drawn: Sequence[Plot]) -> tuple[list[Plot], list[Plot]]:
    """The plot that opens a section, of gaps, where there is one, and the others."""
    first = [plot for plot in drawn if plot.name == "gap"]
    return first, [plot for plot in drawn if plot not in first]


def _image(plot: Plot, table: Table) -> str:
    return f"![{plot.title}]({plot.file(table)})"


def _table(table: Table, shown: Sequence[Column], titles: Mapping[str, str] = NO_TITLES) -> str:
    rows = [[_cell(column, table, row, titles) for column in shown] for row in table.rows]
    left = [column.kind == "text" for column in shown]
    return "\n".join(_grid([column.title(table) for column in shown], rows, left))


def _cell(column: Column, table: Table, row: Row, titles: Mapping[str, str] = NO_TITLES) -> str:
    cell = column.text(table, row)
    if column.key == "method" and row.method in titles:
        return f"{_escaped(titles[row.method])} `{row.method}`"
    return "" if column.key == "warnings" and cell == MISSING else _escaped(cell)


def _stages(table: Table) -> list[str]:
    """The metric of every stage, the selected one in bold."""
    rows = [row for row in table.rows if row.stages]
    if not rows:
        return []
    count = max(len(row.stages) for row in rows)
    title = f"{table.metric} of every stage, fine to coarse; bold: the selected stage"
    title += ", mean over seeds:" if any(len(row.scored) > 1 for row in rows) else ":"
    lines = [[_escaped(row.method), *_curve(row, count)] for row in rows]
    headings = ["Method", *(f"Stage {stage}" for stage in range(count))]
    return [title, "\n".join(_grid(headings, lines, [True, *(False for _ in range(count))]))]


def _curve(row: Row, count: int) -> list[str]:
    texts = [points(value) for value in row.stages]
    bold = [f"**{t}**" if s in row.selected_stages else t for s, t in enumerate(texts)]
    return [*bold, *(MISSING for _ in range(count - len(bold)))]


def _links(table: Table) -> list[str]:
    """Links to images of what was generated and predicted, where there are any."""
    lines = [
        f"- {title}, [{row.method}]({table.task}/{row.method}/{file})"
        f".{f' {caption}' if caption else ''}"
        for title, kind, read in LINKS
        for row in table.rows
        for caption in [text.legend(kind, row.method if kind == "methods" else table.task)]
        for file in map(read, row.scored)
        if file
    ]
    return ["\n".join(lines)] if lines else []


def _overview(leaderboard: Leaderboard) -> str:
    """The gap of every method that ran in two tasks or more."""
    tasks, rows = overview(leaderboard.tables)
    if not rows:
        return ""
    metrics = {table.name: table.metric for table in leaderboard.tables}
    lines = [[_escaped(method), *map(_gap, cells)] for method, cells in rows.items()]
    headings = ["Method", *(f"{task} ({metrics[task]})" for task in tasks)]
    text_ = "Methods that ran in two tasks or more. Read down, not across: each column has its own"
    text_ += " metric and protocol. An empty cell was not run."
    grid = "\n".join(_grid(headings, lines, [True, *(False for _ in tasks)]))
    return "\n\n".join([f"## Overview: gap to {REFERENCE} (95% CI)", text_, grid])


def agreement(leaderboard: Leaderboard) -> str:
    """Rank correlations between tasks; empty where no two have enough methods in common."""
    texts = {k: coefficient(c.estimate) for k, c in leaderboard.correlations.items() if c.estimate}
    if not texts:
        return ""
    tasks = [t.task for t in leaderboard.tables if any(t.task in pair for pair in texts)]
    rows = [
        [_escaped(task), *(texts.get((task, other), "") for other in tasks[1:])]
        for task in tasks[:-1]
    ]
    grid = "\n".join(_grid(("", *tasks[1:]), rows, [True, *(False for _ in tasks[1:])]))
    return "\n\n".join(["## Do tasks agree?", grid, *text.agreement(leaderboard)])


def backbones(leaderboard: Leaderboard) -> str:
    """Rows of all backbones side by side, in no order of merit; empty if there is one backbone."""
    parts = []
    own = leaderboard.settings.backbone.name
    for task, tables in of_several_backbones(leaderboard.tables).items():
        headings = ("Backbone", "Parameters", "Method", columns.named("value").title(tables[0]))
        gap = columns.named("gap")
        rows = [
            [
                _escaped(table.backbone or own),
                f"{row.parameters / 1e6:.1f} M" if row.parameters else MISSING,
                _escaped(row.method),
                _cell(columns.named("value"), table, row),
                _cell(gap, table, row) if table.reference else NO_REFERENCE,
            ]
            for table in tables
            for row in table.rows
        ]
        titles = [*headings, gap.title(tables[0])]
        grid = _grid(titles, rows, (True, False, True, False, False))
        parts += [f"### {task} on every backbone", "\n".join(grid)]
    return "\n\n".join(["## Backbones", BACKBONES, *parts]) if parts else ""


def _gap(cell: Cell | None) -> str:
    return columns.named("gap").text(*cell) if cell else ""


def _escaped(cell: str) -> str:
    """Text that cannot end a cell or open a tag."""
    return " ".join(cell.split()).replace("|", "\\|").replace("<", "&lt;")


def _grid(
    headings: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[bool]
) -> list[str]:
    """A Markdown table; `left`: which columns are aligned left, the others right."""
    ruler = ["---" if side else "---:" for side in left]
    return [f"| {' | '.join(line)} |" for line in (headings, ruler, *rows)]
