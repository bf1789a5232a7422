"""Figures of a leaderboard, as SVG and PNG: equal rows give equal bytes.

Matplotlib is imported when the first figure is drawn: captions need none.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import UserError, explanation, one_line
from bench.reporting.format import count, deviation, estimate, points
from bench.reporting.rows import BASELINE, REFERENCE, Row, Table, class_gaps, seconds, views_seen
from bench.statistics.intervals import Estimate

BLUE, ORANGE = "#0072B2", "#D55E00"  # Okabe and Ito 2008, told apart by color-blind readers
# The page gives these colors, wherever they are in an SVG, its own theme.
INK, MUTED, RULE, PAPER = "#1c1f23", "#5b626b", "#d9dbde", "#ffffff"

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "ssl-gap",  # otherwise element names differ from run to run
    "text.parse_math": False,  # a name may contain a dollar
    "svg.fonttype": "none",  # text stays text: small files, the reader's fonts and colors
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), INK),
}
ON_EDGE: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "fontsize": 8}  # of the axes
COLUMNS = 4  # of the panels of stage curves
ACROSS = 27  # characters over a panel
LABEL = 0.16  # inches between the lines of text beside a plot
NUMBERED = 24  # classes up to which a heat map's cells have numbers
FEWEST = 3  # methods trained here, of which a plot against budgets shows anything
RUNS = "training runs"
WIDE, NARROW = 4.4, 1.2  # points: bars of test images alone, and of all that varies


DOUBT = (
    "Each bar is the variance of a row's score, in shares: test images, and training runs. Right: "
    "its standard deviation (sd), and what differs between training runs. Each repeat varies all "
    "of it at once; another machine counts as another training run. A row without a share of "
    "training runs has fixed weights."
)


@dataclass(frozen=True)
class Plot:
    """One figure of a table, NAME_TASK.svg.

    Attributes:
        name: the first part of its file's name.
        title: what it shows, in a few words.
        caption: how to read it.
    """

    name: str
    title: str
    caption: str

    def file(self, table: Table) -> str:
        """The name of its SVG file."""
        return f"{self.name}_{table.name}.svg"


def plots(table: Table) -> list[Plot]:
    """The plots that a table's records allow, in order."""
    metric = table.metric
    listed = []
    if any(row.gap and row.value for row in table.rows):
        caption = (
            f"Points of {metric} below {REFERENCE}, with paired 95% CI; less is better. "
            f"{_bars(table)} Diamonds: {REFERENCE} and untrained networks; dotted: {BASELINE}. All "
            "rows use the same test images: overlapping bars do not mean that two rows are equal. "
            "Use `bench compare`."
        )
        listed.append(Plot("gap", f"Gap to {REFERENCE}", caption))
    for name, title, note, read in (
        ("views", "views seen", "Every rotation, patch or tile of an image is one.", views_seen),
        ("time", "pretraining time", "Other work on the machine is included.", minutes),
    ):
        if sum(bool(row.value and read(row)) for row in table.rows) >= FEWEST:
            caption = f"{metric} with 95% CI of every method that was trained here{_ends(table)}."
            caption = f"{caption} {_bars(table)} {note}"
            listed.append(Plot(name, f"{metric} against {title}", caption))
    if sum(row.shares.get("training", 0) > 0 for row in table.rows) > 1:
        listed.append(Plot("doubt", "Where the doubt comes from", DOUBT))
    if any(row.method != table.reference and row.stages for row in table.rows):
        listed.append(Plot("stages", f"{metric} of every stage", _stages_caption(table)))
    if len(class_gaps(table)[0]) > 1:
        caption = (
            f"Points of {metric} of each class below {REFERENCE}; a class below 0 beats it. Single "
            "classes have few images and no interval here: read them as hints."
        )
        listed.append(Plot("classes", f"Gap to {REFERENCE} by class", caption))
    return listed


def _bars(table: Table) -> str:
    """What the bars of intervals are of."""
    if any(row.value and row.value.images for row in table.rows):
        text = "Thick bars: test images alone; thin bars: test images and training runs."
        unknown = any(row.runs.source == "unknown" for row in table.rows if row.scored)
        return f"{text} Without a thin bar: fixed weights, or unknown runs." if unknown else text
    return "The intervals are over test images only."


