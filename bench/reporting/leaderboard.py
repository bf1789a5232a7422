"""The board: tables and plots, a pure function of records. Imports no torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import UserError
from bench.metrics.average_precision import Floats
from bench.reporting.warnings import flags
from bench.results import audit, comparability, storage
from bench.results.audit import Audit
from bench.results.record import Record
from bench.statistics import intervals
from bench.statistics.cache import EXACT, SEED, all_drawn
from bench.statistics.cache import RESAMPLES as RESAMPLES

CEILING, FLOOR = "imagenet", "random_init"


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, in points; `closed` in shares."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Pair:
    """One row less another.

    Attributes:
        difference: in points, paired over test images.
        above: share of the resamples in which the difference is above 0, those where it is 0 by
            half: 0..1. With one seed it says nothing of another run.
    """

    difference: Estimate
    above: float


@dataclass(frozen=True)
class Row:
    """One method in one task, over its seeds.

    Attributes:
        method: its name.
        records: of its seeds, in order.
        value: the headline; None if every seed failed.
        gap: value(imagenet) - value, paired over test images; None without an imagenet row.
        over_floor: value - value(random_init), paired; None without a random_init row.
        untrained: the untrained method whose encoder sees the same; None if there is no such row.
        over_untrained: value - value(untrained), paired.
        closed: share of the way from random_init to imagenet; None also where imagenet cannot be
            told from random_init, since the share can then be any number.
        rank: 1 + the number of rows that are better, by an interval of the difference without 0.
        last_rank: the number of rows less those that are worse, by the same measure.
        above_next: the share of resamples in which it is better than the table's next row.
        flags: what a reader must know first.
    """

    method: str
    records: tuple[Record, ...]
    value: Estimate | None = None
    gap: Estimate | None = None
    over_floor: Estimate | None = None
    untrained: str | None = None
    over_untrained: Estimate | None = None
    closed: Estimate | None = None
    rank: int | None = None
    last_rank: int | None = None
    above_next: float | None = None
    flags: tuple[str, ...] = ()

    @property
    def places(self) -> str | None:
        """From `rank` to `last_rank`, in words."""
        if self.rank is None or self.rank == self.last_rank:
            return None if self.rank is None else f"{self.rank}"
        return f"{self.rank}-{self.last_rank}"

    @property
    def scored(self) -> list[Record]:
        """The records of the seeds that did not fail."""
        return [r for r in self.records if r.status == "ok"]

    @property
    def status(self) -> str:
        """`ok`, `failed`, or `partial` if only some seeds failed."""
        count = len(self.scored)
        return "failed" if not count else "ok" if count == len(self.records) else "partial"

    def mean(self, read: Callable[[Record], Any]) -> float | None:
        """Mean over the scored seeds of what `read` takes from a record; None where it is None."""
        values = [value for r in self.scored if (value := read(r)) is not None]
        return float(np.mean(values)) if values else None


@dataclass(frozen=True)
class Table:
    """One task: comparable rows.

    Attributes:
        task: its name.
        rows: best first, failed ones last.
        images: how many it was tested on; 0 if every row failed.
        pairs: (one, other) -> one less other, for any two scored rows.
    """

    task: str
    rows: tuple[Row, ...]
    images: int = 0
    pairs: Mapping[tuple[str, str], Pair] = field(default_factory=dict)

    @property
    def example(self) -> Record:
        """A record that speaks for all: a scored one where there is one."""
        return next((r for row in self.rows for r in row.scored), self.rows[0].records[0])


@dataclass(frozen=True)
class Board:
    """Every task of one suite."""

    suite: str
    sha256: str
    settings: Mapping[str, Any]
    tables: tuple[Table, ...] = field(default=())
    audit: Audit | None = None

    def failed(self, methods: Collection[str], tasks: Collection[str]) -> bool:
        """Whether any cell of some methods and tasks failed."""
        rows = [row for t in self.tables if t.task in tasks for row in t.rows]
        return any(row.status != "ok" for row in rows if row.method in methods)


def load(folder: Path, cache: Path | None = None) -> Board:
    """Read every record below OUT/SUITE and compute the board.

    Args:
        folder: OUT/SUITE.
        cache: where what the resamples of a record give is kept; None computes it.

    Raises:
        UserError: there are none, or they do not belong in one table.
    """
    records = storage.read_all(folder)
    if not records:
        raise UserError(f"{folder}: holds no records; make some with bench run")
    comparability.check_suite(records, folder)
    for path, found in records.items():
        for kind, file in (("samples", found.samples), ("shown", found.shown)):
            if file and not path.with_name(file).exists():  # terms may forbid copies
                records[path] = records[path].model_copy(update={kind: None})
    by_task: dict[str, dict[Path, Record]] = defaultdict(dict)
    for path, found in records.items():
        by_task[found.task][path] = found
    for task, group in by_task.items():
        comparability.check_table(group, task)
    first = next(iter(records.values()))
    audited, samples = audit.read(folder), all_drawn(records, cache)
    tables = tuple(_table(task, group, samples, audited) for task, group in sorted(by_task.items()))
    return Board(first.suite, first.suite_sha256, first.suite_settings, tables, audited)


def _table(
    task: str,
    records: Mapping[Path, Record],
    drawn: Mapping[Path, tuple[int, Floats]],
    audited: Audit | None,
) -> Table:
    groups: dict[str, list[Record]] = defaultdict(list)
    values_of: dict[str, list[Floats]] = defaultdict(list)
    sizes: dict[int, Path] = {}
    for path, found in records.items():
        groups[found.method].append(found)
        if found.status == "ok":
            images, values = drawn[path]
            sizes.setdefault(images, path)
            values_of[found.method].append(values)
    comparability.check_sizes(sizes)
    samples = {
        method: intervals.combine_seeds(
            [values[0] for values in seeds],
            [values[1:] for values in seeds],
            [SEED, *method.encode()],  # no other row's: seeds are not paired
        )
        for method, seeds in values_of.items()
    }
    means = {method: float(np.mean([v[0] for v in seeds])) for method, seeds in values_of.items()}
    ranked = sorted(groups, key=lambda m: (m not in means, -means.get(m, 0.0)))
    pairs = _pairs(means, samples)
    nexts = dict(pairwise(method for method in ranked if method in means))
    rows = tuple(_row(method, groups, means, samples, pairs, nexts, audited) for method in ranked)
    return Table(task, rows, next(iter(sizes), 0), pairs)


def _pairs(
    values: Mapping[str, float], samples: Mapping[str, Floats]
) -> dict[tuple[str, str], Pair]:
    """Every ordered pair of two scored rows."""
    found = {}
    for one in samples:
        for other in samples:
            if one != other:
                value, difference = values[one] - values[other], samples[one] - samples[other]
                if abs(value) < EXACT and np.nanmax(np.abs(difference)) < EXACT:
                    value, difference = 0.0, np.zeros_like(difference)  # equal but for rounding
                estimate = _estimate(value, difference)
                found[one, other] = Pair(estimate, intervals.probability_above(difference))
    return found


def _row(
    method: str,
    groups: Mapping[str, list[Record]],
    values: Mapping[str, float],
    samples: Mapping[str, Floats],
    pairs: Mapping[tuple[str, str], Pair],
    nexts: Mapping[str, str],
    audited: Audit | None,
) -> Row:
    row = Row(method, tuple(sorted(groups[method], key=lambda r: r.seed)))
    if method not in values:
        return row

    def difference(of: str, minus: str) -> Estimate:
        same = Estimate(0.0, 0.0, 0.0)
        return same if of == minus else pairs[of, minus].difference

    untrained = _untrained(row, groups)
    floors = [name for name in (FLOOR, untrained) if name and name in values]
    over = {name: difference(method, name) for name in floors}
    gained = {} if method.startswith(FLOOR) else over
    others = [pairs[method, other].difference for other in values if other != method]
    following = nexts.get(method)
    return replace(
        row,
        value=_within(_estimate(values[method], samples[method])),
        gap=difference(CEILING, method) if CEILING in values else None,
        over_floor=over.get(FLOOR),
        untrained=untrained,
        over_untrained=over.get(untrained or ""),
        closed=_closed(method, values, samples) if {CEILING, FLOOR} <= values.keys() else None,
        rank=1 + sum(other.high < 0 for other in others),
        last_rank=len(values) - sum(other.low > 0 for other in others),
        above_next=pairs[method, following].above if following else None,
        flags=(
            *flags(row.records, {m: (e.low, e.high) for m, e in gained.items()}),
            *audit.flags(audited, row.scored),
        ),
    )


def _closed(
    method: str, values: Mapping[str, float], samples: Mapping[str, Floats]
) -> Estimate | None:
    part, whole = (samples[m] - samples[FLOOR] for m in (method, CEILING))
    ends = intervals.ratio_interval(part, whole)
    share = (values[method] - values[FLOOR]) / (values[CEILING] - values[FLOOR] or np.nan)
    return Estimate(share, *ends) if ends else None


def _untrained(row: Row, groups: Mapping[str, list[Record]]) -> str | None:
    """The untrained method, other than the row's, whose encoder has the row's input contract."""

    def sees(records: Iterable[Record]) -> list[str] | None:
        return next((r.encoder.sees for r in records if r.encoder), None)

    return next(
        (
            name
            for name, records in sorted(groups.items())
            if name.startswith(FLOOR) and name != row.method and sees(records) == sees(row.records)
        ),
        None,
    )


def _within(found: Estimate) -> Estimate:
    """A value's interval, cut at the ends of the scale."""
    return Estimate(found.value, max(found.low, 0.0), min(found.high, 100.0))


