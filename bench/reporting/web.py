"""The board as one web page that needs nothing but itself. Imports no matplotlib."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from bench.reporting import details
from bench.reporting.leaderboard import (
    CEILING,
    FLOOR,
    RESAMPLES,
    Board,
    Estimate,
    Row,
    Table,
    effective_rank,
)
from bench.reporting.text import chance
from bench.results.record import Record

ASSETS = Path(__file__).with_name("templates")
# What the colors of plots.py become in the page, which has a light and a dark theme.
THEMED = {
    "#1c1f23": "var(--ink)",
    "#5b626b": "var(--muted)",
    "#d9dbde": "var(--line)",
    "#ffffff": "var(--card)",
    "#0072b2": "var(--blue)",
    "#d55e00": "var(--orange)",
}
MINUS, NOTHING = "\N{MINUS SIGN}", "\N{EN DASH}"
LONG = 8  # entries up to which a list is shown whole


@dataclass(frozen=True)
class Column:
    """One column of a task's table.

    Attributes:
        title: its heading.
        read: what it shows of a row: an `Estimate`, a number, a text, or None.
        form: of a number; an interval's ends share it.
        factor: by which numbers are multiplied first.
        kind: `main`, or `more`, which is shown on demand.
        falling: whether the first click sorts the largest first.
        key: by what it is sorted, where that is not what it shows.
    """

    title: str
    read: Callable[[Row], Any]
    form: str = "{:z.1f}"
    factor: float = 1
    kind: str = "main"
    falling: bool = True
    key: Callable[[Row], Any] | None = None


def _columns(metric: str) -> list[Column]:
    return [
        Column("rank", lambda r: r.places, falling=False, key=lambda r: r.rank),
        Column(metric, lambda r: r.value),
        Column("gap", lambda r: None if r.method == CEILING else r.gap, falling=False),
        Column(f"over {FLOOR}", lambda r: None if r.method == FLOOR else r.over_floor),
        Column("over untrained", lambda r: r.over_untrained),
        Column("closed (%)", _closed, "{:z.0f}", 100),
        Column("above next", lambda r: chance(r.above_next), key=lambda r: r.above_next),
        Column("seeds", lambda r: len(r.scored), "{:d}"),
        Column("inputs seen", details.views_seen, "{:,.0f}"),
        Column("minutes", details.minutes),
        Column("parameters", _mean(lambda x: x.encoder.parameters), "{:,.0f}", kind="more"),
        Column("tried", _mean(lambda x: x.selection["candidates"]), "{:.0f}", kind="more"),
        Column("chosen", _chosen, kind="more", falling=False),
        Column("effective rank", lambda r: r.mean(effective_rank), "{:,.0f}", kind="more"),
        Column("optimism", _mean(lambda x: x.scores.get("optimism")), kind="more"),
    ]


def _closed(row: Row) -> Estimate | None:
    return None if row.method in (CEILING, FLOOR) else row.closed


def _mean(read: Callable[[Any], Any]) -> Callable[[Row], float | None]:
    return lambda row: row.mean(read)


def html(board: Board, words: Mapping[str, str], drawn: Mapping[str, bytes]) -> bytes:
    """leaderboard.html: equal boards, words and plots give equal bytes.

    Args:
        board: the rows.
        words: Markdown of `facts` (what was measured), of `reading` (how to read it), and of the
            name of every task (what its table holds).
        drawn: the plots as SVG by file name.
    """
    script, style = (_asset(name) for name in ("script.js", "style.css"))
    text = MarkdownIt("js-default")  # escapes HTML, refuses links that run code
    page: str = _template().render(
        board=board,
        suite=board.settings,
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        words={name: Markup(text.render(said)) for name, said in words.items()},
        overview=_overview(board) if len(board.tables) > 1 else None,
        tables=[_table(table, drawn, text) for table in board.tables],
        methods=len({row.method for table in board.tables for row in table.rows}),
    )
    return page.encode()


@cache
def _template() -> Any:
    made = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["breakable"] = _breakable
    return made.get_template("template.html")


def _breakable(name: str) -> Markup:
    """A name that may go on in the next line after an underscore."""
    return Markup("_<wbr>").join(name.split("_"))


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _table(table: Table, drawn: Mapping[str, bytes], text: MarkdownIt) -> dict[str, Any]:
    """What the template shows of one task."""
    columns = _columns(table.example.metric)
    shown = [c for c in columns if any(c.read(row) is not None for row in table.rows)]
    top = next((details.classes(row) for row in table.rows if row.method == CEILING), {})
    values = [row.value for row in table.rows if row.value]
    axis = (min(v.low for v in values), max(v.high for v in values)) if values else (0.0, 1.0)
    plots = []
    for plot in details.plots(table):
        file = f"{plot.name}_{table.task}.svg"
        if file in drawn:
            caption = Markup(text.renderInline(plot.caption))
            svg = _inline(drawn[file], f"{plot.name}-{table.task}", f"{plot.title}, {table.task}")
            plots.append({"name": plot.name, "title": plot.title, "caption": caption, "svg": svg})
    return {
        "task": table.task,
        "metric": table.example.metric,
        "lead": _lead(table),
        "columns": shown,
        "axis": axis,
        "marks": [
            (name, _place(row.value.value, axis))
            for row in table.rows
            for name in (CEILING, FLOOR)
            if row.method == name and row.value
        ],
        "rows": [_row(row, table, shown, axis, top) for row in table.rows],
        "plots": plots,
    }


def _row(
    row: Row, table: Table, columns: list[Column], axis: tuple[float, float], top: dict[str, float]
) -> dict[str, Any]:
    """What the template shows of one method in one task."""
    folder = f"{quote(table.task)}/{quote(row.method)}"
    first = (row.scored or row.records)[0]
    return {
        "method": row.method,
        "status": row.status,
        "reference": row.method == CEILING or row.method.startswith(FLOOR),
        "flags": ["failed"] if row.status == "failed" else row.flags,
        "cells": [(column, _cell(column, row)) for column in columns],
        "strip": [_place(v, axis) for v in (row.value.low, row.value.value, row.value.high)]
        if row.value
        else None,
        "differences": _differences(row),
        "classes": [
            (name, value, top.get(name), top[name] - value if name in top else None)
            for name, value in details.classes(row).items()
        ],
        "stages": list(enumerate(details.stages(row))),
        "chosen": details.chosen_stages(row),
        "sees": ", ".join(first.encoder.sees) if first.encoder else None,
        "recipe": _said(first.recipe) if details.views_seen(row) else [],
        "logged": _said(first.pretraining.logged) if first.pretraining else [],
        "selection": _said(first.selection),
        "seeds": [_seed(found, folder) for found in row.records],
        "images": [
            (title, f"{folder}/{quote(file)}")
            for found in row.scored
            for title, file in (
                ("What was learned", found.samples),
                ("Predictions, each left of the truth", found.shown),
            )
            if file
        ],
    }


def _seed(found: Record, folder: str) -> dict[str, Any]:
    return {
        "seed": found.seed,
        "value": found.value,
        "error": found.error,
        "record": f"{folder}/seed{found.seed}.json",
        "predictions": f"{folder}/{quote(found.predictions.file)}" if found.predictions else None,
    }


def _cell(column: Column, row: Row) -> dict[str, Any]:
    """Text, interval, key to sort by and, of an interval, a sentence about it."""
    value = column.read(row)
    key = column.key(row) if column.key else value
    if value is None or isinstance(value, str):
        return {
            "text": value or NOTHING,
            "interval": None,
            "key": "" if key is None else key,
            "tip": None,
        }
    if not isinstance(value, Estimate):
        return {"text": _number(value, column), "interval": None, "key": value, "tip": None}
    middle, low, high = (_number(v, column) for v in (value.value, value.low, value.high))
    tip = f"{row.method}, {column.title}: {middle}, 95 % interval {low} to {high}. "
    tip += f"{len(row.scored)} seed{'s' if len(row.scored) > 1 else ''}, {RESAMPLES:,} resamples."
    return {"text": middle, "interval": f"[{low}, {high}]", "key": value.value, "tip": tip}


def _number(value: float, column: Column) -> str:
    return column.form.format(column.factor * value).replace("-", MINUS)


def _place(value: float, axis: tuple[float, float]) -> str:
    """Where a value lies on an axis, in percent."""
    low, high = axis
    return f"{100 * (value - low) / (high - low or 1):.2f}"


def _chosen(row: Row) -> str | None:
    """What the training list chose: a stage to probe, or a rate to fine-tune with."""
    rates = {r.selection["learning_rate"] for r in row.scored if "learning_rate" in r.selection}
    words = [f"stage {stage}" for stage in sorted(details.chosen_stages(row))]
    return ", ".join([*words, *(f"rate {rate:g}" for rate in sorted(rates))]) or None


def _lead(table: Table) -> str | None:
    """The table in a sentence; None where nothing can be compared with imagenet."""
    others = [row for row in table.rows if row.gap and row.method != CEILING]
    if not others:
        return None
    nearest = min(others, key=lambda row: row.gap.value if row.gap else 0)
    said = f"Nearest to {CEILING} is {nearest.method}, {_words(nearest.gap)} points away"
    floor = next((row for row in others if row.method == FLOOR and row is not nearest), None)
    return said + (f"; {FLOOR} is {_words(floor.gap)} away." if floor else ".")


def _differences(row: Row) -> list[tuple[str, str]]:
    """A row's estimates in words."""
    found = [
        ("value", row.value),
        (f"gap to {CEILING}", None if row.method == CEILING else row.gap),
        (f"over {FLOOR}", None if row.method == FLOOR else row.over_floor),
        (f"over {row.untrained}", row.over_untrained if row.untrained != FLOOR else None),
    ]
    return [(name, _words(estimate)) for name, estimate in found if estimate]


