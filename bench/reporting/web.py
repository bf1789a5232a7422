"""leaderboard.html: one web page that needs nothing but itself. Imports no matplotlib."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from bench.encoders.pretraining import LossCurve
from bench.reporting import columns, csv, latex, markdown, text
from bench.reporting.columns import Column
from bench.reporting.format import MISSING, estimate, points, probability, typographic
from bench.reporting.leaderboard import Leaderboard
from bench.reporting.plots import Plot, plots
from bench.reporting.rows import BASELINE, REFERENCE, Cell, Row, Table, overview, views_seen
from bench.results.record import Record
from bench.statistics.cache import RESAMPLES
from bench.statistics.intervals import Estimate

PAGE = "leaderboard.html"
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
LONG = 8  # entries up to which a list is shown whole
CURVE_SIZE = (400, 160)  # units of a loss curve's coordinates, which are integers


def html(leaderboard: Leaderboard, figures: Mapping[str, bytes]) -> bytes:
    """leaderboard.html: equal leaderboards and plots give equal bytes.

    Args:
        leaderboard: the leaderboard.
        figures: the plots as SVG by file name.
    """
    script, style = _asset("theme.js") + _asset("script.js"), _asset("style.css")
    titles = text.titles(leaderboard)
    page: str = _template().render(
        leaderboard=leaderboard,
        summary=text.summary(leaderboard),
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        key=_rendered(text.key(leaderboard)),
        problems=_rendered(["\n".join(text.problems(leaderboard))]),
        setup=_rendered([markdown.setup(leaderboard)]),
        reading=_rendered([markdown.reading(leaderboard)]),
        overview=_overview(leaderboard),
        agreement=_rendered([markdown.agreement(leaderboard)]),
        backbones=_rendered([markdown.backbones(leaderboard)]),
        curves=_loss_curves(leaderboard),
        curve_size=CURVE_SIZE,
        tables=[_table(leaderboard, table, figures) for table in leaderboard.tables],
        titles=titles,
        methods=list(dict.fromkeys(row.method for t in leaderboard.tables for row in t.rows)),
        data={table.name: _data(table) for table in leaderboard.tables},
        anchor=markdown.ANCHOR,
        reference=REFERENCE,
    )
    return page.encode()


@cache
def _markdown() -> MarkdownIt:
    return MarkdownIt("js-default")  # escapes HTML, refuses links that run code


def _rendered(paragraphs: Sequence[str]) -> Markup:
    return Markup(_markdown().render("\n\n".join(paragraphs)))


@cache
def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    environment.filters["points"] = _points
    environment.filters["kind"] = _kind
    return environment.get_template("leaderboard.html")


def _breakable(name: str) -> Markup:
    """A name that may go on in the next line after an underscore."""
    return Markup("_<wbr>").join(name.split("_"))


def _kind(column: Column) -> str:
    """Classes of a column's cells."""
    classes = {"method": "name", "value": "n main score", "warnings": "warnings"}
    return classes.get(column.key, "n more" if _is_more(column) else "n main")


def _points(value: float | None) -> str:
    return typographic("-" if value is None else points(value))


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _table(leaderboard: Leaderboard, table: Table, figures: Mapping[str, bytes]) -> dict[str, Any]:
    """What the template shows of one task."""
    shown = sorted(columns.present(columns.shown("web"), table), key=_is_more)
    first, others = markdown.answer(plots(table))
    values = [row.value for row in table.rows if row.value]
    lows = [v.value if v.low is None else v.low for v in values]
    highs = [v.value if v.high is None else v.high for v in values]
    axis = (min(lows), max(highs)) if values else (0.0, 1.0)
    marks = {REFERENCE: table.row(table.reference), BASELINE: table.row(table.baseline)}
    return {
        "task": table.name,
        "metric": table.metric,
        "lead": typographic(text.lead(table).replace("`", "")),
        "shared": _rendered(text.shared_warnings(table)),
        "caveats": _rendered(text.caveats(leaderboard, table)),
        "protocol": _rendered(text.protocol(table)),
        "columns": [(column, column.title(table)) for column in shown],
        "axis": axis,
        "marks": [
            (name, _percent(row.value.value, axis))
            for name, row in marks.items()
            if row and row.value
        ],
        "rows": [
            {"place": place, **_row(row, table, shown, axis)}
            for place, row in enumerate(table.rows)
        ],
        "answer": _plots(first, table, figures),
        "plots": _plots(others, table, figures),
    }


def _is_more(column: Column) -> bool:
    """Whether a column is shown on demand; the warnings come before these."""
    return column.section != "main"


def _data(table: Table) -> dict[str, Any]:
    """What the script compares and copies: rows, every pair of them, the table in other forms."""
    rows = [row for row in table.rows if row.value]
    return {
        "rows": [(row.method, typographic(estimate(row.value))) for row in rows if row.value],
        "pairs": [[_pair(table, row, other) for other in rows] for row in rows],
        "csv": csv.render([table]),
        "latex": latex.render([table], table.name),
    }


