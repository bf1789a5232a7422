"""The board's pictures, as SVG and PNG; equal rows give equal bytes."""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl

from bench.board import CEILING, FLOOR, Table

mpl.use("Agg")
from matplotlib import pyplot as plt

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "ssl-gap",  # otherwise element names differ from run to run
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
BLUE, ORANGE = "#0072B2", "#D55E00"  # Okabe and Ito 2008, told apart by colour-blind readers


def gap(table: Table) -> dict[str, bytes]:
    """Gap to ImageNet of every scored row with its interval: file name -> content.

    Empty without an `imagenet` row.
    """
    rows = [row for row in reversed(table.rows) if row.gap and row.value]
    if not rows:
        return {}
    example = table.example
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.5, 1.3 + 0.38 * len(rows)), layout="constrained")
        for place, row in enumerate(rows):
            assert row.gap is not None
            value, low, high = row.gap.value, row.gap.low, row.gap.high
            reference = row.method == CEILING or row.method.startswith(FLOOR)
            colour = ORANGE if reference else BLUE
            axes.plot([low, high], [place, place], color=colour, lw=2, solid_capstyle="butt")
            axes.plot(value, place, "D" if reference else "o", color=colour, ms=6)
            axes.annotate(
                f"{value:.1f}",
                (high, place),
                (6, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                bbox={"fc": "white", "ec": "none", "pad": 1},  # over the dotted line
            )
            if row.method == FLOOR:
                axes.axvline(value, color=ORANGE, lw=0.8, ls=":")
        axes.axvline(0, color=ORANGE, lw=0.8)
        axes.margins(x=0.08)  # room for the last label
        axes.set_yticks(range(len(rows)), [row.method for row in rows])
        axes.set_ylim(-0.6, len(rows) - 0.3)
        axes.set_xlabel(
            f"gap to {CEILING}: points of {example.metric}, with paired 95 % interval "
            "(less is better)"
        )
        title = f"{table.task}, suite {example.suite}"
        title += f" (diamonds: {CEILING} and untrained; dotted: {FLOOR})"
        axes.set_title(title, loc="left", fontsize=10)
        files = {}
        for form, about in {"svg": {"Date": None}, "png": {"Software": None}}.items():
            buffer = io.BytesIO()
            figure.savefig(buffer, format=form, metadata=about, dpi=150)
            files[f"gap_{table.task}.{form}"] = buffer.getvalue()
        plt.close(figure)
    return files
