"""The board as files: Markdown that explains itself, CSV, page, plots; and the terminal's table."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from csv import DictWriter
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table as Grid

from bench import details, page, record
from bench.board import CEILING, FLOOR, RESAMPLES, Board, Estimate, Row, Table, frame
from bench.errors import UserError
from bench.record import Record

PAGE = "leaderboard.html"
HEADERS = (
    "method",
    "{metric} [95 %]",
    f"gap to {CEILING} [95 %]",
    f"over {FLOOR} [95 %]",
    "over untrained [95 %]",
    "closed",
    "seeds",
    "images seen",
    "candidates",
    "chosen",
    "optimism",
    "flags",
)


def write(board: Board, folder: Path) -> None:
    """Write LEADERBOARD.md, leaderboard.csv, each task's plots, and leaderboard.html with these.

    Raises:
        UserError: the folder cannot be written.
    """
    from bench import plots  # matplotlib takes longer to import than a board to check

    drawn = {name: file for table in board.tables for name, file in plots.draw(table).items()}
    files = texts(board) | drawn | {PAGE: page.html(board, _words(board), drawn)}
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
    """The board's files that are missing or do not say what the records say.

    Plots need only be there, as another matplotlib draws other bytes; the page must hold them.
    """
    names = [f"{plot.name}_{t.task}.svg" for t in board.tables for plot in details.plots(t)]
    drawn = {n: (folder / n).read_bytes() for n in names if (folder / n).is_file()}
    files = texts(board) | {PAGE: page.html(board, _words(board), drawn)}
    differing = [
        name
        for name, content in files.items()
        if not (folder / name).is_file() or (folder / name).read_bytes() != content
    ]
    return differing + [name for name in names if name not in drawn]


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
    shown = (0, 1, 2, 3, 5, 6, len(HEADERS) - 1)
    for column in shown:
        title = HEADERS[column].format(metric=table.example.metric)
        grid.add_column(title, justify="left" if column in (0, shown[-1]) else "right")
    for row in table.rows:
        cells = _cells(row)
        grid.add_row(*(cells[column] for column in shown))
    return grid


def markdown(board: Board) -> str:
    """LEADERBOARD.md: what was measured, on what, and how sure it is."""
    overview = [_overview(board)] if len(board.tables) > 1 else []
    sections = [_section(board, table) for table in board.tables]
    parts = [_title(board), _facts(board), *overview, *sections, READING]
    return "\n\n".join(parts) + "\n"


def _words(board: Board) -> Mapping[str, str]:
    """The parts of LEADERBOARD.md that the page shows too."""
    intros = {table.task: "\n".join(_intro(table)) for table in board.tables}
    return {"facts": _facts(board), "reading": READING, **intros}


def _title(board: Board) -> str:
    summary = board.settings["summary"]
    title = f"# How far from ImageNet labels? Suite `{board.suite}`"
    page_link = f"[{PAGE}]({PAGE}), beside this file, is the same to sort, filter and look into."
    return f"{title}\n\n{summary[0].upper()}{summary[1:]}. {page_link}"


def _facts(board: Board) -> str:
    suite = board.settings
    lines = [
        "| | |",
        "| --- | --- |",
        f"| backbone, the same in every row | `{suite['backbone']['name']}` |",
        f"| pretraining pictures | `{suite['corpus']['folder']}` |",
        f"| pretraining recipe | {_recipe(suite['pretraining'], {})} |",
    ]
    for method, recipe in sorted(_own_recipes(board).items()):
        lines.append(f"| but `{method}` | {_recipe(recipe, suite['pretraining'])} |")
    return "\n".join(
        [
            *lines,
            f"| trained and tested on | `{suite['voc']['folder']}`, `{suite['voc']['train']}` -> "
            f"`{suite['voc']['test']}`, {suite['voc']['size']} px |",
            f"| settings (SHA-256) | `{board.sha256[:16]}` |",
        ]
    )


def _own_recipes(board: Board) -> dict[str, dict[str, Any]]:
    """The recipes of the methods on the board that differ from the suite's."""
    rows = [row for table in board.tables for row in table.rows]
    recipes = {row.method: row.records[0].recipe for row in rows}
    return {m: r for m, r in recipes.items() if r != board.settings["pretraining"]}