def _pair(table: Table, row: Row, other: Row) -> tuple[str, str]:
    """One row less another with its interval, and the probability that it is better."""
    pair = table.pairs.get((row.method, other.method))
    if pair is None:
        return "", ""
    better = MISSING if pair.p_better is None else probability(pair.p_better)
    return typographic(estimate(pair.difference)), typographic(better)


def _plots(
    drawn: Sequence[Plot], table: Table, figures: Mapping[str, bytes]
) -> list[dict[str, Any]]:
    shown = []
    for plot in drawn:
        content = figures.get(plot.file(table))
        if content is not None:
            label = f"{plot.title}, {table.name}"
            caption = Markup(_markdown().renderInline(plot.caption))
            svg = _inline(content, f"{plot.name}-{table.name}", label)
            shown.append({"name": plot.name, "title": plot.title, "caption": caption, "svg": svg})
    return shown


def _row(
    row: Row, table: Table, shown: Sequence[Column], axis: tuple[float, float]
) -> dict[str, Any]:
    """What the template shows of one method in one task."""
    folder = f"{quote(table.task)}/{quote(row.method)}"
    first = (row.scored or row.records)[0]
    reference = table.row(table.reference)
    scores = reference.per_class if reference else {}
    files = [
        (title, text.legend(kind, row.method if kind == "methods" else table.task), read(record))
        for record in row.scored
        for title, kind, read in markdown.LINKS
    ]
    return {
        "method": row.method,
        "not_trained": row.role != "pretrained",
        "warnings": table.own_warnings(row),
        "every_warning": ["failed"] if row.status == "failed" else row.warnings,
        "cells": [(column, _cell(column, table, row)) for column in shown],
        "strip": _strip(row.value, axis),
        "differences": _differences(row, table),
        "runs": text.runs_known(row),
        "settle": [typographic(sentence) for sentence in text.needed(row, table)],
        "classes": [
            (name, value, scores.get(name), scores[name] - value if name in scores else None)
            for name, value in row.per_class.items()
        ],
        "stages": list(enumerate(row.stages)),
        "selected": row.selected_stages,
        "inputs": ", ".join(row.inputs or []),
        "recipe": _settings(first.recipe) if views_seen(row) else [],
        "weights": _settings(first.weights),
        "logged": _settings(first.pretraining.logged),
        "hyperparameters": _settings(first.hyperparameters.model_dump(exclude={"tried"})),
        "seeds": [_seed(record, folder) for record in row.records],
        "images": [(title, say, f"{folder}/{quote(file)}") for title, say, file in files if file],
    }


def _seed(record: Record, folder: str) -> dict[str, Any]:
    predictions = record.predictions
    return {
        "seed": record.seed,
        "value": record.value,
        "error": record.error,
        "record": f"{folder}/seed{record.seed}.json",
        "predictions": f"{folder}/{quote(predictions.file)}" if predictions else None,
    }


def _cell(column: Column, table: Table, row: Row) -> dict[str, Any]:
    """Text, interval, key to sort by and, of an interval, a sentence about it."""
    shown = column.text(table, row)
    if column.kind != "text" or column.key == "rank_range":
        shown = typographic(shown)
    value, _, interval = shown.partition(" [")
    key = column.order(table, row)
    if isinstance(key, float):
        key = f"{key:.9g}"  # processors differ in the last digits of a mean
    cell = {"text": shown, "interval": None, "key": key, "tip": None}
    if column.kind != "estimate" or not interval:
        return cell
    seeds = f"{len(row.scored)} seed{'s' if len(row.scored) > 1 else ''}"
    tip = f"{row.method}, {column.title(table).partition(' (')[0]}: {value}, "
    tip += f"{_interval(column.value(table, row), column)}. {seeds}, {RESAMPLES:,} resamples."
    return cell | {"text": value, "interval": f"[{interval}", "tip": tip}


def _interval(estimated: Any, column: Column) -> str:
    """What the interval of an estimate is over, and that of the test images alone."""
    _, low, high = _ends(column.format(estimated))
    if estimated.images is None:
        return f"95% CI over test images only {low} to {high}"
    inner = replace(estimated, interval=estimated.images)
    _, *images = _ends(column.format(inner))
    both = f"95% CI over test images and training runs {low} to {high}"
    return f"{both}, over test images only {images[0]} to {images[1]}"


def _ends(shown: str) -> list[str]:
    """The value of `41.3 [38.3, 44.3]` and both ends of its interval."""
    value, _, interval = typographic(shown).partition(" [")
    return [value, *interval.removesuffix("]").split(", ")]


def _percent(value: float, axis: tuple[float, float]) -> str:
    """A value as a share of an axis, in percent."""
    low, high = axis
    return f"{100 * (value - low) / (high - low or 1):.2f}"


