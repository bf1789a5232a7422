"""`bench check`: do the numbers of a reference still come out? The gate of behavior.

Versions decide what is up to date. This command watches that a version is raised where a number
may change. It runs the cells of a reference again, with nothing from the cache but the rendered
images, and compares what rounding cannot move: order and pixels of the first batches, the learning
rate of every step, the optimizers, the views counted, the losses and descents of the first ten
steps, the data, the number of settings tried (`results.changes`). It runs a cell on as many
processes as its reference was run.

Exact on any machine, too: the metric gives the recorded value for the recorded predictions and the
new value for the new ones, and the test images are the same.

A score may move: the same seed on the same machine gives the same bytes, but other machines and
library versions round otherwise, and training amplifies that to another training run. So elsewhere
a score may differ by what two runs differ by, where their spread is known
(`bench.statistics.model`). On the same machine, and where it is not known, it may differ by the
paired interval of new less reference over the test images. Either is taken so wide that all cells
together pass with 99% (`FALSE_ALARM`). What a leaderboard would not print (`PRINTED`) never counts.
Where a frozen encoder has the same weights nothing amplifies rounding, so the scores of the images
must be the same too, as `ALIKE` says. Imports torch only to compute.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table as Grid
from scipy.special import ndtri

from bench.commands import plan
from bench.commands.compare import Arrays, contrast, read_rows, runs_of, same_images
from bench.commands.request import Cell, Locations, Request, suite_of
from bench.config.loader import read_toml, to_toml
from bench.config.schema import Suite
from bench.errors import UserError, unknown
from bench.metrics import registry
from bench.metrics.average_precision import Floats
from bench.reporting.format import signed_interval
from bench.results import storage
from bench.results.changes import Change, method_changes, task_changes, version_changes
from bench.results.record import Record
from bench.runtime.progress import Reporter
from bench.statistics.cache import EXACT
from bench.statistics.intervals import LEVEL, Estimate
from bench.statistics.scores import IMAGES_ONLY
from bench.statistics.training_runs import Runs

ORDER = "order.toml"  # beside the suites' folders: [SUITE] TASK = [METHOD above METHOD above ...]
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


@dataclass(frozen=True)
class Pair:
    """Two rows of which the first is declared to be above the second.

    Attributes:
        suite: theirs.
        task: theirs.
        above: the method declared to be above.
        below: the other.
        difference: the first less the second, paired, in points; None if one of them failed.
    """

    suite: str
    task: str
    above: str
    below: str
    difference: Estimate | None = None

    @property
    def holds(self) -> bool:
        """Whether the first is above the second."""
        return self.difference is not None and self.difference.value > 0


def check(
    reference: Path, locations: Locations, reporter: Reporter
) -> tuple[list[Verdict], list[Pair]]:
    """Run the cells of a reference, and compare each with it.

    Args:
        reference: has SUITE/TASK/METHOD/seedK.json and perhaps order.toml.
        locations: where the cells are run; what is up to date in `out` is taken.
        reporter: for progress.

    Returns:
        A verdict for each cell, and the outcome of each declared pair.

    Raises:
        UserError: the reference, the data or the output folder cannot be used.
    """
    records = _read_reference(reference, locations.out)
    declared = declared_order(reference / ORDER, records.values())
    groups: dict[tuple[str, str, int], list[Stored]] = defaultdict(list)
    for path, record in records.items():
        groups[record.suite, record.suite_sha256, _processes(record)].append((path, record))
    runs = _training_runs(reference)
    alarms = false_alarms(runs)
    verdicts: list[Verdict] = []
    rows: dict[tuple[str, str, str], list[Stored]] = defaultdict(list)
    for group in groups.values():
        with tempfile.TemporaryDirectory() as folder:  # no group uses what another one left
            fresh = replace(locations, cache=_fresh_cache(locations.cache, Path(folder)))
            for old, new in _rerun(group, fresh, reporter):
                verdicts.append(judge(old, new, runs[old[0]], alarms[old[0]]))
                if new[1].status == "ok":
                    rows[new[1].suite, new[1].task, new[1].method].append(new)
    known = {(o.suite, o.task, o.method): runs[path] for path, o in records.items()}
    return verdicts, [_settle(pair, rows, known) for pair in declared]


def _read_reference(reference: Path, out: Path) -> dict[Path, Record]:
    records = {path: storage.read(path) for path in sorted(reference.glob("*/*/*/seed*.json"))}
    if not records:
        raise UserError(f"--reference {reference}: has no records; make some with bench run")
    if out.resolve() == reference.resolve():
        raise UserError(f"--out {out}: is the reference itself; use another")
    for path, record in records.items():
        if record.status != "ok":
            raise UserError(f"{path}: failed; a reference has finished cells only")
        storage.predictions_file(path, record)  # complete, before hours are spent
    return records


def _training_runs(reference: Path) -> dict[Path, Runs]:
    """What is known of the training runs of the row of each record."""
    return {
        path: runs_of(rows, row, folder)
        for folder in sorted({file.parents[2] for file in reference.glob("*/*/*/seed*.json")})
        for rows in [read_rows(folder)]
        for row, seeds in rows.items()
        for path, _ in seeds
    }


def false_alarms(runs: Mapping[Path, Runs]) -> dict[Path, float]:
    """The chance of a false alarm that each cell may have, `FALSE_ALARM` in all.

    Cells whose runs are known to vary share one half of it, the others the other half: those hardly
    change at all, and must not make these blind.
    """
    varies = {path: bool(row.spread and row.spread.varies) for path, row in runs.items()}
    counts = Counter(varies.values())
    return {path: FALSE_ALARM / 2 / counts[varies[path]] for path in runs}


def _processes(record: Record) -> int:
    return int(record.environment.get("processes", 1))


def _fresh_cache(cache: Path, folder: Path) -> Path:
    """An empty cache but for the rendered images: nothing old can hide a change."""
    scenes = cache / "scenes"
    scenes.mkdir(parents=True, exist_ok=True)
    fresh = folder / "cache"
    fresh.mkdir()
    (fresh / "scenes").symlink_to(scenes.resolve())
    return fresh


def _rerun(
    group: Sequence[Stored], locations: Locations, reporter: Reporter
) -> Iterator[tuple[Stored, Stored]]:
    """Each reference cell of one suite with its record of now."""
    processes = _processes(group[0][1])
    first = locations.request(group[0][1])
    out = locations.out if processes == 1 else locations.out / f"{processes}-processes"
    request = replace(first, suite=_merged([record for _, record in group]), out=out)
    cells = {Cell(r.method, r.task, r.seed): (path, r) for path, r in group}
    ordered = sorted(cells, key=lambda cell: (cell.method, cell.seed, cell.task))
    todo = [cell for cell in ordered if not plan.is_up_to_date(cell, request)]
    on = "" if processes == 1 else f" on {processes} processes"
    reporter.say(f"{request.suite.name}: {len(cells)} cells{on}, {len(todo)} to run")
    if todo:
        plan.check_tables(todo, request)
        _compute(todo, request, processes, reporter)
    for cell, old in cells.items():
        path = cell.path(request)
        yield old, (path, storage.read(path))


def _merged(records: Sequence[Record]) -> Suite:
    """The suite of several records: the recipes, tasks and data sets of all."""
    suites = [suite_of(record) for record in records]
    return suites[0].model_copy(
        update={
            key: {name: value for suite in suites for name, value in getattr(suite, key).items()}
            for key in ("datasets", "recipes", "tasks")
        }
    )


def _compute(todo: Sequence[Cell], request: Request, processes: int, reporter: Reporter) -> None:
    """Run cells in this process, or all in one command on several."""
    if processes == 1:
        from bench.commands.execute import compute

        compute(todo, request, reporter)
        return
    request.cache.mkdir(parents=True, exist_ok=True)
    file = request.cache / f"{request.suite.name}.toml"
    file.write_text(to_toml(request.suite.model_dump(mode="json", exclude_none=True)))
    for task, cells in itertools.groupby(sorted(todo, key=lambda c: c.task), lambda c: c.task):
        _launch(list(cells), task, file, request, processes)


def _launch(
    cells: Sequence[Cell], task: str, suite: Path, request: Request, processes: int
) -> None:
    """`bench run` of the cells of one task on several processes.

    Args:
        cells: those to run; theirs is every seed up to the highest.
        task: theirs.
        suite: the file of the suite.
        request: where to.
        processes: how many.

    Raises:
        UserError: the request cannot be run so. A cell that fails leaves a record that says so.
    """
    arguments = {
        "--methods": ",".join(dict.fromkeys(cell.method for cell in cells)),
        "--tasks": task,
        "--seeds": str(1 + max(cell.seed for cell in cells)),
        "--suite": str(suite),
        "--out": str(request.out),
        "--cache": str(request.cache),
        "--device": request.device,
    }
    if request.data_root:
        arguments["--data-root"] = str(request.data_root)
    flat = [part for pair in arguments.items() for part in pair]
    command = [*_launcher(processes), "run", *flat]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise UserError(f"{processes} processes could not be run: {last}")


def _launcher(processes: int) -> list[str]:
    """The command that starts `bench` on several processes."""
    launch = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [sys.executable, "-m", *launch, "-m", "bench"]


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
        processes=_processes(before),
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
    elsewhere = _machine(before) != _machine(after)
    most = tolerance(difference, runs if elsewhere else IMAGES_ONLY, false_alarm)
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


def _machine(record: Record) -> dict[str, Any]:
    """What a record says of the machine and the libraries that it was computed with."""
    own = ("harness", "commit", "dirty")  # of this project, whose changes are looked for
    return {key: value for key, value in record.environment.items() if key not in own}


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
    return float(np.median([_correlation(a, b) for a, b in columns]))


def _correlation(a: Floats, b: Floats) -> float:
    if not a.std() or not b.std():
        return float(np.array_equal(a, b))
    return float(np.corrcoef(a, b)[0, 1])


def declared_order(path: Path, records: Iterable[Record]) -> list[Pair]:
    """The pairs that order.toml declares; none without the file.

    Raises:
        UserError: it is not TOML of that form, or names what the reference does not have.
    """
    if not path.exists():
        return []
    known = {(record.suite, record.task, record.method) for record in records}
    declared = read_toml(path)
    pairs = []
    for suite, tasks in declared.items():
        for task, methods in tasks.items() if isinstance(tasks, dict) else [(suite, None)]:
            if not isinstance(methods, list) or len({*map(str, methods)}) < max(2, len(methods)):
                problem = "is not a list of two or more different methods in a [SUITE] table"
                raise UserError(f"{path}: '{task}' {problem}")
            for method in methods:
                if (suite, task, method) not in known:
                    names = ("/".join(key) for key in known)
                    problem = str(unknown("cell", f"{suite}/{task}/{method}", names))
                    raise UserError(f"{path}: {problem}")
            pairs += [Pair(suite, task, *two) for two in itertools.pairwise(methods)]
    return pairs


def _settle(
    pair: Pair,
    rows: Mapping[tuple[str, str, str], list[Stored]],
    runs: Mapping[tuple[str, str, str], Runs],
) -> Pair:
    names = [(pair.suite, pair.task, method) for method in (pair.above, pair.below)]
    sides = [rows.get(name) for name in names]
    if not sides[0] or not sides[1]:
        return pair
    found = contrast(sides[0], sides[1], runs[names[0]], runs[names[1]])
    return replace(pair, difference=found.difference)


def failed(verdicts: Iterable[Verdict], pairs: Iterable[Pair]) -> bool:
    """Whether anything changed, or the declared order no longer holds."""
    return any(v.changes for v in verdicts) or not all(pair.holds for pair in pairs)


def render(verdicts: Sequence[Verdict], pairs: Sequence[Pair]) -> Iterator[Grid | str]:
    """What the terminal shows."""
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
    yield grid
    yield from messages(verdicts)
    for pair in pairs:
        outcome = _order_text(pair)
        where = f"{pair.suite}, {pair.task}: {pair.above} less {pair.below}"
        yield f"{where}: {signed_interval(pair.difference)}, {outcome}"
    changed = sum(bool(row.changes) for row in verdicts)
    wrong = sum(not pair.holds for pair in pairs)
    order = f"; no {ORDER}, so no order was checked"
    if pairs:
        order = f"; {wrong} of {len(pairs)} declared pairs in another order"
    yield f"{changed} of {len(verdicts)} cells changed{order}"


def _order_text(pair: Pair) -> str:
    if not pair.holds:
        return "NOT as declared, above"
    interval = pair.difference.interval if pair.difference else None
    return "as declared" if interval and interval.low > 0 else "as declared, but not told apart"


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
        yield (
            f"{what}: changed in all {len(plugins_of[what])} plug-ins, so it is the harness, not "
            f"one of them ({example.plugin}: {example.text}): undo the change, or raise the "
            "version of each"
        )
    for change, rows in rows_of.items():
        if change.what in shared:
            continue
        where = rows[0] if len(rows) == 1 else f"{rows[0]} and {len(rows) - 1} more"
        yield f"{change.plugin}: {change.what}: {change.text} ({where}): {change.hint}"


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