def _stages_caption(table: Table) -> str:
    caption = (
        "One panel per method, stages from fine to coarse. Ring: the stage selected on training "
        "images. Dashed: the untrained encoder with the same input. Gray: the range of all but "
        f"{REFERENCE}. One value per stage, no interval."
    )
    reference = table.row(table.reference)
    if reference and reference.stages:
        values = ", ".join(points(value) for value in reference.stages)
        caption += f" {REFERENCE} is dotted and may leave the panels: {values}."
    return caption


def _ends(table: Table) -> str:
    """The scores of the rows that were trained elsewhere or not at all."""
    baseline = table.row(table.baseline)
    reference = table.row(table.reference)
    text = ""
    if baseline and baseline.value:
        text += f"; dashed: {BASELINE}, {points(baseline.value.value)}"
    if reference and reference.value:
        text += f"; {REFERENCE} is not shown, {points(reference.value.value)}"
    return text


def minutes(row: Row) -> float | None:
    """Of pretraining; None if it was not trained here."""
    time = seconds(row)
    return None if time is None else time / 60


def new_figure(**settings: Any) -> Any:
    """A figure that no window and no other program's pyplot knows; within `style`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(**settings)
    FigureCanvasAgg(figure)  # which puts itself into the figure
    return figure


def _matplotlib() -> Any:
    """Matplotlib, whatever a user's MPLBACKEND and matplotlibrc say, as importing it reads both."""
    try:
        import matplotlib as mpl
    except ValueError:  # an unknown backend; a file that is no text
        for name in [n for n in sys.modules if n.startswith("matplotlib.")]:
            del sys.modules[name]  # half of what was imported before the error
        before = dict(os.environ)
        os.environ.pop("MPLBACKEND", None)
        os.environ["MATPLOTLIBRC"] = os.devnull
        exists = os.path.exists  # by which matplotlib looks into the current folder first
        os.path.exists = lambda path: path != "matplotlibrc" and exists(path)
        try:
            import matplotlib as mpl
        finally:
            os.path.exists = exists
            for name in ("MPLBACKEND", "MATPLOTLIBRC"):
                os.environ.pop(name, None)
                os.environ.update({name: before[name]} if name in before else {})
    return mpl


@contextmanager
def style() -> Iterator[Any]:
    """The settings of every figure, over matplotlib's own defaults: a user's count for nothing.

    Yields:
        Matplotlib.
    """
    mpl = _matplotlib()
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield mpl