def _strip(value: Estimate | None, axis: tuple[float, float]) -> dict[str, Any] | None:
    """Where a score and its intervals are on an axis: each from the left, and from the right."""
    if value is None or value.interval is None:
        return None
    intervals = {"all": value.interval, "images": value.images or value.interval}
    ends = {name: [_percent(end, axis) for end in each] for name, each in intervals.items()}
    return {"value": _percent(value.value, axis), **ends}


def _differences(row: Row, table: Table) -> list[tuple[str, str]]:
    """A row's score and differences as text."""
    matched = row.matched_baseline if row.matched_baseline != table.baseline else None
    listed = [
        ("score", row.value),
        (f"gap to {REFERENCE}", None if row.method == table.reference else row.gap),
        (f"gain over {BASELINE}", None if row.method == table.baseline else row.gain),
        (f"gain over {matched}", row.matched_gain if matched else None),
    ]
    return [(name, typographic(estimate(value))) for name, value in listed if value]


def _overview(leaderboard: Leaderboard) -> list[tuple[str, list[dict[str, Any]]]]:
    """The gap of every method that ran in two tasks or more."""
    _, rows = overview(leaderboard.tables)
    return [(method, [_gap(cell) for cell in cells]) for method, cells in rows.items()]


def _gap(cell: Cell | None) -> dict[str, Any]:
    if cell is None:
        return {"text": "", "interval": None, "key": "", "tip": None}
    return _cell(columns.named("gap"), *cell)


def _loss_curves(leaderboard: Leaderboard) -> list[dict[str, Any]]:
    """What the template shows of every loss of every method that was trained here.

    An encoder is the same in every task, so its losses are shown once.
    """
    curves: dict[str, dict[int, LossCurve]] = {}
    for table in leaderboard.tables:
        for row in table.rows:
            for record in row.scored:
                curve = record.pretraining.loss_curve
                if curve:
                    curves.setdefault(row.method, {}).setdefault(record.seed, curve)
    panels = []
    for method, seeds in curves.items():
        for name in dict.fromkeys(name for curve in seeds.values() for name in curve.losses):
            lines = [_loss_line(curve, name) for curve in seeds.values()]
            panels += _loss_panel(method, name, [line for line in lines if line])
    return panels


def _loss_line(curve: LossCurve, name: str) -> list[tuple[int, float]]:
    """The points (steps, loss) of one loss, those that are finite."""
    points = zip(curve.steps, curve.losses.get(name, []), strict=False)
    return [(steps, loss) for steps, loss in points if math.isfinite(loss)]


def _loss_panel(
    method: str, name: str, lines: Sequence[Sequence[tuple[int, float]]]
) -> list[dict[str, Any]]:
    """One loss of one method, a line for each seed, on a scale of its own; none without points."""
    if not lines:
        return []
    losses = [loss for line in lines for _, loss in line]
    low, high = min(losses), max(losses)
    steps = max(line[-1][0] for line in lines)
    ends = [float(np.mean([line[end][1] for line in lines])) for end in (0, -1)]
    first, last = map(_loss, ends)
    seeds = f", mean of {len(lines)} seeds" if len(lines) > 1 else ""
    label = name.removeprefix("loss_")
    return [
        {
            "method": method,
            "loss": label,
            "tip": f"{method}, {label}: from {first} to {last} in {steps:,} steps{seeds}.",
            "low": _loss(low),
            "high": _loss(high),
            "steps": f"{steps:,} steps",
            "lines": [_polyline(line, steps, low, high) for line in lines],
        }
    ]


def _loss(value: float) -> str:
    """A loss to three digits."""
    return typographic(f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}")


def _polyline(line: Sequence[tuple[int, float]], steps: int, low: float, high: float) -> str:
    """The points of a line as SVG has them, of integers to keep the page small."""
    across = CURVE_SIZE[0] / steps
    down = CURVE_SIZE[1] / (high - low or 1)
    return " ".join(f"{step * across:.0f},{(high - loss) * down:.0f}" for step, loss in line)


def _settings(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Settings as text; what is long is counted."""
    pairs = [(key.replace("_", " "), _setting(value)) for key, value in settings.items()]
    return [(key, value) for key, value in pairs if value]


def _setting(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {text}" for key, text in _settings(value))
    if isinstance(value, list | tuple):
        return ", ".join(map(_setting, value)) if len(value) <= LONG else f"{len(value)} values"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _inline(svg: bytes, prefix: str, label: str) -> Markup:
    """An SVG file as a part of the page: names of its own, the page's colors, a label."""
    drawing = svg.decode()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>\s*", "", drawing, flags=re.DOTALL)
    names = re.sub("[^a-z0-9]", "-", prefix)
    drawing = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{names}-", drawing)
    drawing = re.sub("#[0-9a-f]{6}", lambda m: THEMED.get(m[0], m[0]), drawing)
    drawing = re.sub(r"\n\s*", "\n", drawing)
    opening = Markup('<svg role="img" aria-label="{}"').format(label)
    return Markup(drawing.replace("<svg", opening, 1))
