"""LEADERBOARD.md: what was measured, on what, how it was obtained, and how sure it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bench import details, plugins
from bench.board import CEILING, FLOOR, Board, Estimate, Row, Table, effective_rank
from bench.record import Record
from bench.wording import EXPLAINED, chance, methods, provenance, recipe_words, tuning_words

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
    "images seen",
    "pretraining",
    "candidates",
    "chosen",
    "optimism",
    "effective rank",
)
WORDS = {"", "rank", "method", "flags", "sees", "chosen"}  # columns that hold no number


def markdown(board: Board) -> str:
    """The whole text."""
    overview = [_overview(board)] if len(board.tables) > 1 else []
    tables = [_section(table) for table in board.tables]
    parts = [_title(board), _facts(board), *overview, *tables, EXPLAINED, methods(board)]
    return "\n\n".join([*parts, provenance(board)]) + "\n"


def words(board: Board) -> Mapping[str, str]:
    """The parts of the text that the page shows too: `facts`, `reading`, and of each task."""
    intros = {table.task: "\n".join(_intro(table)) for table in board.tables}
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
    page_link = f"[{PAGE}]({PAGE}), beside this file, is the same to sort, filter and look into."
    return f"{title}\n\n{summary[0].upper()}{summary[1:]}. {page_link}"


def _facts(board: Board) -> str:
    suite = board.settings
    rendered = suite.get("scenes")
    backbone = suite["backbone"]["name"]
    corpus = _count(board, "corpus", rendered and rendered["corpus"])
    voc = suite["voc"]
    lines = [
        f"Every row is a network of one kind, `{backbone}`, pretrained in another way: by a"
        " self-supervised method, which makes its own labels from pictures; by the labels that"
        f" people gave the 1.3 million photographs of ImageNet (`{CEILING}`); or not at all"
        f" (`{FLOOR}`). All were then scored by the same protocol, tuned over the same candidates,"
        " on the same test pictures. The **gap** is what a row lacks to ImageNet labels; the"
        " brackets behind a number are its 95 % interval. Words are explained below the tables.",
    ]
    if rendered:
        lines += [
            "",
            "**The pictures are rendered**: small drawn scenes that the suite makes for itself,"
            " stored in the layout of PASCAL VOC. They are not photographs, and no number below"
            " can be compared with a published one.",
        ]
    what = "rendered scenes, in" if rendered else "pictures of"
    train = _count(board, "voc_train", rendered and rendered["train"])
    test = _count(board, "voc_test", rendered and rendered["test"])
    sizes = [f"`{voc['train']}`{train}", f"`{voc['test']}`{test}"]
    rows = {
        "backbone, the same in every row": f"`{backbone}`",
        "pretraining pictures": f"{what} `{suite['corpus']['folder']}`{corpus}",
        "pretraining recipe": recipe_words(suite["pretraining"], {}),
        "scored on": f"{what} `{voc['folder']}`: trained on list {sizes[0]}, tested on list"
        f" {sizes[1]}; {len(voc['classes'])} classes; {voc['size']} px where the network is frozen",
    }
    return "\n".join([*lines, "", *_grid(("", ""), [list(row) for row in rows.items()])])


def _count(board: Board, name: str, declared: int | None) -> str:
    """How many pictures an image set holds, in parentheses, where that is known."""
    records = [r for table in board.tables for row in table.rows for r in row.scored]
    counts = {r.pictures[name] for r in records if name in r.pictures}
    if not counts and declared is None and name == "voc_test":
        tested = (t.pictures for t in board.tables if name in t.example.data)
        counts = {count for count in tested if count}
    found = declared if not counts else max(counts)
    return "" if found is None else f" ({found:,} pictures)"


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
    empty = ["An empty cell was not run.", ""] if any("" in row for row in rows) else []
    return "\n".join([f"## Overview: gap to {CEILING} [95 %]", "", *empty, *_grid(headers, rows)])


def _section(table: Table) -> str:
    example = table.example
    lines = [f"## {table.task}", "", *_intro(table)]
    headers = [header.format(metric=example.metric) for header in RESULT]
    lines += ["", *_short(table), *_grid(headers, [result_cells(row) for row in table.rows])]
    lines += _caveats(table)
    for plot in details.plots(table):
        lines += ["", f"![{plot.title}]({plot.name}_{table.task}.svg)", "", plot.caption]
    lines += ["", "How each row was obtained:", ""]
    lines += _grid(OBTAINED, [_obtained(row) for row in table.rows])
    curves = [row for row in table.rows if row.scored and "stage_mAP" in row.scored[0].scores]
    if curves:
        stages = len(curves[0].scored[0].scores["stage_mAP"])
        lines += ["", f"{example.metric} of every stage, fine to coarse; bold is the stage that"]
        lines[-1] += " the training list chose (first seed):"
        headers = ["method", *(f"stage {s}" for s in range(stages))]
        lines += ["", *_grid(headers, [_curve(row) for row in curves])]
    return "\n".join([*lines, *_links(table)])


def _intro(table: Table) -> list[str]:
    """What a table holds."""
    example = table.example
    known = table.task in plugins.names("tasks")
    about = plugins.describe("tasks", table.task) if known else None
    lines = []
    if about:
        lines += [f"{about.summary} Protocol: {about.constants.get('reference', '')}.", ""]
    tested = f" on {table.pictures:,} test pictures" if table.pictures else ""
    lines += [f"{example.metric} in points, 0-100, more is better,{tested or ' no row scored'}."]
    lines[-1] += f" Version {example.task_version} of the task."
    if example.tuning:
        lines[-1] += f" Fine-tuned {tuning_words(example.tuning)}."
    excluded = example.scores.get("excluded_classes")
    if excluded:
        lines[-1] += f" Left out of the mean, with too few pictures: {', '.join(excluded)}."
    return lines


def _short(table: Table) -> list[str]:
    """The table in a sentence, where it has a ceiling and a floor."""
    rows = {row.method: row for row in table.rows if row.value}
    if not {CEILING, FLOOR} <= rows.keys():
        return []
    others = [row for name, row in rows.items() if name != CEILING and not name.startswith(FLOOR)]
    parts = [f"`{FLOOR}`, no pretraining at all, is {estimate(rows[FLOOR].gap)} points behind it"]
    if others:
        nearest = others[0]
        parts.insert(0, f"nearest is `{nearest.method}`, {estimate(nearest.gap)} points behind")
        beyond = sum(row.over_floor is not None and row.over_floor.low > 0 for row in others)
        parts.append(f"{beyond} of {len(others)} pretrained rows are better than that by more than")
        parts[-1] += " chance in the pictures explains"
    top = rows[CEILING].value
    return [f"In short: `{CEILING}` reaches {estimate(top)}; {'; '.join(parts)}.", ""]


def _caveats(table: Table) -> list[str]:
    """What the intervals of this very table do not hold, and what failed."""
    scored = [row for row in table.rows if row.scored]
    single = [row.method for row in scored if len(row.scored) == 1]
    said = []
    if single and len(single) == len(scored):
        said.append(
            "**One seed a row**: the intervals are over test pictures alone. How another"
            " pretraining run would differ was not measured."
        )
    elif single:
        said.append(
            f"**One seed** of {', '.join(single)}: their intervals are over test pictures alone,"
            " and a difference to one of them holds the seeds of the other row only."
        )
    both = {CEILING, FLOOR} <= {row.method for row in scored}
    if both and not any(row.closed for row in scored):
        said.append(f"No **closed**: {CEILING} cannot be told from {FLOOR} here.")
    failed = [
        f"`{row.method}`, seed {found.seed}: {found.error}"
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
    images = row.mean(lambda r: r.pretraining and r.pretraining.images_seen)
    candidates = row.mean(lambda r: r.selection.get("candidates"))
    optimism = row.mean(lambda r: r.scores.get("optimism"))
    directions = row.mean(effective_rank)
    return [
        row.method,
        sees,
        "-" if parameters is None else f"{parameters / 1e6:.2f} M",
        "-" if images is None else f"{images:,.0f}",
        _time(row.mean(lambda r: r.pretraining and r.pretraining.seconds)),
        "-" if candidates is None else f"{candidates:.0f}",
        ", ".join(sorted({_chosen(found) for found in row.scored})) or "-",
        "-" if optimism is None else f"{optimism:+.1f}",
        "-" if directions is None else f"{directions:.0f}",
    ]


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
    return f"stage {stage}, cost {low:g}" + (f" to {high:g}" if high > low else "")


def _curve(row: Row) -> list[str]:
    found = row.scored[0]
    chosen = found.selection["stage"]
    values = [f"{value:.1f}" for value in found.scores["stage_mAP"]]
    return [row.method, *(f"**{v}**" if s == chosen else v for s, v in enumerate(values))]


def _links(table: Table) -> list[str]:
    """Where to look at what was learnt and predicted, where there is something to see."""
    lines = []
    for title, read in (
        ("What was learnt, to look at", lambda r: r.samples),
        ("Predictions beside the truth", lambda r: r.shown),
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