@contextmanager
def guarded(folder: Path, warn: Callable[[str], None]) -> Iterator[None]:
    """Say in a line where plots cannot be drawn, for whatever reason matplotlib has.

    Raises:
        UserError: the plots cannot be written.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        text = explanation(error) or one_line(str(error)) or type(error).__name__
        warn(f"{folder}: the plots were not drawn: {text}")


def draw(table: Table) -> dict[str, bytes]:
    """Every plot of a table: file name -> content."""
    drawings: dict[str, Callable[[Table], dict[str, bytes]]] = {
        "gap": gap,
        "stages": stages,
        "views": against_views,
        "time": against_time,
        "classes": classes,
        "doubt": doubt,
    }
    files: dict[str, bytes] = {}
    for plot in plots(table):
        files |= drawings[plot.name](table)
    return files


def gap(table: Table) -> dict[str, bytes]:
    """Gap to ImageNet of every scored row with its interval, as SVG and PNG."""
    rows = [row for row in reversed(table.rows) if row.gap and row.value]
    tips = {}
    with style():
        figure = new_figure(figsize=(7.2, 0.9 + 0.2 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for index, row in enumerate(rows):
            assert row.gap is not None
            gap = row.gap
            value = gap.value
            color = ORANGE if _not_trained(row) else BLUE
            tips[f"tip-{index}"] = f"{row.method}: gap {estimate(gap)}"
            axes.axhline(index, color=RULE, lw=0.6, zorder=0)
            for (low, high), width in _intervals(gap):
                ends: dict[str, Any] = {"color": color, "lw": width, "solid_capstyle": "butt"}
                axes.plot([low, high], [index, index], **ends)
            mark = "D" if _not_trained(row) else "o"
            edge: dict[str, Any] = {"mec": PAPER, "mew": 0.7}  # from the bar behind it
            axes.plot(value, index, mark, color=color, ms=5, gid=f"tip-{index}", **edge)
            text = points(value) if row.method == table.reference else estimate(gap)
            axes.annotate(text, (1.01, index), va="center", **ON_EDGE)
            if row.method == table.baseline:
                axes.axvline(value, color=ORANGE, lw=0.9, ls=":", zorder=1)
        axes.axvline(0, color=ORANGE, lw=0.9, zorder=1)
        axes.set_yticks(range(len(rows)), [row.method for row in rows])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel(f"gap to {REFERENCE}, points of {table.metric} (95% CI); less is better")
        _title(figure, table, f" (diamonds: not trained here; dotted: {BASELINE})")
        figure.get_layout_engine().set(w_pad=0.12)  # inches: names are wider in PNG than in SVG
        return _files(f"gap_{table.name}", figure, tips, ("svg", "png"))


def stages(table: Table) -> dict[str, bytes]:
    """The metric by stage, a panel a method; the reference is dotted in each."""
    curves = {row.method: row.stages for row in table.rows if row.stages}
    top = curves.pop(table.reference or "", [])
    rows = [row for row in table.rows if row.method in curves]
    lines = -(-len(rows) // COLUMNS)
    count = max(map(len, curves.values()))
    each = [
        [curve[stage] for curve in curves.values() if len(curve) > stage] for stage in range(count)
    ]
    spread = [min(values) for values in each], [max(values) for values in each]
    with style():
        size = (7.5, 1.1 + 1.25 * lines)
        shared: dict[str, Any] = {"sharex": True, "sharey": True, "squeeze": False}
        figure = new_figure(figsize=size, layout="constrained")
        grid = figure.subplots(lines, COLUMNS, **shared)
        low, high = min(spread[0]), max(spread[1])
        room = 0.08 * (high - low) or 1
        tips = {}
        for index, (row, axes) in enumerate(zip(rows, grid.flat, strict=False)):
            axes.fill_between(range(count), *spread, color=RULE, alpha=0.6, lw=0)
            axes.plot(top, color=MUTED, lw=1, ls=":")
            axes.plot(curves.get(row.matched_baseline or "", []), color=ORANGE, lw=1.2, ls="--")
            color = ORANGE if _not_trained(row) else BLUE
            own = curves[row.method]
            axes.plot(own, "o-", color=color, lw=1.6, ms=2.5, gid=f"tip-{index}")
            tips[f"tip-{index}"] = f"{row.method}: {', '.join(points(value) for value in own)}"
            rings = sorted(row.selected_stages)
            axes.plot(rings, [own[s] for s in rings], "o", ms=7, mfc=PAPER, mec=color, mew=1.6)
            axes.set_title(_wrapped(row.method), loc="left", fontsize=8)
            axes.set_ylim(low - room, high + room)
            axes.set_xticks(range(count))
            axes.tick_params(labelsize=8, length=2)
        for axes in grid.flat[len(rows) :]:
            axes.set_axis_off()
        for axes in grid.flat[max(0, len(rows) - COLUMNS) : len(rows)]:
            axes.tick_params(labelbottom=True)
        figure.legend(
            handles=_stage_keys(bool(top)),
            ncols=5,
            fontsize=8,
            frameon=False,
            loc="outside upper center",
        )
        figure.supxlabel("stage of the backbone, fine (0) to coarse", fontsize=9)
        figure.supylabel(f"{table.metric}, points ({_what(table)})", fontsize=9)
        return _files(f"stages_{table.name}", figure, tips)


def _wrapped(name: str) -> str:
    """A name in lines that fit over a panel, broken after punctuation."""
    lines = [""]
    for part in re.split(r"(?<=[-_/:])", name):
        if lines[-1] and len(lines[-1]) + len(part) > ACROSS:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _stage_keys(top: bool) -> list[Any]:
    """What the marks of a panel mean."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    ring: dict[str, Any] = {"ls": "", "marker": "o", "mfc": PAPER, "mec": BLUE, "mew": 1.6}
    return [
        Line2D([], [], color=BLUE, lw=1.6, label="the method"),
        Line2D([], [], ms=7, label="selected stage", **ring),
        Line2D([], [], color=ORANGE, lw=1.2, ls="--", label="untrained, same input"),
        *([Line2D([], [], color=MUTED, lw=1, ls=":", label=REFERENCE)] if top else []),
        Patch(color=RULE, alpha=0.6, lw=0, label="the others"),
    ]


def against_views(table: Table) -> dict[str, bytes]:
    """The score against the views seen in pretraining."""
    return _against(table, "views", "views seen in pretraining (logarithmic)", views_seen, "log")