def _recipe(recipe: dict[str, Any], base: dict[str, Any]) -> str:
    """What a recipe says, or in what it differs from `base`, in words."""
    said = {key: value for key, value in recipe.items() if base.get(key, ...) != value}
    words: dict[str, Any] = {
        "images": lambda v: f"{v:,} pictures through the encoder",
        "batch": lambda v: f"batch {v}",
        "crop": lambda v: f"crops of {v} px",
        "crop_scale": lambda v: f"of {v[0]:g} to {v[1]:g} of the area",
        "optimiser": str,
        "learning_rate": lambda v: f"rate {v:g}",
        "betas": lambda v: f"betas {v[0]:g} and {v[1]:g}",
        "weight_decay": lambda v: f"weight decay {v:g}",
        "schedule": lambda v: f"{v} schedule",
        "warmup": lambda v: f"warm-up {v:.0%}",
    }
    return ", ".join(words[key](said[key]) for key in words if key in said)


def _overview(board: Board) -> str:
    """Methods by tasks, the gap in each cell; the order is that of the first table."""
    gaps = {(row.method, t.task): row.gap for t in board.tables for row in t.rows}
    order = list(dict.fromkeys(row.method for t in board.tables for row in t.rows))
    tasks = [f"{t.task} ({t.example.metric})" for t in board.tables]
    lines = [f"## Overview: gap to {CEILING} [95 %]", ""]
    lines += [f"| method | {' | '.join(tasks)} |", f"| --- |{' ---: |' * len(tasks)}"]
    for method in order:
        cells = ["-" if method == CEILING else _estimate(gaps.get((method, t.task)))
                 for t in board.tables]  # fmt: skip
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _section(board: Board, table: Table) -> str:
    example = table.example
    lines = [f"## {table.task}", "", *_intro(table)]
    lines += ["", *_grid([h.format(metric=example.metric) for h in HEADERS], table.rows, _cells)]
    errors = [
        f"- `{row.method}`, seed {found.seed}: {found.error}"
        for row in table.rows
        for found in row.records
        if found.error
    ]
    if errors:
        lines += ["", "Failed cells:", "", *errors]
    for plot in details.plots(table):
        lines += ["", f"![{plot.title}]({plot.name}_{table.task}.svg)", "", plot.caption]
    curves = [row for row in table.rows if row.scored and "stage_mAP" in row.scored[0].scores]
    if curves:
        stages = len(curves[0].scored[0].scores["stage_mAP"])
        lines += ["", f"{example.metric} of every stage, fine to coarse; bold is the stage that"]
        lines[-1] += " the training list chose (first seed):"
        headers = ["method", *(f"stage {s}" for s in range(stages))]
        lines += ["", *_grid(headers, curves, _curve)]
    for title, kind in (
        ("What was learnt, to look at", "samples"),
        ("Predictions beside the truth", "shown"),
    ):
        links = [
            f"[{row.method}]({table.task}/{row.method}/{getattr(found, kind)})"
            for row in table.rows
            for found in row.scored
            if getattr(found, kind)
        ]
        if links:
            lines += ["", f"{title}: {', '.join(links)}."]
    return "\n".join(lines)


def _intro(table: Table) -> list[str]:
    """What a table holds."""
    example = table.example
    said = f"Version {example.task_version} of the task. {example.metric} in points, 0-100."
    if example.tuning:
        said += f" Fine-tuned {_tuning(example.tuning)}."
    excluded = example.scores.get("excluded_classes")
    if not excluded:
        return [said]
    names = ", ".join(excluded)
    return [said, "", f"Left out of the mean, with too few pictures in a list: {names}."]


