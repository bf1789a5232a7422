"""Leaderboards: rows, ranks and pairs of one suite, a pure function of records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.config.schema import Suite
from bench.errors import UserError
from bench.metrics.average_precision import Floats
from bench.reporting import csv, latex
from bench.reporting.rows import Pair, Row, Table
from bench.reporting.warnings import warnings
from bench.results import audit, comparability, storage
from bench.results.audit import Audit
from bench.results.record import Record
from bench.results.storage import Problem
from bench.statistics import intervals
from bench.statistics.cache import EXACT, SEED, Resampled, all_resampled_scores
from bench.statistics.intervals import ConfidenceInterval, Estimate

if TYPE_CHECKING:
    import pandas as pd

PLAIN = ["rgb"]  # the inputs of the encoder that is the baseline of every row
NOTHING = Estimate(0.0, ConfidenceInterval(0.0, 0.0))

Records = Mapping[Path, Record]


@dataclass(frozen=True)
class Leaderboard:
    """Every task of one suite.

    Attributes:
        suite: its name.
        sha256: of what its rows share.
        settings: of the suite, less single tasks and methods.
        tables: one for each task.
        audit: of near-duplicates among the images, where there is one.
        problems: the records that were left out.
    """

    suite: str
    sha256: str
    settings: Suite
    tables: tuple[Table, ...] = ()
    audit: Audit | None = None
    problems: tuple[Problem, ...] = ()

    def failed(self, methods: Collection[str], tasks: Collection[str]) -> bool:
        """Whether any cell of some methods and tasks failed."""
        rows = [row for t in self.tables if t.task in tasks for row in t.rows]
        return any(row.status != "ok" for row in rows if row.method in methods)

    def to_dataframe(self) -> pd.DataFrame:
        """One row per task and method, with the columns of leaderboard.csv."""
        import pandas as pd

        types = csv.dtypes()
        return pd.DataFrame(csv.rows(self.tables), columns=list(types)).astype(types)

    def pairs_dataframe(self) -> pd.DataFrame:
        """One row per task and ordered pair of scored methods: `method` less `other`, in points."""
        import pandas as pd

        rows = [
            {
                "task": table.task,
                "method": method,
                "other": other,
                "difference": pair.difference.value,
                "low": pair.difference.low,
                "high": pair.difference.high,
                "p_better": pair.p_better,
            }
            for table in self.tables
            for (method, other), pair in table.pairs.items()
        ]
        names = ("task", "method", "other", "difference", "low", "high", "p_better")
        return pd.DataFrame(rows, columns=list(names))

    def to_latex(self, task: str | None = None) -> str:
        """A booktabs table with intervals.

        Args:
            task: its main columns; None for the gap of every method in every task.

        Raises:
            UserError: there is no such task.
        """
        return latex.render(self.tables, task)


def load(folder: Path, cache: Path | None = None) -> Leaderboard:
    """Read every record below OUT/SUITE and compute the leaderboard.

    A record that cannot be used is left out and named in `problems`.

    Args:
        folder: OUT/SUITE.
        cache: where resampled scores are kept; None computes them.

    Raises:
        UserError: there is no record that can be used, or they do not belong in one table.
    """
    records, problems = storage.read_valid(folder)
    scores, errors = all_resampled_scores(records, cache)
    problems += [storage.problem(path, folder, error) for path, error in errors.items()]
    usable = {p: _with_images(p, record) for p, record in records.items() if p not in errors}
    problems.sort(key=lambda problem: problem.path)
    if not usable:
        nothing = f"{folder}: contains no records; make some with bench run"
        raise UserError(str(problems[0]) if problems else nothing)
    comparability.check_suite(usable, folder)
    return build(usable, scores, audit.read(folder), problems)


def _with_images(path: Path, record: Record) -> Record:
    """The record, less the images that are not beside it: their terms may forbid copies."""
    files = {"samples": record.samples, "predictions_image": record.predictions_image}
    absent = [key for key, name in files.items() if name and not path.with_name(name).exists()]
    return record.model_copy(update=dict.fromkeys(absent)) if absent else record


def build(
    records: Records,
    scores: Mapping[Path, Resampled],
    audited: Audit | None = None,
    problems: Sequence[Problem] = (),
) -> Leaderboard:
    """The leaderboard of records of one suite.

    Args:
        records: at least one.
        scores: of every scored record, whole and resampled.
        audited: of the suite, where there is one.
        problems: the records that were left out.

    Raises:
        UserError: they do not belong in one table.
    """
    by_task: dict[str, dict[Path, Record]] = defaultdict(dict)
    for path, record in records.items():
        by_task[record.task][path] = record
    tables = tuple(_table(task, by_task[task], scores, audited) for task in sorted(by_task))
    first = next(iter(records.values()))
    settings = first.suite_settings
    return Leaderboard(first.suite, first.suite_sha256, settings, tables, audited, tuple(problems))


@dataclass(frozen=True)
class _Scores:
    """The main scores of a table by method: means over seeds, and their samples if there are any.

    The metric of a table is known, and then every row has samples, or it is not.
    """

    values: Mapping[str, float]
    samples: Mapping[str, Floats]
    pairs: Mapping[tuple[str, str], Pair]
    reason: str

    def value(self, method: str) -> Estimate:
        """The score of a method, its interval cut at the ends of the scale."""
        if not self.samples:
            return Estimate(self.values[method])
        low, high = intervals.interval(self.samples[method], self.values[method])
        interval = ConfidenceInterval(max(low, 0.0), min(high, 100.0))
        return Estimate(self.values[method], interval)

    def difference(self, method: str | None, other: str | None) -> Estimate | None:
        """The score of a method less that of another; None without one of the two."""
        if method is None or other is None:
            return None
        if not self.samples:
            return Estimate(self.values[method] - self.values[other])
        return NOTHING if method == other else self.pairs[method, other].difference


def _table(
    task: str, records: Records, resampled: Mapping[Path, Resampled], audited: Audit | None
) -> Table:
    comparability.check_table(records, task)
    groups: dict[str, list[tuple[Path, Record]]] = defaultdict(list)
    for path, record in records.items():
        groups[record.method].append((path, record))
    sizes = {resampled[p].num_images: p for p, r in records.items() if r.status == "ok"}
    comparability.check_sizes(sizes)
    scores = _scores(groups, resampled)
    order = sorted(groups, key=lambda m: (m not in scores.values, -scores.values.get(m, 0.0)))
    rows = [Row(m, tuple(sorted((r for _, r in groups[m]), key=lambda r: r.seed))) for m in order]
    table = Table(
        task=task,
        rows=tuple(rows),
        reference=_reference(rows),
        baseline=_baseline(rows, PLAIN),
        num_images=next(iter(sizes), 0),
        pairs=scores.pairs,
    )
    nexts = dict(pairwise(row.method for row in rows if row.scored))
    filled = (_fill(r, table, scores, nexts.get(r.method), audited) for r in rows if r.scored)
    return replace(table, rows=(*filled, *(row for row in rows if not row.scored)))


def _scores(
    groups: Mapping[str, Sequence[tuple[Path, Record]]], resampled: Mapping[Path, Resampled]
) -> _Scores:
    values: dict[str, float] = {}
    samples: dict[str, Floats] = {}
    reason = ""
    for method, seeds in groups.items():
        scored = [(record, resampled[path]) for path, record in seeds if record.status == "ok"]
        known = [scores.values for _, scores in scored if scores.values is not None]
        if known:
            values[method] = float(np.mean([each[0] for each in known]))
            samples[method] = intervals.combine_seeds(
                [each[0] for each in known],
                [each[1:] for each in known],
                [SEED, *method.encode()],  # no other row's: seeds are not paired
            )
        elif scored:
            values[method] = float(np.mean([record.value for record, _ in scored]))
            reason = scored[0][1].reason
    return _Scores(values, samples, _pairs(values, samples), reason)


def _pairs(
    values: Mapping[str, float], samples: Mapping[str, Floats]
) -> dict[tuple[str, str], Pair]:
    """Every ordered pair of two scored rows."""
    pairs = {}
    for method in samples:
        for other in samples:
            if method != other:
                value = values[method] - values[other]
                difference = samples[method] - samples[other]
                if abs(value) < EXACT and np.nanmax(np.abs(difference)) < EXACT:
                    value = 0.0  # equal but for rounding
                    difference = np.zeros_like(difference)
                estimate = intervals.estimate(value, difference)
                pairs[method, other] = Pair(estimate, intervals.probability_above(difference))
    return pairs


def _reference(rows: Iterable[Row]) -> str | None:
    """The row that gaps are measured from; of several the first by name."""
    names = [row.method for row in rows if row.role == "reference" and row.scored]
    return min(names, default=None)


def _baseline(rows: Iterable[Row], inputs: list[str] | None, other_than: str = "") -> str | None:
    """The untrained row whose encoder has these inputs, the first by name.

    All rows of a table have one backbone, see `comparability.check_table`.
    """
    names = [
        row.method
        for row in rows
        if row.role == "untrained" and row.inputs == inputs and row.scored
    ]
    return min((name for name in names if name != other_than), default=None)


def _fill(
    row: Row, table: Table, scores: _Scores, following: str | None, audited: Audit | None
) -> Row:
    """A scored row with everything that is computed from the other rows."""
    method = row.method
    reference = table.reference
    baseline = table.baseline
    matched = _baseline(table.rows, row.inputs, method)
    gain = scores.difference(method, baseline)
    matched_gain = scores.difference(method, matched)
    gains = {} if row.role == "untrained" else {baseline: gain, matched: matched_gain}
    others = [pair.difference for (one, _), pair in table.pairs.items() if one == method]
    ends = [difference.interval for difference in others if difference.interval]
    row = replace(
        row,
        value=scores.value(method),
        gap=scores.difference(reference, method),
        gain=gain,
        matched_baseline=matched,
        matched_gain=matched_gain,
        gap_closed=_gap_closed(method, reference, baseline, scores),
        rank=1 + sum(end.high < 0 for end in ends) if scores.samples else None,
        last_rank=len(scores.values) - sum(e.low > 0 for e in ends) if scores.samples else None,
        p_better=table.pairs[method, following].p_better if following and scores.samples else None,
    )
    known = {name: gain for name, gain in gains.items() if name and gain}
    texts = [*warnings(row.records, known), *audit.warnings(audited, row.scored)]
    texts += [f"no interval: {scores.reason}"] if scores.reason else []
    return replace(row, warnings=tuple(texts))


def _gap_closed(
    method: str, reference: str | None, baseline: str | None, scores: _Scores
) -> Estimate | None:
    if not scores.samples or reference is None or baseline is None:
        return None
    samples = scores.samples
    values = scores.values
    part = samples[method] - samples[baseline]
    whole = samples[reference] - samples[baseline]
    interval = intervals.ratio_interval(part, whole)
    distance = values[reference] - values[baseline]
    if interval is None or not distance:
        return None
    return Estimate((values[method] - values[baseline]) / distance, interval)