def against_time(table: Table) -> dict[str, bytes]:
    """The score against the minutes of pretraining."""
    return _against(table, "time", "pretraining, minutes", minutes, "linear")


def _against(
    table: Table, name: str, label: str, read: Callable[[Row], float | None], scale: str
) -> dict[str, bytes]:
    """The score with its interval against a cost, of the rows that have one; names on the right."""
    rows = [row for row in table.rows if row.value and read(row)]
    baseline = table.row(table.baseline)
    floor = baseline.value if baseline else None
    with style():
        from matplotlib import ticker

        height = max(3.3, 1.0 + 1.15 * LABEL * len(rows))
        figure = new_figure(figsize=(5.6, height), layout="constrained")
        axes = figure.subplots()
        axes.set_xscale(scale)
        if floor:
            if floor.interval:
                axes.axhspan(*floor.interval, color=ORANGE, alpha=0.12, lw=0)
            axes.axhline(floor.value, color=ORANGE, lw=1, ls="--")
            axes.annotate(BASELINE, (0.01, floor.value), va="bottom", **ON_EDGE)
        tips = {}
        for index, row in enumerate(rows):
            value = row.value
            cost = read(row)
            assert value and cost
            for (low, high), width in _intervals(value):
                ends: dict[str, Any] = {"color": BLUE, "lw": width, "solid_capstyle": "butt"}
                axes.plot([cost, cost], [low, high], alpha=0.5, **ends)
            axes.plot(cost, value.value, "o", color=BLUE, ms=5, gid=f"tip-{index}")
            spent = count(cost) if scale == "log" else f"{cost:,.1f}"
            tips[f"tip-{index}"] = f"{row.method}: {estimate(value)} after {spent}"
        axes.margins(x=0.08)
        if scale == "log":
            axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:,.0f}")
            axes.xaxis.set_minor_locator(ticker.NullLocator())
        else:
            axes.set_xlim(left=0)
        axes.yaxis.set_major_locator(ticker.MaxNLocator(7, steps=[1, 2, 5, 10]))
        axes.set_xlabel(label)
        axes.set_ylabel(f"{table.metric}, points, with 95% CI")
        _names(axes, [(row.method, read(row) or 0, row.value.value) for row in rows if row.value])
        _title(figure, table)
        return _files(f"{name}_{table.name}", figure, tips)


def _intervals(estimate: Estimate) -> list[tuple[tuple[float, float], float]]:
    """The intervals of an estimate and the widths of their bars, in points.

    A wide bar is of the test images alone, a narrow one of all that is known to vary.
    """
    if estimate.images is None:
        return [(estimate.interval, WIDE)] if estimate.interval else []
    assert estimate.interval is not None
    return [(estimate.interval, NARROW), (estimate.images, WIDE)]


def doubt(table: Table) -> dict[str, bytes]:
    """The shares of test images and training runs in the variance of every score."""
    rows = [row for row in reversed(table.rows) if row.shares]
    with style():
        figure = new_figure(figsize=(7.5, 1.1 + 0.24 * len(rows)), layout="constrained")
        axes = figure.subplots()
        images = [100 * row.shares["images"] for row in rows]
        training = [100 * row.shares["training"] for row in rows]
        bars: dict[str, Any] = {"height": 0.62, "edgecolor": PAPER, "linewidth": 0.8}
        places = range(len(rows))
        axes.barh(places, images, color=BLUE, label="test images", **bars)
        # Paler, to be told apart in gray as well.
        axes.barh(places, training, left=images, color=ORANGE, alpha=0.5, label=RUNS, **bars)
        tips = {}
        for index, row in enumerate(rows):
            mark = axes.patches[index]
            mark.set_gid(f"tip-{index}")
            tips[f"tip-{index}"] = f"{row.method}: {_doubt(row)}"
            axes.annotate(_doubt(row), (1.02, index), va="center", **ON_EDGE)
        axes.set_yticks(places, [row.method for row in rows])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlim(0, 100)
        axes.set_ylim(-0.5, len(rows) - 0.5)
        axes.set_xlabel(f"variance of {table.metric}, % ({_what(table)})")
        figure.legend(ncols=2, fontsize=8, frameon=False, loc="outside upper center")
        return _files(f"doubt_{table.name}", figure, tips)


