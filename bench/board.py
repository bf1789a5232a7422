"""The board: tables and plots, a pure function of records. Imports no torch."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import audit, record
from bench.audit import Audit
from bench.errors import UserError
from bench.record import Record
from bench.rescore import bootstrap, headline, images
from bench.stats import interval, resamples

CEILING, FLOOR = "imagenet", "random_init"
RESAMPLES = 1000  # of the test pictures; percentile ends move by about 3 % of the width
BOOTSTRAP_SEED = 0
EXACT = 1e-6  # points by which a value may differ when it is computed again elsewhere
COLLAPSED = 0.1  # an adversarial method whose pictures vary less than this share of real ones'

Samples = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value in points with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One method in one task, over its seeds.

    Attributes:
        method: its name.
        records: of its seeds, in order.
        value: the headline; None if every seed failed.
        gap: value(imagenet) - value, paired over test pictures; None without an imagenet row.
        over_floor: value - value(random_init), paired; None without a random_init row.
        untrained: the untrained method whose encoder sees the same; None if there is no such row.
        over_untrained: value - value(untrained), paired.
        closed: share of the way from random_init to imagenet.
        flags: what a reader must know first.
    """

    method: str
    records: tuple[Record, ...]
    value: Estimate | None = None
    gap: Estimate | None = None
    over_floor: Estimate | None = None
    untrained: str | None = None
    over_untrained: Estimate | None = None
    closed: float | None = None
    flags: tuple[str, ...] = ()

    @property
    def scored(self) -> list[Record]:
        """The records of the seeds that did not fail."""
        return [r for r in self.records if r.status == "ok"]

    @property
    def status(self) -> str:
        """`ok`, `failed`, or `partial` if only some seeds failed."""
        count = len(self.scored)
        return "failed" if not count else "ok" if count == len(self.records) else "partial"

    def mean(self, read: Any) -> float | None:
        """Mean over the scored seeds of what `read` takes from a record; None where it is None."""
        values = [value for r in self.scored if (value := read(r)) is not None]
        return float(np.mean(values)) if values else None


@dataclass(frozen=True)
class Table:
    """One task: comparable rows, best first, failed ones last."""

    task: str
    rows: tuple[Row, ...]

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

    def failed(self, methods: Collection[str], tasks: Collection[str]) -> bool:
        """Whether any cell of some methods and tasks failed."""
        rows = [row for t in self.tables if t.task in tasks for row in t.rows]
        return any(row.status != "ok" for row in rows if row.method in methods)


def load(folder: Path) -> Board:
    """Read every record below OUT/SUITE and compute the board.

    Raises:
        UserError: there are none, or they do not belong in one table.
    """
    records = record.read_all(folder)
    if not records:
        raise UserError(f"{folder}: holds no records; make some with bench run")
    for path, found in records.items():
        place = record.path_of(folder.parent, found.suite, found.task, found.method, found.seed)
        if path != place:
            raise UserError(f"{path}: is a copy of the record that belongs at {place}; remove it")
        for kind, file in (("samples", found.samples), ("shown", found.shown)):
            if file and not path.with_name(file).exists():  # terms may forbid copies
                records[path] = records[path].model_copy(update={kind: None})
    _check_same(records, "settings of the suite", lambda r: r.suite_sha256)
    by_task: dict[str, dict[Path, Record]] = defaultdict(dict)
    for path, found in records.items():
        by_task[found.task][path] = found
    first = next(iter(records.values()))
    audited = audit.read(folder)
    tables = tuple(_table(task, group, audited) for task, group in sorted(by_task.items()))
    return Board(first.suite, first.suite_sha256, first.suite_settings, tables)


def _check_same(records: Mapping[Path, Record], what: str, read: Any) -> None:
    values: dict[Any, Path] = {}
    for path, found in records.items():
        if (value := read(found)) is not None:
            values.setdefault(value, path)
    if len(values) > 1:
        one, two, *_ = values.values()
        raise UserError(f"{one} and {two} differ in the {what}: never in one table; move one away")