def _estimate(value: float, samples: Floats) -> Estimate:
    return Estimate(value, *intervals.interval(samples, value))


def effective_rank(found: Record) -> float | None:
    """How many directions the features of the chosen stage spread over, if the task says so."""
    ranks, stage = found.scores.get("effective_rank"), found.selection.get("stage")
    return None if ranks is None or stage is None else float(ranks[stage])


COLUMNS: dict[str, Any] = {
    "task": lambda t, r: t.task,
    "task_version": lambda t, r: t.example.task_version,
    "method": lambda t, r: r.method,
    "seeds": lambda t, r: len(r.scored),
    "metric": lambda t, r: t.example.metric,
    **{
        f"{name}{end}": (lambda t, r, n=name, p=part: getattr(getattr(r, n), p, None))
        for name in ("value", "gap", "over_floor", "over_untrained", "closed")
        for end, part in {"": "value", "_low": "low", "_high": "high"}.items()
    },
    "untrained": lambda t, r: r.untrained,
    "rank": lambda t, r: r.rank,
    "last_rank": lambda t, r: r.last_rank,
    "above_next": lambda t, r: r.above_next,
    "images": lambda t, r: t.images,
    "backbone": lambda t, r: next((x.encoder.backbone for x in r.scored), None),
    "parameters": lambda t, r: r.mean(lambda x: x.encoder.parameters),
    "effective_rank": lambda t, r: r.mean(effective_rank),
    "candidates": lambda t, r: r.mean(lambda x: x.selection["candidates"]),
    "optimism": lambda t, r: r.mean(lambda x: x.scores.get("optimism")),
    "views_seen": lambda t, r: r.mean(lambda x: x.pretraining.views_seen),
    "seconds": lambda t, r: r.mean(lambda x: x.pretraining.seconds),
    "status": lambda t, r: r.status,
    "flags": lambda t, r: "; ".join(r.flags),
}


def frame(board: Board) -> list[dict[str, Any]]:
    """The rows of leaderboard.csv: one for each method and task."""
    return [
        {name: read(table, row) for name, read in COLUMNS.items()}
        for table in board.tables
        for row in table.rows
    ]
