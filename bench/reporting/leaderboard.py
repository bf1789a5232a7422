"""Leaderboards: rows, ranks and pairs of one suite, a pure function of records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from bench.config.schema import Suite
from bench.errors import UserError
from bench.reporting import csv, latex
from bench.reporting.rows import Row, Table
from bench.reporting.warnings import warnings
from bench.results import audit, comparability, storage
from bench.results.audit import Audit
from bench.results.record import Record
from bench.results.storage import Problem
from bench.statistics import calibration, intervals
from bench.statistics.cache import Resampled, all_resampled_scores
from bench.statistics.calibration import Uncertainty
from bench.statistics.intervals import Estimate
from bench.statistics.rank_correlation import RankCorrelation, rank_correlation
from bench.statistics.scores import Scores, score_rows
from bench.statistics.simultaneous import Ranks

if TYPE_CHECKING:
    import pandas as pd

PLAIN = ["rgb"]  # the inputs of the encoder that is the baseline of every row

Records = Mapping[Path, Record]


@dataclass(frozen=True)
class Leaderboard:
    """Every task of one suite.

    Attributes:
        suite: its name.
        sha256: of what its rows share.
        settings: of the suite, less single tasks and methods.
        tables: one for each task and backbone; of a task, that of the suite's backbone first.
        audit: of near-duplicates among the images, where there is one.
        problems: the records that were left out.
        scores: of each table, in order, for the rank correlations; empty for a page without them.
    """

    suite: str
    sha256: str
    settings: Suite
    tables: tuple[Table, ...] = ()
    audit: Audit | None = None
    problems: tuple[Problem, ...] = ()
    scores: tuple[Scores, ...] = field(default=(), compare=False, repr=False)

    @cached_property
    def correlations(self) -> Mapping[tuple[str, str], RankCorrelation]:
        """Of any two tasks on the suite's backbone, over the methods pretrained here."""
        scored = zip(self.tables, self.scores, strict=bool(self.scores))
        own = [(table, scores) for table, scores in scored if not table.backbone]
        return {
            (table.task, other.task): rank_correlation(
                scores.rows,
                other_scores.rows,
                [row.method for row in table.rows if row.role == "pretrained"],
            )
            for (table, scores), (other, other_scores) in combinations(own, 2)
        }

    def failed(self, cells: Iterable[tuple[str, str, int]]) -> bool:
        """Whether any of some cells, (task, method, seed), has no score here."""
        records = [record for t in self.tables for row in t.rows for record in row.scored]
        return not {*cells} <= {(record.task, record.method, record.seed) for record in records}

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

    def correlations_dataframe(self) -> pd.DataFrame:
        """One row per pair of tasks: Kendall's tau-b of `task` and `other`, with its interval.

        Pairs without a number, see `RankCorrelation`, are left out.
        """
        import pandas as pd

        rows = [
            {
                "task": task,
                "other": other,
                "tau_b": found.estimate.value,
                "low": found.estimate.low,
                "high": found.estimate.high,
                "methods": len(found.methods),
            }
            for (task, other), found in self.correlations.items()
            if found.estimate
        ]
        names = ("task", "other", "tau_b", "low", "high", "methods")
        return pd.DataFrame(rows, columns=list(names))

    def to_latex(self, task: str | None = None) -> str:
        """Booktabs tables with intervals.

        Args:
            task: its main columns, one table for each backbone, or the name of one table alone;
                None for the gap of every method in every task.

        Raises:
            UserError: there is no such task or table.
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
    usable = {p: _with_images(p, r).printable() for p, r in records.items() if p not in errors}
    problems.sort(key=lambda problem: problem.path)
    if not usable:
        nothing = f"{folder}: contains no records; make some with bench run"
        raise UserError(str(problems[0]) if problems else nothing)
    comparability.check_suite(usable, folder)
    first = next(iter(usable.values()))
    uncertainty = calibration.read(folder, first.suite, first.suite_sha256)
    return build(usable, scores, uncertainty, audit.read(folder), problems)


def _with_images(path: Path, record: Record) -> Record:
    """The record, less the images that are not beside it: their terms may forbid copies."""
    files = {"samples": record.samples, "predictions_image": record.predictions_image}
    absent = [key for key, name in files.items() if name and not path.with_name(name).exists()]
    return record.model_copy(update=dict.fromkeys(absent)) if absent else record


def build(
    records: Records,
    scores: Mapping[Path, Resampled],
    uncertainty: Uncertainty | None = None,
    audited: Audit | None = None,
    problems: Sequence[Problem] = (),
) -> Leaderboard:
    """The leaderboard of records of one suite.

    Args:
        records: at least one.
        scores: of every scored record, whole and resampled.
        uncertainty: the calibration of the suite, where there is one.
        audited: of the suite, where there is one.
        problems: the records that were left out.

    Raises:
        UserError: they do not belong in one table.
    """
    groups: dict[tuple[str, str], dict[Path, Record]] = defaultdict(dict)
    for path, record in records.items():
        groups[record.task, record.other_backbone][path] = record
    made = [
        _table(*key, group, scores, uncertainty, audited) for key, group in sorted(groups.items())
    ]
    first = next(iter(records.values()))
    return Leaderboard(
        first.suite,
        first.suite_sha256,
        first.suite_settings,
        tuple(table for table, _ in made),
        audited,
        tuple(problems),
        tuple(found for _, found in made),
    )


def _table(
    task: str,
    backbone: str,
    records: Records,
    resampled: Mapping[Path, Resampled],
    uncertainty: Uncertainty | None,
    audited: Audit | None,
) -> tuple[Table, Scores]:
    comparability.check_table(records, task)
    groups: dict[str, list[tuple[Path, Record]]] = defaultdict(list)
    for path, record in records.items():
        groups[record.method].append((path, record))
    sizes = {resampled[p].num_images: p for p, r in records.items() if r.status == "ok"}
    comparability.check_sizes(sizes)
    truths: dict[str, Path] = {}
    for path in records:
        if path in resampled and resampled[path].truth:
            truths.setdefault(resampled[path].truth, path)
    comparability.check_truths(truths)
    calibrated = calibration.task(uncertainty, next(iter(records.values())))
    scores = score_rows(groups, resampled, calibrated)
    order = sorted(groups, key=lambda m: (m not in scores.values, -scores.values.get(m, 0.0)))
    rows = [Row(m, tuple(sorted((r for _, r in groups[m]), key=lambda r: r.seed))) for m in order]
    baseline = _baseline(rows, PLAIN)
    table = Table(
        task=task,
        rows=tuple(rows),
        backbone=backbone,
        reference=_reference(rows),
        baseline=baseline,
        num_images=next(iter(sizes), 0),
        pairs=scores.pairs,
        above_baseline=_above(baseline, rows, scores),
    )
    ranks = _ranks(scores)
    nexts = dict(pairwise(row.method for row in rows if row.scored))
    filled = (
        _fill(r, table, scores, ranks.get(r.method), nexts.get(r.method), audited)
        for r in rows
        if r.scored
    )
    failed = (row for row in rows if not row.scored)
    return replace(table, rows=(*filled, *failed)), scores


def _ranks(scores: Scores) -> dict[str, Ranks]:
    """The ranks of the rows of which any can be claimed: of one row alone there are none."""
    ranks = scores.ranks()
    return ranks if len(ranks) > 1 else {}


def _above(baseline: str | None, rows: Iterable[Row], scores: Scores) -> frozenset[str] | None:
    """The pretrained rows above the baseline, jointly; None where nothing can be said."""
    names = [r.method for r in rows if r.role == "pretrained" and scores.known(r.method, baseline)]
    return scores.above(baseline, names) if baseline and names else None


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
    row: Row,
    table: Table,
    scores: Scores,
    ranks: Ranks | None,
    following: str | None,
    audited: Audit | None,
) -> Row:
    """A scored row with everything that is computed from the other rows."""
    method = row.method
    reference = table.reference
    baseline = table.baseline
    matched = _baseline(table.rows, row.inputs, method)
    gain = scores.difference(method, baseline)
    matched_gain = scores.difference(method, matched)
    gains = {} if row.role == "untrained" else {baseline: gain, matched: matched_gain}
    row = replace(
        row,
        value=scores.value(method),
        gap=scores.difference(reference, method),
        gain=gain,
        matched_baseline=matched,
        matched_gain=matched_gain,
        gap_closed=_gap_closed(method, reference, baseline, scores),
        ranks=ranks,
        own_ranks=_own_ranks(method, table) if ranks else None,
        p_better=table.pairs[method, following].p_better if following and scores.rows else None,
        runs=scores.runs[method],
        shares=scores.rows[method].shares if scores.rows else {},
        sd=scores.rows[method].sd if scores.rows else None,
    )
    known = {n: gain for n, gain in gains.items() if n and gain and scores.known(method, n)}
    texts = [*_classes_of_its_own(row, table), *warnings(row.records, row.value, known)]
    texts += [*audit.warnings(audited, row.scored)]
    texts += [f"no interval: {scores.reason}"] if scores.reason else []
    return replace(row, warnings=tuple(texts))


def _classes_of_its_own(row: Row, table: Table) -> list[str]:
    """A warning of classes that are in its mean and not in that of every row."""
    scored = [record.per_class for other in table.rows for record in other.scored]
    odd = {name for name in row.per_class if any(name not in each for each in scored)}
    names = ", ".join(sorted(odd))
    return [f"its mean counts {names}, which that of another row does not"] if odd else []


def _own_ranks(method: str, table: Table) -> Ranks:
    """The ranks of a row by the interval of each of its pairs."""
    tested = [p for (a, _), p in table.pairs.items() if a == method and p.p_better is not None]
    ends = [pair.difference.interval for pair in tested if pair.difference.interval]
    worse = sum(end.low > 0 for end in ends)
    return Ranks(1 + sum(end.high < 0 for end in ends), len(ends) + 1 - worse)


def _gap_closed(
    method: str, reference: str | None, baseline: str | None, scores: Scores
) -> Estimate | None:
    if not scores.rows or reference is None or baseline is None:
        return None
    row, top, base = (scores.rows[name] for name in (method, reference, baseline))
    interval = intervals.ratio_interval(row.samples - base.samples, top.samples - base.samples)
    distance = top.value - base.value
    if interval is None or not distance:
        return None
    images = None
    if row.varies or top.varies or base.varies:
        images = intervals.ratio_interval(row.images - base.images, top.images - base.images)
    return Estimate((row.value - base.value) / distance, interval, images)
