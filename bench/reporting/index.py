"""index.html: the leaderboards of several suites on one page that needs nothing but itself.

It has the style and the themes of leaderboard.html, and leads there. Imports no matplotlib.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bench.errors import UserError
from bench.reporting import plots, text, web
from bench.reporting.format import count, estimate, points, typographic
from bench.reporting.leaderboard import Leaderboard
from bench.reporting.rows import REFERENCE, Row, Table
from bench.runtime.files import atomic_write
from bench.statistics.intervals import Estimate

PAGE = "index.html"
MOST_ROWS = 15  # of a figure: with the heading above it, the first one fits 800 pixels


def write(leaderboards: Sequence[Leaderboard], out: Path) -> Path:
    """Write the page into the folder above those of the suites.

    Raises:
        UserError: the folder cannot be written.
    """
    path = out / PAGE
    try:
        atomic_write(path, html(leaderboards))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); see --out") from None
    return path


def stale(leaderboards: Sequence[Leaderboard], out: Path) -> bool:
    """Whether the page does not say what the records say; one suite needs none, as after a run."""
    path = out / PAGE
    if not path.is_file():
        return len(leaderboards) > 1
    return path.read_bytes() != html(leaderboards)


def html(leaderboards: Sequence[Leaderboard]) -> bytes:
    """The page: equal leaderboards give equal bytes. Suites of real images come first."""
    script, style = ((web.ASSETS / n).read_text("utf-8") for n in ("theme.js", "style.css"))
    tasks = Counter(name for board in leaderboards for name in {t.task for t in board.tables})
    ordered = sorted(leaderboards, key=lambda each: (bool(each.settings.synthetic), each.suite))
    page: str = _template().render(
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        methods=len({row.method for each in ordered for t in each.tables for row in t.rows}),
        tasks=len(tasks),
        suites=[_suite(each, tasks) for each in ordered],
        page=web.PAGE,
        reference=REFERENCE,
    )
    return page.encode()


@cache
def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(web.ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(PAGE)


def _suite(leaderboard: Leaderboard, tasks: Counter[str]) -> dict[str, Any]:
    """What the template shows of one suite; its figure is of the task that most suites share."""
    gaps = [table for table in leaderboard.tables if _compared(table)]
    shown = max(gaps, key=lambda t: (not t.backbone, tasks[t.task], len(t.rows)), default=None)
    records = [r for table in leaderboard.tables for row in table.rows for r in row.records]
    return {
        "name": leaderboard.suite,
        "folder": quote(leaderboard.suite),
        "summary": text.summary(leaderboard),
        "methods": len({record.method for record in records}),
        "tasks": len({record.task for record in records}),
        "records": count(len(records)),
        "figure": shown and _figure(shown),
        "best": [_best(table) for table in leaderboard.tables],
    }


def _compared(table: Table) -> list[Row]:
    """The rows that have a gap, best first."""
    return [row for row in table.rows if row.gap]


def _figure(table: Table) -> dict[str, Any]:
    """The gaps of the best rows and of the baseline, with their intervals on one axis."""
    rows = _compared(table)
    ends = [row for row in rows if row.method in (table.reference, table.baseline)]
    best = [row for row in rows if row not in ends][: MOST_ROWS - len(ends)]
    shown = [(row, row.gap) for row in rows if row in (*best, *ends) and row.gap]
    lows = [0.0 if gap.low is None else gap.low for _, gap in shown]
    highs = [gap.value if gap.high is None else gap.high for _, gap in shown]
    axis = _Axis(min(0.0, *lows), max(0.0, *highs))
    caption = next(plot.caption for plot in plots.plots(table) if plot.name == "gap")
    baseline = table.row(table.baseline)
    return {
        "task": table.name,
        "metric": table.metric,
        "lead": typographic(text.lead(table).replace("`", "")),
        "rows": [
            {
                "method": _breakable(row.method),
                "role": row.role,
                "gap": _parts(None if row.method == table.reference else gap),
                "at": axis.marks(gap),
            }
            for row, gap in shown
        ],
        "ends": [typographic(points(end)) for end in (axis.low, axis.high)],
        "baseline": baseline and baseline.gap and axis(baseline.gap.value),
        "caption": caption.replace("`", ""),
        "more": len(rows) - len(shown),
    }


class _Axis:
    """Places on an axis from `low` to `high`, in percent from the left."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def __call__(self, value: float) -> str:
        return f"{100 * (value - self.low) / (self.high - self.low or 1):.2f}"

    def marks(self, gap: Estimate) -> dict[str, Any]:
        """Of a value, its interval, and that over test images alone."""
        intervals = (gap.interval, gap.images or gap.interval)
        each = [interval and [self(interval.low), self(interval.high)] for interval in intervals]
        return {"value": self(gap.value), "all": each[0], "images": each[1]}


def _best(table: Table) -> dict[str, Any]:
    """The highest pretrained row of a task, which need not be told apart from the next."""
    best = next((row for row in table.rows if row.role == "pretrained" and row.value), None)
    return {
        "task": table.name,
        "metric": table.metric,
        "rows": len(table.rows),
        "method": _breakable(best.method) if best else typographic("-"),
        "gap": _parts(best.gap if best else None),
        "images_only": table.images_only and bool(best and best.gap),
    }


def _parts(estimated: Estimate | None) -> tuple[str, str]:
    """A value and its interval as text; a dash where there is none."""
    shown = typographic(estimate(estimated) if estimated else "-")
    value, separator, interval = shown.partition(" [")
    return value, separator.strip() + interval


def _breakable(name: str) -> Markup:
    """A name that may go on in the next line after an underscore."""
    return Markup("_<wbr>").join(name.split("_"))
