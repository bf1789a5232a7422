"""What a row holds beyond its headline, and which plots a table has. Imports no matplotlib."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bench.reporting.leaderboard import CEILING, FLOOR, Row, Table

FEWEST = 3  # methods trained here, of which a plot against budgets shows anything


@dataclass(frozen=True)
class Plot:
    """One image of a table, NAME_TASK.svg.

    Attributes:
        name: the first part of its file's name.
        title: what it shows, in a few words.
        caption: how to read it.
    """

    name: str
    title: str
    caption: str


def stages(row: Row) -> list[float]:
    """The metric of every stage in points, fine to coarse, mean over seeds; empty without any."""
    curves = [r.scores["stage_mAP"] for r in row.scored if "stage_mAP" in r.scores]
    return [float(value) for value in np.mean(curves, axis=0)] if curves else []


def chosen_stages(row: Row) -> set[int]:
    """The stages that the training list chose, over seeds."""
    return {r.selection["stage"] for r in row.scored if "stage" in r.selection}


def classes(row: Row) -> dict[str, float]:
    """The metric of every class in points, mean over the seeds that have it."""
    found = [r.scores.get("per_class", {}) for r in row.scored]
    names = dict.fromkeys(name for each in found for name in each)
    values = {n: [each[n] for each in found if each.get(n) is not None] for n in names}
    return {name: float(np.mean(each)) for name, each in values.items() if each}


def class_gaps(table: Table) -> dict[str, dict[str, float]]:
    """Of every scored method but imagenet: imagenet's value less its own, for each class."""
    every = {row.method: classes(row) for row in table.rows}
    top = every.pop(CEILING, {})
    gaps = {m: {n: top[n] - v for n, v in own.items() if n in top} for m, own in every.items()}
    return {method: own for method, own in gaps.items() if own}


def views_seen(row: Row) -> float | None:
    """Images that went through the encoder in pretraining; None if it was not trained here."""
    return row.mean(lambda r: r.pretraining and r.pretraining.views_seen) or None


def minutes(row: Row) -> float | None:
    """Of pretraining; None if it was not trained here."""
    return (row.mean(lambda r: r.pretraining and r.pretraining.seconds) or 0) / 60 or None


def plots(table: Table) -> list[Plot]:
    """The plots that a table's records allow, in order."""
    metric, found = table.example.metric, []
    if any(row.gap and row.value for row in table.rows):
        caption = (
            f"Points of {metric} below `{CEILING}`, with paired 95 % interval; less is better. "
            f"Diamonds: `{CEILING}` and untrained networks; dotted: `{FLOOR}`. Rows share their "
            "test images, so whether two bars overlap does not say whether two rows differ."
        )
        found.append(Plot("gap", f"Gap to {CEILING}", caption))
    for name, title, note, read in (
        ("images", "inputs seen", "Every turn, patch or tile of an image is one.", views_seen),
        ("time", "pretraining time", "By the clock, other work included.", minutes),
    ):
        if sum(bool(row.value and read(row)) for row in table.rows) >= FEWEST:
            caption = f"{metric} with 95 % interval of every method that was trained here"
            caption += f"{_ends(table.rows)}. {note}"
            found.append(Plot(name, f"{metric} against {title}", caption))
    if any(row.method != CEILING and stages(row) for row in table.rows):
        found.append(Plot("stages", f"{metric} of every stage", _stages_caption(table)))
    if class_gaps(table):
        caption = (
            f"Points of the class's own score, of which {metric} is the mean, below `{CEILING}`; "
            "below 0 beats it. Single classes "
            "rest on few images and have no interval here: read them as hints."
        )
        found.append(Plot("classes", f"Gap to {CEILING} by class", caption))
    return found


def _stages_caption(table: Table) -> str:
    caption = (
        "One panel per method, stages from fine to coarse; ring: the stage that the training list "
        "chose; dashed: the untrained encoder that sees the same; gray: the range of all but "
        f"`{CEILING}`. One value per stage, no interval."
    )
    top = next((stages(row) for row in table.rows if row.method == CEILING), [])
    if top:
        values = ", ".join(f"{value:.1f}" for value in top)
        caption += f" `{CEILING}` is dotted and may leave the panels: {values}."
    return caption


def _ends(rows: Iterable[Row]) -> str:
    """Where the rows stand that were trained elsewhere or not at all."""
    values = {row.method: row.value.value for row in rows if row.value}
    said = [f"; dashed: `{FLOOR}`, untrained, {values[FLOOR]:.1f}"] if FLOOR in values else []
    if CEILING in values:
        said.append(f"; `{CEILING}` came pretrained and is left out, {values[CEILING]:.1f}")
    return "".join(said)
