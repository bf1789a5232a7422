"""LEADERBOARD.md: what was measured, on what, how it was obtained, and how sure it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bench.reporting import details
from bench.reporting.leaderboard import CEILING, FLOOR, Board, Estimate, Row, Table, effective_rank
from bench.reporting.text import (
    EXPLAINED,
    chance,
    intro,
    methods,
    provenance,
    recipe_words,
    verbatim,
)
from bench.results.record import Record

PAGE = "leaderboard.html"
RESULT = (
    "rank",
    "method",
    "{metric} [95 %]",
    f"gap to {CEILING} [95 %]",
    "closed [95 %]",
    f"over {FLOOR} [95 %]",
    "over untrained [95 %]",
    "above next",
    "seeds",
    "flags",
)
OBTAINED = (
    "method",
    "sees",
    "parameters",
    "inputs seen",
    "pretraining",
    "candidates",
    "chosen",
    "optimism",
    "effective rank",
)
ONE_SEED = (
    f"**One run per row, `{FLOOR}` included.** The intervals are over test images alone. Another"
    " run would move a row too, by an amount that was not measured here: do not read differences of"
    " a few points as differences of methods."
)
WORDS = {"", "rank", "method", "flags", "sees", "chosen"}  # columns that hold no number


def markdown(board: Board) -> str:
    """The whole text."""
    overview = [_overview(board)] if len(board.tables) > 1 else []
    tables = [_section(table, _once(board)) for table in board.tables]
    parts = [_title(board), _facts(board), *overview, *tables, EXPLAINED, methods(board)]
    return "\n\n".join([*parts, provenance(board)]) + "\n"


def words(board: Board) -> Mapping[str, str]:
    """The parts of the text that the page shows too: `facts`, `reading`, and of each task."""
    once = _once(board)
    intros = {t.task: "\n".join([*intro(t), *_caveats(t, once)]) for t in board.tables}
    reading = [EXPLAINED, methods(board), provenance(board)]
    return {"facts": _facts(board), "reading": "\n\n".join(reading), **intros}


def estimate(found: Estimate | None) -> str:
    """A value and its interval, with one decimal."""
    if found is None:
        return "-"
    return f"{found.value:.1f} [{found.low:.1f}, {found.high:.1f}]"


def share(found: Estimate | None) -> str:
    """The same of a share, in percent."""
    if found is None:
        return "-"
    value, low, high = (f"{100 * part:.0f}" for part in (found.value, found.low, found.high))
    return f"{value} % [{low}, {high}]"


def result_cells(row: Row) -> list[str]:
    """What was measured of a row, in the order of `RESULT`."""
    return [
        row.places or "-",
        row.method,
        estimate(row.value),
        "-" if row.method == CEILING else estimate(row.gap),
        "-" if row.method in (CEILING, FLOOR) else share(row.closed),
        "-" if row.method == FLOOR else estimate(row.over_floor),
        estimate(row.over_untrained),
        chance(row.above_next) or "-",
        str(len(row.scored)),
        "FAILED" if row.status == "failed" else "; ".join(row.flags),
    ]


def _title(board: Board) -> str:
    summary = board.settings["summary"]
    title = f"# How far from ImageNet labels? Suite `{board.suite}`"
    page_link = f"[{PAGE}]({PAGE}), beside this file, holds the same, to sort and filter."
    return f"{title}\n\n{summary[0].upper()}{summary[1:]}. {page_link}"


def _facts(board: Board) -> str:
    suite = board.settings
    rendered = suite.get("scenes")
    backbone = suite["backbone"]["name"]
    corpus = _count(board, "corpus", rendered and rendered["corpus"])
    voc = suite["voc"]
    lines = [
        f"Every row is a network of one family, `{backbone}`, pretrained in another way: by a"
        " self-supervised method, which makes its own labels from images; by the labels that the"
        " same images have (`supervised`); by the labels that people gave the 1.3 million"
        f" photographs of ImageNet (`{CEILING}`, published weights); or not at all (`{FLOOR}` and"
        " its variants). All were then scored by the same protocol, tuned over the same"
        " candidates, on the same test images.",
        "",
        f"The **gap** is how far a row is below `{CEILING}`. It is not the worth of labels alone:"
        f" `{CEILING}` was trained elsewhere, on more and larger images, for longer. The brackets"
        " behind a number are its 95 % interval over test images. Words are explained below the"
        " tables.",
    ]
    if rendered:
        lines += [
            "",
            "**The images are rendered**: small drawn scenes that the suite makes for itself,"
            " stored in the layout of PASCAL VOC. They are not photographs, and no number below"
            " can be compared with a published one.",
        ]
    what = "rendered scenes, in" if rendered else "images of"
    rows = {
        "backbone": f"`{backbone}`; a method that sees an image in two halves has two copies of"
        " half the width",
        "pretraining images": f"{what} `{suite['corpus']['folder']}`{corpus}",
        "pretraining recipe, where a method has no other": recipe_words(suite["pretraining"], {}),
        "scored on": f"{what} `{voc['folder']}`, {voc['size']} px where the network is frozen",
    }
    once = ["", ONE_SEED] if _once(board) else []
    return "\n".join([*lines, "", *_grid(("", ""), [list(row) for row in rows.items()]), *once])


def _count(board: Board, name: str, declared: int | None) -> str:
    """How many images an image set holds, in parentheses, where that is known."""
    records = [r for table in board.tables for row in table.rows for r in row.scored]
    counts = {r.images[name] for r in records if name in r.images}
    found = declared if not counts else max(counts)
    return "" if found is None else f" ({found:,} images)"


def _overview(board: Board) -> str:
    """Methods by tasks, the gap in each cell; the order is that of the first table."""
    cells = {
        (row.method, t.task): "-" if row.method == CEILING else estimate(row.gap)
        for t in board.tables
        for row in t.rows
    }
    order = list(dict.fromkeys(row.method for t in board.tables for row in t.rows))
    headers = ["method", *(f"{t.task} ({t.example.metric})" for t in board.tables)]
    rows = [[m, *(cells.get((m, t.task), "") for t in board.tables)] for m in order]
    empty = ["Each column is a metric and a protocol of its own: read down, not across."]
    empty[0] += " An empty cell was not run." if any("" in row for row in rows) else ""
    empty += [""]
    return "\n".join([f"## Overview: gap to {CEILING} [95 %]", "", *empty, *_grid(headers, rows)])


def _once(board: Board) -> bool:
    """Whether every row has one seed."""
    return {len(row.scored) for table in board.tables for row in table.rows if row.scored} == {1}


def _section(table: Table, said: bool) -> str:
    """A task; `said`: the board has said that every row has one seed."""
    example = table.example
    lines = [f"## {table.task}", "", *intro(table)]
    headers = [header.format(metric=example.metric) for header in RESULT]
    lines += ["", *_short(table), *_grid(headers, [result_cells(row) for row in table.rows])]
    lines += _caveats(table, said)
    for plot in details.plots(table):
        lines += ["", f"![{plot.title}]({plot.name}_{table.task}.svg)", "", plot.caption]
    lines += ["", "How each row was obtained:", ""]
    lines += _grid(*_told(OBTAINED, [_obtained(row) for row in table.rows]))
    curves = [row for row in table.rows if row.scored and "stage_mAP" in row.scored[0].scores]
    if curves:
        stages = len(curves[0].scored[0].scores["stage_mAP"])
        lines += ["", f"{example.metric} of every stage, fine to coarse; bold is the stage that"]
        lines[-1] += " the training list chose"
        lines[-1] += " (first seed):" if any(len(r.scored) > 1 for r in curves) else ":"
        headers = ["method", *(f"stage {s}" for s in range(stages))]
        lines += ["", *_grid(headers, [_curve(row) for row in curves])]
    return "\n".join([*lines, *_links(table)])


def _short(table: Table) -> list[str]:
    """The table in a sentence, where it has a ceiling and a floor."""
    rows = {row.method: row for row in table.rows if row.value}
    if not {CEILING, FLOOR} <= rows.keys():
        return []
    others = [row for name, row in rows.items() if name != CEILING and not name.startswith(FLOOR)]
    parts = [f"`{FLOOR}`, no pretraining at all, is {estimate(rows[FLOOR].gap)} points behind it"]
    if others:
        nearest = others[0]
        below = nearest.gap is not None and nearest.gap.value >= 0
        where = "points behind" if below else "points behind, so ahead of it"
        said = f"the best pretrained here is `{nearest.method}`, {estimate(nearest.gap)} {where}"
        parts.insert(0, said)
        beyond = sum(row.over_floor is not None and row.over_floor.low > 0 for row in others)
        these = f"{beyond} of the {len(others)} rows pretrained here are"
        if len(others) == 1:
            these = f"`{nearest.method}` is" if beyond else f"`{nearest.method}` is not"
        parts.append(f"{these} above that by an interval that excludes 0 before rounding")
    top = rows[CEILING].value
    return [f"In short: `{CEILING}` reaches {estimate(top)}; {'; '.join(parts)}.", ""]


def _caveats(table: Table, once: bool) -> list[str]:
    """What the intervals of this very table do not hold, and what failed."""
    scored = [row for row in table.rows if row.scored]
    single = [row.method for row in scored if len(row.scored) == 1]
    said = []
    if single and len(single) == len(scored) and not once:
        said.append(ONE_SEED)
    elif single and len(single) < len(scored):
        said.append(
            f"**One seed** of {', '.join(single)}: their intervals are over test images alone,"
            " and a difference to one of them holds the seeds of the other row only."
        )
    both = {CEILING, FLOOR} <= {row.method for row in scored}
    if both and not any(row.closed for row in scored):
        said.append(f"No **closed**: {CEILING} is not above {FLOOR} by more than chance.")
    failed = [
        f"`{row.method}`, seed {found.seed}: {verbatim(found.error)}"
        for row in table.rows
        for found in row.records
        if found.error
    ]
    said += ["**Failed cells**: " + "; ".join(failed)] if failed else []
    return [line for text in said for line in ("", text)]


def _obtained(row: Row) -> list[str]:
    """How a row came about, in the order of `OBTAINED`."""
    first = row.scored[0] if row.scored else None
    sees = ", ".join(first.encoder.sees) if first and first.encoder else "-"
    parameters = row.mean(lambda r: r.encoder and r.encoder.parameters)
    images = row.mean(lambda r: r.pretraining and r.pretraining.views_seen)
    candidates = row.mean(lambda r: r.selection.get("candidates"))
    optimism = row.mean(lambda r: r.scores.get("optimism"))
    directions = row.mean(effective_rank)
    return [
        row.method,
        sees,
        "-" if parameters is None else f"{parameters / 1e6:.2f} M",
        f"{images:,.0f}" if images else "-",
        _time(row.mean(lambda r: r.pretraining and r.pretraining.seconds)),
        "-" if candidates is None else f"{candidates:.0f}",
        ", ".join(sorted({_chosen(found) for found in row.scored})) or "-",
        "-" if optimism is None else f"{optimism:+.1f}",
        "-" if directions is None else f"{directions:.0f}",
    ]


def _told(
    headers: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    """The columns in which some row says something."""
    kept = [place for place in range(len(headers)) if any(row[place] != "-" for row in rows)]
    return [headers[p] for p in kept], [[row[p] for p in kept] for row in rows]


def _time(seconds: float | None) -> str:
    if not seconds:
        return "-"
    if seconds < 60:
        return "< 1 min"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _chosen(found: Record) -> str:
    """What the training list chose: a stage to probe and its costs, or a rate to tune with."""
    rate, stage = found.selection.get("learning_rate"), found.selection.get("stage")
    if rate is not None:
        return f"rate {rate:g}"
    costs = [cost for cost in (found.selection.get("cost") or {}).values() if cost is not None]
    if not costs:
        return f"stage {stage}"
    low, high = min(costs), max(costs)
    return f"stage {stage}, cost {low:.1g}" + (f" to {high:.1g}" if high > low else "")


def _curve(row: Row) -> list[str]:
    found = row.scored[0]
    chosen = found.selection["stage"]
    values = [f"{value:.1f}" for value in found.scores["stage_mAP"]]
    return [row.method, *(f"**{v}**" if s == chosen else v for s, v in enumerate(values))]


def _links(table: Table) -> list[str]:
    """Where to look at what was learned and predicted, where there is something to see."""
    lines = []
    for title, read in (
        ("What was learned, to look at", lambda r: r.samples),
        ("Predictions, each left of the truth", lambda r: r.shown),
    ):
        links = _linked(table, read)
        lines += ["", f"{title}: {', '.join(links)}."] if links else []
    return lines


def _linked(table: Table, read: Callable[[Record], str | None]) -> list[str]:
    return [
        f"[{row.method}]({table.task}/{row.method}/{file})"
        for row in table.rows
        for found in row.scored
        if (file := read(found))
    ]


def _grid(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table; numbers to the right."""
    ruler = ["---" if header in WORDS else "---:" for header in headers]
    return [f"| {' | '.join(line)} |" for line in (headers, ruler, *rows)]