def _table(task: str, records: Mapping[Path, Record], audited: Audit | None) -> Table:
    _check_same(records, "task version", lambda r: r.task_version)
    _check_same(records, f"settings of {task}", lambda r: json.dumps(r.tuning, sort_keys=True))
    for name in sorted({name for r in records.values() for name in r.data}):
        _check_same(records, f"pictures ({name})", lambda r, name=name: r.data.get(name))
    _check_same(records, f"code that scored {task}", lambda r: r.task_code)
    for method in {r.method for r in records.values()}:
        mine = {path: found for path, found in records.items() if found.method == method}
        _check_same(mine, f"code of {method}", lambda r: r.method_code)
        _check_same(mine, f"recipe of {method}", lambda r: json.dumps(r.recipe, sort_keys=True))
    groups: dict[str, list[Record]] = defaultdict(list)
    samples: dict[str, list[Samples]] = defaultdict(list)
    counts: NDArray[np.uint16] | None = None
    for path, found in records.items():
        groups[found.method].append(found)
        if found.status == "ok":
            arrays = record.read_predictions(path, found)
            if counts is None:
                counts = resamples(images(arrays), RESAMPLES, BOOTSTRAP_SEED)
            _check_value(path, found, arrays)
            samples[found.method].append(bootstrap(arrays, counts))
    means = {method: np.mean(drawn, axis=0) for method, drawn in samples.items()}
    rows = [_row(method, groups, means, audited) for method in groups]
    ranked = sorted(rows, key=lambda r: (r.value is None, -(r.value.value if r.value else 0)))
    return Table(task, tuple(ranked))


def _check_value(path: Path, found: Record, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Refuse a record whose headline is not what its predictions give."""
    value = headline(arrays)
    if found.value is None or abs(found.value - value) > EXACT:
        raise UserError(
            f"{path}: says {found.value}, but its predictions give {value:.4f}; "
            "delete it and run again"
        )


def _row(
    method: str,
    groups: Mapping[str, list[Record]],
    means: Mapping[str, Samples],
    audited: Audit | None,
) -> Row:
    """A method's row from the bootstrap samples of all methods, mean over seeds."""
    row = Row(method, tuple(sorted(groups[method], key=lambda r: r.seed)))
    values = {m: float(np.mean([r.value for r in groups[m] if r.status == "ok"])) for m in means}
    if method not in means:
        return row

    def difference(of: str, minus: str) -> Estimate | None:
        if of not in means or minus not in means:
            return None
        return _estimate(values[of] - values[minus], means[of] - means[minus])

    untrained = _untrained(row, groups)
    over = {name: difference(method, name) for name in (FLOOR, untrained) if name}
    whole = values[CEILING] - values[FLOOR] if {CEILING, FLOOR} <= values.keys() else None
    return Row(
        method,
        row.records,
        value=_estimate(values[method], means[method]),
        gap=difference(CEILING, method),
        over_floor=over[FLOOR],
        untrained=untrained,
        over_untrained=over[untrained] if untrained else None,
        closed=(values[method] - values[FLOOR]) / whole if whole else None,
        flags=(*_flags(row, over), *audit.flags(audited, row.scored)),
    )


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


def _estimate(value: float, samples: Samples) -> Estimate:
    return Estimate(value, *interval(samples, value))


def _flags(row: Row, over: Mapping[str, Estimate | None]) -> list[str]:
    flags = sorted({flag for found in row.scored for flag in found.flags})
    flags += [f"seed {found.seed} failed" for found in row.records if found.status != "ok"]
    varied = [r.pretraining.monitors.get("diversity", 1.0) for r in row.scored if r.pretraining]
    if min(varied, default=1.0) < COLLAPSED:
        flags.append("generated pictures collapsed")
    unconverged = sum(found.selection.get("unconverged", 0) for found in row.scored)
    if unconverged:
        flags.append(f"{unconverged} probe fits unconverged")
    for floor, difference in over.items():
        if difference is None or row.method.startswith(FLOOR):
            continue
        if difference.high < 0:
            flags.append(f"below {floor}")
        elif difference.low <= 0:
            flags.append(f"not distinguishable from {floor}")
    return flags


COLUMNS: dict[str, Any] = {
    "task": lambda t, r: t.task,
    "task_version": lambda t, r: t.example.task_version,
    "method": lambda t, r: r.method,
    "seeds": lambda t, r: len(r.scored),
    "metric": lambda t, r: t.example.metric,
    **{
        f"{name}{end}": (lambda t, r, n=name, p=part: getattr(getattr(r, n), p, None))
        for name in ("value", "gap", "over_floor", "over_untrained")
        for end, part in {"": "value", "_low": "low", "_high": "high"}.items()
    },
    "untrained": lambda t, r: r.untrained,
    "closed": lambda t, r: r.closed,
    "candidates": lambda t, r: r.mean(lambda x: x.selection["candidates"]),
    "optimism": lambda t, r: r.mean(lambda x: x.scores.get("optimism")),
    "images_seen": lambda t, r: r.mean(lambda x: x.pretraining.images_seen),
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