def _words(estimate: Estimate | None) -> str:
    assert estimate
    value, low, high = (f"{v:z.1f}" for v in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]".replace("-", MINUS)


def _overview(board: Board) -> list[tuple[str, list[dict[str, Any]]]]:
    """The gap of every method in every task."""
    gap = Column("gap", lambda r: None if r.method == CEILING else r.gap)
    empty = {"text": "", "interval": None, "key": "", "tip": None}
    methods = dict.fromkeys(row.method for table in board.tables for row in table.rows)
    found = {(row.method, t.task): _cell(gap, row) for t in board.tables for row in t.rows}
    return [(m, [found.get((m, t.task), empty) for t in board.tables]) for m in methods]


def _said(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Settings in words; what is long is counted."""

    def word(value: Any) -> str:
        if isinstance(value, dict):
            return ", ".join(f"{key} {word(v)}" for key, v in value.items())
        if isinstance(value, list):
            return ", ".join(map(word, value)) if len(value) <= LONG else f"{len(value)} values"
        return f"{value:.6g}" if isinstance(value, float) else str(value)

    return [(key.replace("_", " "), word(v)) for key, v in settings.items() if v not in ([], {})]


def _inline(svg: bytes, prefix: str, label: str) -> Markup:
    """An SVG file as a part of the page: names of its own, the page's colors, a label."""
    text = svg.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{re.sub('[^a-z0-9]', '-', prefix)}-", text)
    text = re.sub("#[0-9a-f]{6}", lambda m: THEMED.get(m[0], m[0]), text)
    text = re.sub(r"\n\s*", "\n", text)
    opening = Markup('<svg role="img" aria-label="{}"').format(label)
    return Markup(text.replace("<svg", opening, 1))
