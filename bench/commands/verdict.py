"""What changed in a cell that was run again: a verdict, its messages, and its rows in the terminal.

Exact on any machine: the metric gives the recorded value for the recorded predictions and the new
value for the new ones, the test images are the same, and so is what rounding cannot move
(`results.changes`).

A score may move: the same seed on the same machine gives the same bytes, but other machines and
library versions round otherwise, and training amplifies that to another training run. So a score
may differ by what two runs differ by, where their spread is known (`bench.statistics.model`).
Where it is not, it may differ by the paired interval of new less reference over the test images.
Either is taken so wide that all cells together pass with 99% (`FALSE_ALARM`). What a leaderboard
would not print (`PRINTED`) never counts. Where a frozen encoder has the same weights nothing
amplifies rounding, so the scores of the images must be the same too, as `ALIKE` says.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich import box
from rich.table import Table as Grid
from scipy.special import ndtri

from bench.commands.compare import Arrays, contrast, same_images
from bench.commands.request import Cell
from bench.errors import one_line
from bench.metrics import registry
from bench.metrics.average_precision import Floats
from bench.reporting.format import signed_interval
from bench.results import storage
from bench.results.changes import Change, method_changes, task_changes, version_changes
from bench.results.record import Record
from bench.statistics.cache import EXACT
from bench.statistics.intervals import LEVEL, Estimate
from bench.statistics.training_runs import Runs

FALSE_ALARM = 0.01  # chance that any cell of a check is beyond its tolerance without a fault
ALIKE = 0.995  # least correlation of a class's scores, median of the classes; see docs/checks.md
PRINTED = 0.05  # points: half of a leaderboard's last digit
KINDS = ("methods", "tasks")
MIN_SHARED = 3  # plug-ins that change alike before the harness is named instead

Stored = tuple[Path, Record]  # a record and its path


@dataclass(frozen=True)
class Verdict:
    """One cell, beside its reference.

    Attributes:
        suite: its name.
        cell: method x task x seed.
        processes: how many it ran on.
        before: the reference's value, points.
        after: the value now; None if it failed.
        difference: after less before, paired; None where they cannot be compared.
        tolerance: by how many points it may differ.
        changes: what is not as in the reference.
        same: whether the predictions are the same bytes.
        trained: the plug-ins that train a network in the reference.
    """

    suite: str
    cell: Cell
    processes: int
    before: float | None
    after: float | None
    difference: Estimate | None = None
    tolerance: float = 0.0
    changes: tuple[Change, ...] = ()
    same: bool = False
    trained: frozenset[str] = frozenset()


def false_alarms(runs: Mapping[Path, Runs]) -> dict[Path, float]:
    """The chance of a false alarm that each cell may have, `FALSE_ALARM` in all.

    Cells whose runs are known to vary share one half of it, the others the other half: those hardly
    change at all, and must not make these blind.
    """
    varies = {path: bool(row.spread and row.spread.varies) for path, row in runs.items()}
    counts = Counter(varies.values())
    return {path: FALSE_ALARM / 2 / counts[varies[path]] for path in runs}


def process_count(record: Record) -> int:
    """Number of processes that a cell was run on."""
    return int(record.environment.get("processes", 1))


def judge(old: Stored, new: Stored, runs: Runs, false_alarm: float = FALSE_ALARM) -> Verdict:
    """Compare a cell with its reference.

    Args:
        old: the reference.
        new: the same cell, run again.
        runs: what is known of the training runs of the row.
        false_alarm: chance that another run without a fault is beyond the tolerance.

    Raises:
        UserError: predictions are missing or were changed.
    """
    before = old[1]
    after = new[1]
    cell = Cell(before.method, before.task, before.seed)
    method = f"methods/{before.method}.py"
    task = f"tasks/{before.task}.py"
    traces = {method: before.pretraining.trace, task: before.training}
    verdict = Verdict(
        suite=before.suite,
        cell=cell,
        processes=process_count(before),
        before=before.value,
        after=after.value,
        trained=frozenset(plugin for plugin, trace in traces.items() if trace),
    )
    changes = list(version_changes(before, after, method, task))
    if after.status != "ok":
        failure = Change(method, "failure", f"failed: {after.error}")
        return replace(verdict, changes=(*changes, failure))
    if before.method_version != after.method_version:  # all else may have changed with it
        return replace(verdict, changes=tuple(changes))
    changes += method_changes(before, after, method)
    if before.task_version != after.task_version:
        return replace(verdict, changes=tuple(changes))
    changes += task_changes(before, after, task)
    arrays = storage.read_predictions(*old), storage.read_predictions(*new)
    wrong = _metric_changes(before, after, *arrays, task)
    if wrong:
        return replace(verdict, changes=(*changes, *wrong))
    difference = contrast([new], [old]).difference
    alike = likeness(before, arrays[0], after, arrays[1])
    if not alike >= ALIKE:
        text = f"the same weights give other scores: correlation {alike:.3f}"
        changes.append(Change(task, "scores", text))
    most = tolerance(difference, runs, false_alarm)
    if abs(difference.value) > most:
        text = f"the score changed by {difference.value:+.2f}, beyond its tolerance {most:.2f}"
        changes.append(Change(f"{method} or {task}", "score", text))
    return replace(
        verdict,
        difference=difference,
        tolerance=most,
        changes=tuple(changes),
        same=before.predictions == after.predictions,
    )


def tolerance(difference: Estimate, runs: Runs, false_alarm: float) -> float:
    """Points by which a score may differ from its reference.

    Args:
        difference: new less reference, over test images alone.
        runs: what is known of the training runs of the row.
        false_alarm: see `judge`.
    """
    assert difference.interval is not None
    if runs.spread and runs.spread.varies:
        two_runs = 0.5  # their difference has twice the variance of one run
        return max(PRINTED, float(runs.spread.quantiles([1 - false_alarm / 2], two_runs)[0]))
    value = difference.value
    half = value - difference.interval.low if value > 0 else difference.interval.high - value
    wider = float(ndtri(1 - false_alarm / 2) / ndtri((1 + LEVEL) / 2))
    return max(PRINTED, wider * half)


def _metric_changes(
    before: Record, after: Record, old: Arrays, new: Arrays, task: str
) -> list[Change]:
    """Whether metric and test images are what they were."""
    if before.metric != after.metric:
        return [Change(task, "metric", f"changed from {before.metric} to {after.metric}")]
    metric = registry.get(before.metric)
    for record, arrays, whose in ((before, old, "reference's"), (after, new, "new")):
        value = registry.value(metric, arrays)
        if record.value is None or not abs(value - record.value) <= EXACT:
            text = f"the {whose} predictions give {value:.4f}, its record has {record.value}"
            return [Change(f"bench/metrics ({metric.name})", "metric", text)]
    if not same_images(before, old, after, new):
        return [Change(task, "test images", "other test images: make a new reference")]
    return []


def likeness(before: Record, old: Arrays, after: Record, new: Arrays) -> float:
    """Correlation of the scores that one frozen encoder gets, median of the classes.

    1 where the weights differ, or the task trains a network.
    """
    weights = {record.encoder and record.encoder.weights_sha256 for record in (before, after)}
    if len(weights) > 1 or before.training or "scores" not in old:
        return 1.0
    if old["scores"].shape != new["scores"].shape:
        return 0.0
    columns = zip(old["scores"].T, new["scores"].T, strict=True)
    return float(np.median([_correlation(a.ravel(), b.ravel()) for a, b in columns]))


def _correlation(a: Floats, b: Floats) -> float:
    if not a.std() or not b.std():
        return float(np.array_equal(a, b))
    return float(np.corrcoef(a, b)[0, 1])


def table(verdicts: Sequence[Verdict]) -> Grid:
    """The verdicts as a table."""
    grid = Grid(box=box.SIMPLE)
    headings = ("cell", "reference", "now", "difference (95% CI)", "tolerance", "verdict")
    for heading in headings:
        grid.add_column(heading, justify="left" if heading in ("cell", "verdict") else "right")
    for row in verdicts:
        values = ["-" if value is None else f"{value:.2f}" for value in (row.before, row.after)]
        tolerance = f"{row.tolerance:.2f}" if row.difference else "-"
        unchanged = "same bytes" if row.same else "within tolerance"
        outcome = "CHANGED" if row.changes else unchanged
        difference = signed_interval(row.difference)
        grid.add_row(_name(row), *values, difference, tolerance, outcome)
    return grid


def _name(row: Verdict) -> str:
    on = "" if row.processes == 1 else f", {row.processes} processes"
    return f"{row.suite}: {row.cell}{on}"


def messages(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Every change once, with the plug-in that it concerns and what to do.

    What changed in the same way in every plug-in of a kind is the harness's doing.
    """
    plugins_of: dict[str, set[str]] = defaultdict(set)
    rows_of: dict[Change, list[str]] = defaultdict(list)
    for row in verdicts:
        for change in row.changes:
            plugins_of[change.what].add(change.plugin)
            rows_of[change].append(_name(row))
    trained = frozenset[str]().union(*(row.trained for row in verdicts))
    shared = {what for what, names in plugins_of.items() if _concerns_all(what, names, trained)}
    for what in sorted(shared):
        example = next(change for change in rows_of if change.what == what)
        yield one_line(
            f"{what}: changed in all {len(plugins_of[what])} plug-ins, so it is the harness, not "
            f"one of them ({example.plugin}: {example.text}): undo the change, or raise the "
            "version of each"
        )
    for change, rows in rows_of.items():
        if change.what in shared:
            continue
        where = rows[0] if len(rows) == 1 else f"{rows[0]} and {len(rows) - 1} more"
        yield one_line(f"{change.plugin}: {change.what}: {change.text} ({where}): {change.hint}")


def _concerns_all(what: str, changed: Set[str], trained: Set[str]) -> bool:
    """Whether all methods or all tasks that train a network have a change, and there are several.

    Args:
        what: the kind of change.
        changed: the plug-ins that have one.
        trained: the plug-ins that train a network in the reference.
    """
    if what in ("score", "scores", "failure", "version"):
        return False
    for kind in KINDS:
        names = {name for name in trained if name.startswith(f"{kind}/")}
        if len(names) >= MIN_SHARED and names <= changed:
            return True
    return False