def _tuning(said: dict[str, Any]) -> str:
    """How every row was fine-tuned, in words."""
    rates = " or ".join(f"{rate:g}" for rate in said["learning_rates"])
    words = [
        f"on {said['images']:,} pictures of {said['size']} px in batches of {said['batch']}",
        f"by {said['optimiser']}, {said['schedule']} schedule, rate {rates}: whichever does better",
        f"on {said['held_out']:.0%} of the training list after {said['trial']:.0%} of the budget",
    ]
    kind = said.get("protocol") or said.get("head")
    frozen = ["the encoder frozen"] if said["frozen"] else []
    return ", ".join([*([kind] if kind else []), *frozen, *words[:2]]) + " " + words[2]


def _grid(headers: Sequence[str], rows: Sequence[Row], cells: Any) -> list[str]:
    ruler = ["---", *("---:" for _ in headers[1:])]
    body = [cells(row) for row in rows]
    return [f"| {' | '.join(line)} |" for line in (headers, ruler, *body)]


def _cells(row: Row) -> list[str]:
    chosen = sorted({_chosen(found) for found in row.scored})
    images = row.mean(lambda r: r.pretraining.images_seen)
    candidates = row.mean(lambda r: r.selection["candidates"])
    optimism = row.mean(lambda r: r.scores.get("optimism"))
    return [
        row.method,
        _estimate(row.value),
        "-" if row.method == CEILING else _estimate(row.gap),
        "-" if row.method == FLOOR else _estimate(row.over_floor),
        _estimate(row.over_untrained),
        "-" if row.closed is None else f"{100 * row.closed:.0f} %",
        str(len(row.scored)),
        "-" if images is None else f"{images:,.0f}",
        "-" if candidates is None else f"{candidates:.0f}",
        ", ".join(chosen) or "-",
        "-" if optimism is None else f"{optimism:+.1f}",
        "FAILED" if row.status == "failed" else "; ".join(row.flags),
    ]


def _chosen(found: Record) -> str:
    """What the training list chose: a stage to probe, or a rate to fine-tune with."""
    rate = found.selection.get("learning_rate")
    return f"stage {found.selection['stage']}" if rate is None else f"rate {rate:g}"


def _curve(row: Row) -> list[str]:
    found = row.scored[0]
    chosen = found.selection["stage"]
    values = [f"{value:.1f}" for value in found.scores["stage_mAP"]]
    return [row.method, *(f"**{v}**" if s == chosen else v for s, v in enumerate(values))]


def _estimate(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    return f"{estimate.value:.1f} [{estimate.low:.1f}, {estimate.high:.1f}]"


READING = f"""## How to read this

- **gap**: the value of `{CEILING}` minus the method's, on the same test pictures. Smaller is
  better; below 0 beats ImageNet labels.
- **over {FLOOR}**: the method's value minus that of `{FLOOR}`, the untrained backbone.
- **over untrained**: the method's value minus that of the untrained encoder that sees of a picture
  what this one sees: L only (`{FLOOR}_l`), L and ab by halves (`{FLOOR}_lab`), the two
  sides of the diagonal (`{FLOOR}_halves`), or all of it (`{FLOOR}`). Above 0: training helped.
  Untrained encoders differ among themselves too.
- **closed**: (method - `{FLOOR}`) / (`{CEILING}` - `{FLOOR}`), the share of the way from no
  training to ImageNet labels.
- **[95 %]**: percentile interval over {RESAMPLES:,} bootstrap resamples of the test pictures,
  centred on the value. Differences are paired: both rows on the same resamples. With one seed it
  says nothing of how another pretraining run would differ.
- **seeds**: independent runs the value is the mean of.
- **images seen**: pictures that went through the encoder in pretraining, every view counted;
  `{CEILING}` comes pretrained elsewhere and shows 0.
- **candidates**: settings tried, the same for every row. **chosen**: what they settled on, a stage
  of the backbone by cross-validation on the training list, or a learning rate by a held-out part
  of it. The test list chose nothing.
- **optimism**: what choosing stage and cost on the test list would have added, in points. It is
  not in the value.
- **flags**: a row `below` an untrained one, or `not distinguishable from` it (its interval over it
  holds 0), has shown no benefit here. `generated pictures collapsed`: an adversary's generator made
  nearly the same picture every time.

Each row's records lie beside this file, TASK/METHOD/seedK.json, with per-image predictions in
seedK.npz."""