def _doubt(row: Row) -> str:
    """The standard deviation of a score in points, and what its training runs are."""
    text = f"sd {deviation(row.sd or 0)}"
    return f"{text}, {row.training}" if row.shares["training"] else text


def _names(axes: Any, marks: Sequence[tuple[str, float, float]]) -> None:
    """Names of marks (name, x, y) right of the axes, none over another, a thin line to each."""
    from scipy.optimize import isotonic_regression

    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    step = LABEL / (axes.figure.get_size_inches()[1] - 0.8) * (high - low)
    ordered = sorted(marks, key=lambda mark: mark[2])
    apart = step * np.arange(len(ordered))
    free = isotonic_regression([y for _, _, y in ordered] - apart).x
    free = np.clip(free, low, high - apart[-1]) if len(apart) else free
    lead = {"arrowstyle": "-", "color": RULE, "lw": 0.8, "relpos": (0, 0.5)}
    lead |= {"patchA": None, "shrinkA": 0, "shrinkB": 0}  # searching where to cut lines is slow
    for (name, x, y), height in zip(ordered, free + apart, strict=True):
        axes.annotate(
            name,
            (x, y),
            (1.04, height),
            textcoords=("axes fraction", "data"),
            va="center",
            fontsize=8,
            arrowprops=lead,
            zorder=0,
        )


def classes(table: Table) -> dict[str, bytes]:
    """Heat map of the reference's score less the method's, rows methods and columns classes."""
    names, gaps = class_gaps(table)
    values = np.array(list(gaps.values()), dtype=float)
    most = float(np.nanmax(np.abs(values))) or 1
    cell = 0.52 if len(names) <= 10 else 0.38
    with style() as mpl:
        size = (2.6 + cell * len(names), 1.5 + 0.27 * len(gaps))
        figure = new_figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        every = mpl.colormaps["PuOr_r"](np.linspace(0.12, 0.88, 21))  # odd: one shade around 0
        shades = mpl.colors.ListedColormap(every)
        mesh = axes.pcolormesh(values, cmap=shades, vmin=-most, vmax=most, edgecolors=PAPER, lw=1)
        for y, x in np.argwhere(np.isfinite(values)) if len(names) <= NUMBERED else ():
            # Neither is INK or PAPER: a cell's color is the same in every theme.
            color = "#fefefe" if _luminance(shades(mesh.norm(values[y, x]))) < 0.18 else "#010101"
            at: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7.5, "color": color}
            axes.text(x + 0.5, y + 0.5, f"{values[y, x]:z.0f}", **at)
        axes.invert_yaxis()
        axes.set_xticks(np.arange(len(names)) + 0.5, names, rotation=45, ha="left", fontsize=8)
        axes.set_yticks(np.arange(len(gaps)) + 0.5, list(gaps), fontsize=8)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(mesh, ax=axes, fraction=0.04, pad=0.02, aspect=30)
        bar.set_label(f"points below {REFERENCE}", fontsize=8)
        bar.ax.tick_params(labelsize=8)
        bar.outline.set_visible(False)
        _title(figure, table)
        return _files(f"classes_{table.name}", figure, {})


def _what(table: Table) -> str:
    return f"{table.name}, suite {table.example.suite}"


def _title(figure: Any, table: Table, note: str = "") -> None:
    figure.suptitle(f"{_what(table)}{note}", x=0.01, ha="left", fontsize=9, color=MUTED)


def _luminance(color: Any) -> float:
    """Relative luminance of sRGB in 0..1 (WCAG 2.2); at 0.18 black and white contrast alike."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3]]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def _not_trained(row: Row) -> bool:
    """Whether a row was trained elsewhere or not at all."""
    return row.role != "pretrained"


def _files(
    name: str, figure: Any, tips: Mapping[str, str], forms: Sequence[str] = ("svg",)
) -> dict[str, bytes]:
    """The figure's files; in SVG, artists whose gid is in `tips` say so when pointed at."""
    about: dict[str, Any] = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}
    files = {}
    for form in forms:
        buffer = io.BytesIO()
        figure.savefig(buffer, format=form, metadata=about[form], dpi=150)
        figure.set_layout_engine("none")  # it is laid out now
        content = buffer.getvalue()
        if form == "svg":
            text = content.decode()
            for gid, tip in tips.items():
                start = f'<g id="{gid}">'
                text = text.replace(start, f"{start}<title>{escape(tip)}</title>", 1)
            content = text.encode()
        files[f"{name}.{form}"] = content
    return files
