"""Rows and tables of a leaderboard. Imports no torch and no matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from bench.results.record import Record, Role
from bench.statistics.cache import find_metric
from bench.statistics.intervals import Estimate
from bench.statistics.scores import Pair
from bench.statistics.simultaneous import Ranks
from bench.statistics.training_runs import Runs

UNKNOWN = Runs(None)
REFERENCE, BASELINE = "ImageNet", "random init"  # as text names the rows of these roles
SHARED = 3  # pretrained rows from which on a warning of all of them is said once
FINE_TUNED = "fine-tuned"  # kind of rows whose encoder or head the task trains

Value = TypeVar("Value")


@dataclass(frozen=True)
class Row:
    """One method in one task, over its seeds.

    Attributes:
        method: its name.
        records: of its seeds, in order.
        value: the main score; None if every seed failed.
        gap: value(reference) - value, paired over test images; None without a reference.
        gain: value - value(baseline), paired; None without a baseline.
        matched_baseline: the untrained method with the same inputs and backbone, if there is one.
        matched_gain: value - value(matched_baseline), paired.
        gap_closed: share of the way from baseline to reference; None also where the reference
            cannot be told from the baseline, since the share can then be any number.
        ranks: that it may have, all rows' together, see `bench.statistics.simultaneous`; None where
            nothing is known of its training runs.
        own_ranks: that it may have by the intervals of its own pairs, tested one by one.
        p_better: the share of samples in which it is better than the table's next row.
        runs: what is known of its training runs.
        shares: of its variance: `images` and `training`, 0..1.
        sd: standard deviation of the score, in points, of whose square they are the shares.
        warnings: what a reader must know before believing the score.
    """

    method: str
    records: tuple[Record, ...]
    value: Estimate | None = None
    gap: Estimate | None = None
    gain: Estimate | None = None
    matched_baseline: str | None = None
    matched_gain: Estimate | None = None
    gap_closed: Estimate | None = None
    ranks: Ranks | None = None
    own_ranks: Ranks | None = None
    p_better: float | None = None
    runs: Runs = UNKNOWN
    shares: Mapping[str, float] = field(default_factory=dict)
    sd: float | None = None
    warnings: tuple[str, ...] = ()

    @property
    def rank_range(self) -> str | None:
        """From the first rank to the last, as text."""
        if self.ranks is None:
            return None
        first, last = self.ranks
        return f"{first}" if first == last else f"{first}-{last}"

    @property
    def scored(self) -> list[Record]:
        """The records of the seeds that did not fail."""
        return [record for record in self.records if record.status == "ok"]

    @property
    def status(self) -> str:
        """`ok`, `failed`, or `partial` if only some seeds failed."""
        count = len(self.scored)
        if not count:
            return "failed"
        return "ok" if count == len(self.records) else "partial"

    @property
    def role(self) -> Role:
        """Role of the row: `reference`, `untrained` or `pretrained`; its name decides nothing."""
        return self.records[0].role

    @property
    def training(self) -> str:
        """What differs between training runs of the row, in words; empty of fixed weights."""
        start = "first weights" if self.role == "untrained" else "pretraining"
        start = "" if self.records[0].has_given_weights else start
        tuned = "fine-tuning" if self.runs.kind == FINE_TUNED else ""
        return " and ".join(part for part in (start, tuned) if part)

    @property
    def inputs(self) -> list[str] | None:
        """Input of each branch of the encoder; None if every seed failed."""
        return next((r.encoder.inputs for r in self.scored if r.encoder), None)

    @property
    def parameters(self) -> int | None:
        """Number of the encoder's parameters; None if every seed failed."""
        return next((r.encoder.parameters for r in self.scored if r.encoder), None)

    @property
    def stages(self) -> list[float]:
        """The metric of every stage in points, fine to coarse, mean over seeds; may be empty."""
        curves = [record.per_stage for record in self.scored if record.per_stage]
        return [float(value) for value in np.mean(curves, axis=0)] if curves else []

    @property
    def selected_stages(self) -> set[int]:
        """The stages that were selected on training images, over seeds."""
        stages = {record.selected_stage for record in self.scored}
        return {stage for stage in stages if stage is not None}

    @property
    def per_class(self) -> dict[str, float]:
        """The metric of every class in points, mean over the seeds that have it."""
        each = [record.per_class for record in self.scored]
        names = dict.fromkeys(name for values in each for name in values)
        return {n: float(np.mean([v[n] for v in each if n in v])) for n in names}

    def mean(self, read: Callable[[Record], Any]) -> float | None:
        """Mean over the scored seeds of what `read` takes from a record; None where it is None."""
        values = [value for value in map(read, self.scored) if value is not None]
        return float(np.mean(values)) if values else None


