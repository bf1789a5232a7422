"""`bench check`: do the numbers of a reference still come out? The gate of behavior.

Versions decide what is up to date. This command watches that a version is raised where a number
may change. It runs the cells of a reference again, with nothing from the cache but the rendered
images, and compares what rounding cannot move: order and pixels of the first batches, the learning
rate of every step, the optimizers, the views counted, the losses and descents of the first ten
steps, the data, the number of settings tried (`results.changes`). It runs a cell on as many
processes as its reference was run.

`commands.verdict` says by how much a score may differ. Imports torch only to compute.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.table import Table as Grid

from bench.commands import plan
from bench.commands.compare import contrast, read_rows, runs_of
from bench.commands.request import Cell, Locations, Request, suite_of
from bench.commands.verdict import (
    Stored,
    Verdict,
    false_alarms,
    judge,
    messages,
    process_count,
    table,
)
from bench.config.loader import read_toml, to_toml
from bench.config.schema import Suite
from bench.errors import UserError, unknown
from bench.reporting.format import signed_interval
from bench.results import storage
from bench.results.record import Record
from bench.runtime.partial import temporary_folder
from bench.runtime.progress import Reporter
from bench.statistics.intervals import Estimate
from bench.statistics.training_runs import Runs

ORDER = "order.toml"  # beside the suites' folders: [SUITE] TASK = [METHOD above METHOD above ...]


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
        groups[record.suite, record.suite_sha256, process_count(record)].append((path, record))
    runs = _training_runs(reference)
    alarms = false_alarms(runs)
    verdicts: list[Verdict] = []
    rows: dict[tuple[str, str, str], list[Stored]] = defaultdict(list)
    for group in groups.values():
        with temporary_folder() as folder:  # no group uses what another one left
            fresh = replace(locations, cache=_fresh_cache(locations.cache, folder))
            for old, new in _rerun(group, fresh, reporter):
                verdicts.append(judge(old, new, runs[old[0]], alarms[old[0]]))
                if new[1].status == "ok":
                    rows[new[1].suite, new[1].task, new[1].method].append(new)
    known = {(o.suite, o.task, o.method): runs[path] for path, o in records.items()}
    return verdicts, [_settle(pair, rows, known) for pair in declared]


def _read_reference(reference: Path, out: Path) -> dict[Path, Record]:
    records = {path: storage.read(path) for path in storage.files(reference, storage.IN_OUT)}
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
        for folder in sorted({file.parents[2] for file in storage.files(reference, storage.IN_OUT)})
        for rows in [read_rows(folder)]
        for row, seeds in rows.items()
        for path, _ in seeds
    }


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
    processes = process_count(group[0][1])
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
    yield table(verdicts)
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