@dataclass(frozen=True)
class Table:
    """One task on one backbone: comparable rows.

    Attributes:
        task: its name.
        rows: best first, failed ones last.
        backbone: of every row, where it is not the suite's; else empty.
        reference: the method that gaps are measured from; None if no such row has a score.
        baseline: the untrained method with RGB input; None if no such row has a score.
        num_images: how many it was tested on; 0 if every row failed.
        pairs: (method, other) -> the one less the other, for any two scored rows.
        above_baseline: the pretrained rows that are above the baseline, jointly; None where that
            cannot be said of any.
    """

    task: str
    rows: tuple[Row, ...]
    backbone: str = ""
    reference: str | None = None
    baseline: str | None = None
    num_images: int = 0
    pairs: Mapping[tuple[str, str], Pair] = field(default_factory=dict)
    above_baseline: frozenset[str] | None = None

    @property
    def name(self) -> str:
        """The task, and the backbone where it is not the suite's; also in names of files."""
        return f"{self.task}-{self.backbone}" if self.backbone else self.task

    @property
    def example(self) -> Record:
        """A record that speaks for all: a scored one where there is one."""
        return next((r for row in self.rows for r in row.scored), self.rows[0].records[0])

    @property
    def known(self) -> list[Row]:
        """The scored rows of which something is known of training runs."""
        return [row for row in self.rows if row.scored and row.runs.spread is not None]

    @property
    def images_only(self) -> bool:
        """Whether training runs vary and nothing is known of any: intervals hold no doubt of them.

        An interval of fixed weights has none in any table.
        """
        sources = {row.runs.source for row in self.rows if row.value and row.value.interval}
        return "unknown" in sources and sources <= {"unknown", "fixed"}

    @property
    def metric(self) -> str:
        """The metric, as tables print it."""
        metric, _ = find_metric(self.example.metric)
        return metric.label if metric else self.example.metric

    @property
    def shared_warnings(self) -> list[str]:
        """The warnings that every pretrained row with a score has, where there are several."""
        rows = [row for row in self.rows if row.role == "pretrained" and row.scored]
        if len(rows) < SHARED:
            return []
        return [text for text in rows[0].warnings if all(text in row.warnings for row in rows)]

    def own_warnings(self, row: Row) -> list[str]:
        """The warnings of a row, less those that every pretrained row has."""
        if row.status == "failed":
            return ["failed"]
        shared = self.shared_warnings if row.role == "pretrained" else []
        return [text for text in row.warnings if text not in shared]

    def row(self, method: str | None) -> Row | None:
        """The row of a method, if it is there."""
        return next((row for row in self.rows if row.method == method), None)


def pivot(
    cells: Iterable[tuple[str, str, Value]],
) -> tuple[list[str], dict[str, list[Value | None]]]:
    """A table from (row, column, value), as `pandas.DataFrame.pivot` makes it, light to import.

    Returns:
        The names of the columns, and row -> the value of every column, None where there is none.
        Both are in the order in which they come first.
    """
    values = {(row, column): value for row, column, value in cells}
    columns = list(dict.fromkeys(column for _, column in values))
    rows = dict.fromkeys(row for row, _ in values)
    return columns, {row: [values.get((row, column)) for column in columns] for row in rows}


Cell = tuple[Table, Row]


def overview(tables: Iterable[Table]) -> tuple[list[str], dict[str, list[Cell | None]]]:
    """Methods that ran in two tasks or more, by tasks: table and row of each."""
    tasks, rows = pivot((row.method, t.name, (t, row)) for t in tables for row in t.rows)
    shared = {m: cells for m, cells in rows.items() if sum(c is not None for c in cells) > 1}
    return (tasks, shared) if shared else ([], {})


def of_several_backbones(tables: Iterable[Table]) -> dict[str, list[Table]]:
    """The tables of every task that has several: one for each backbone."""
    by_task: dict[str, list[Table]] = {}
    for table in tables:
        by_task.setdefault(table.task, []).append(table)
    return {task: own for task, own in by_task.items() if len(own) > 1}


def class_gaps(table: Table) -> tuple[list[str], dict[str, list[float | None]]]:
    """Of every scored method but the reference: the reference's score less its own, by class."""
    reference = table.row(table.reference)
    scores = reference.per_class if reference else {}
    return pivot(
        (row.method, name, scores[name] - value)
        for row in table.rows
        if row is not reference
        for name, value in row.per_class.items()
        if name in scores
    )


def views_seen(row: Row) -> float | None:
    """Images that went through the encoder in pretraining; None if it was not trained here."""
    return row.mean(lambda r: r.pretraining.views_seen) or None


def seconds(row: Row) -> float | None:
    """Of pretraining; None if it was not trained here."""
    return row.mean(lambda r: r.pretraining.seconds) or None
