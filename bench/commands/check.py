"""Whether the numbers of a reference still come out: `bench check`.

Exact on any machine: does the metric give the reference's value for the reference's predictions,
does it give the new value for the new predictions, is the list of test images the same?

How far a value may move is not. The same seed on the same machine gives the same bytes; other
machines and library versions round otherwise, and training amplifies that. So a value may move by
what the test images cannot tell from nothing: by `WIDTH` times the half of the paired 95 %
interval of new less reference, over the same images, that lies towards 0. That interval has no
width where nothing changed, little where little did. What a board would not print (`PRINTED`)
never counts.

That alone would miss a fault that leaves the mean where it was, such as an input that is no longer
normalized. So where a frozen encoder has the same weights, byte for byte, nothing amplifies
rounding, and the scores of the images must be the same too, as `ALIKE` says. Imports torch only
to compute.
"""

from __future__ import annotations

import itertools
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich import box
from rich.table import Table as Grid

from bench.commands import plan
from bench.commands.compare import Arrays, contrast, same_images
from bench.commands.request import Cell, Places
from bench.errors import UserError, unknown
from bench.metrics.average_precision import Floats
from bench.metrics.rescore import headline
from bench.reporting.leaderboard import Estimate
from bench.results import storage
from bench.results.record import Record
from bench.runtime.fingerprint import digest
from bench.runtime.progress import Reporter
from bench.statistics.cache import EXACT

ORDER = "order.toml"  # beside the suites' folders: [SUITE] TASK = [METHOD above METHOD above ...]
WIDTH = 1.5  # three standard errors, not two: else 1 cell in 20 would move by chance alone
ALIKE = 0.995  # least correlation of a class's scores, median of the classes; see docs/design.md
PRINTED = 0.05  # points: half of a board's last digit

Found = tuple[Path, Record]


@dataclass(frozen=True)
class Verdict:
    """One cell, beside its reference.

    Attributes:
        suite: its name.
        cell: method x task x seed.
        before: the reference's value, points.
        after: the value now; None if it failed.
        difference: after less before, paired; None where they cannot be compared.
        tolerance: by how many points it may differ.
        moved: what is wrong; empty if nothing is.
        same: whether the predictions are the same bytes.
    """

    suite: str
    cell: Cell
    before: float | None
    after: float | None
    difference: Estimate | None = None
    tolerance: float = 0.0
    moved: str = ""
    same: bool = False


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


def check(reference: Path, places: Places, reporter: Reporter) -> tuple[list[Verdict], list[Pair]]:
    """Run the cells of a reference that are not recorded yet, and compare each with it.

    Args:
        reference: holds SUITE/TASK/METHOD/seedK.json and perhaps order.toml.
        places: where the cells are run; what stands recorded there is taken.
        reporter: where progress is shown.

    Returns:
        A verdict for each cell, and what became of each declared pair.

    Raises:
        UserError: the reference, the data or the output folder cannot be used.
    """
    found = {path: storage.read(path) for path in sorted(reference.glob("*/*/*/seed*.json"))}
    for path, entry in found.items():
        if entry.status == "ok":
            storage.predictions_file(path, entry)  # whole, before hours are spent
    if not found:
        raise UserError(f"--reference {reference}: holds no records; make some with bench run")
    if places.out.resolve() == reference.resolve():
        raise UserError(f"--out {places.out}: is the reference itself; choose another")
    for path, entry in found.items():
        if entry.status != "ok":
            raise UserError(f"{path}: failed; a reference holds finished cells only")
    declared = declared_order(reference / ORDER, found.values())
    groups: dict[str, list[Found]] = defaultdict(list)
    for path, entry in found.items():
        groups[digest(entry.suite_settings)].append((path, entry))
    verdicts: list[Verdict] = []
    rows: dict[tuple[str, str, str], list[Found]] = defaultdict(list)
    for group in groups.values():
        for old, new in _again(group, places, reporter):
            verdicts.append(judge(old, new))
            if new[1].status == "ok":
                rows[new[1].suite, new[1].task, new[1].method].append(new)
    return verdicts, [_settle(pair, rows) for pair in declared]


def _again(
    group: Sequence[Found], places: Places, reporter: Reporter
) -> Iterator[tuple[Found, Found]]:
    """Each reference cell of one suite with what it gives now."""
    request = places.request(*group[0])
    cells = {Cell(f.method, f.task, f.seed): (path, f) for path, f in group}
    ordered = sorted(cells, key=lambda cell: (cell.method, cell.seed, cell.task))
    todo = [cell for cell in ordered if not plan.is_recorded(cell, request)]
    reporter.say(f"{request.suite.name}: {len(cells)} cells, {len(todo)} to run")
    if todo:
        plan.check_board(todo, request)
        from bench.commands.execute import compute

        compute(todo, request, reporter)
    for cell, old in cells.items():
        path = cell.path(request)
        yield old, (path, storage.read(path))


def judge(old: Found, new: Found) -> Verdict:
    """Compare a cell with its reference.

    Raises:
        UserError: predictions are missing or were changed.
    """
    (_, before), (_, after) = old, new
    cell = Cell(before.method, before.task, before.seed)
    verdict = Verdict(before.suite, cell, before.value, after.value)
    if after.status != "ok":
        return replace(verdict, moved=f"failed: {after.error}")
    if before.task_version != after.task_version:
        versions = f"{before.task_version} to {after.task_version}"
        return replace(verdict, moved=f"version {versions} of the task: make a new reference")
    arrays = storage.read_predictions(*old), storage.read_predictions(*new)
    for entry, given, whose in zip((before, after), arrays, ("reference's", "new"), strict=True):
        value = headline(given)
        if entry.value is None or not abs(value - entry.value) <= EXACT:
            fault = f"another metric: the {whose} predictions give {value:.4f}"
            return replace(verdict, moved=f"{fault}, its record says {entry.value}")
    if not same_images(before, arrays[0], after, arrays[1]):
        return replace(verdict, moved="other test images: make a new reference")
    difference, _, _ = contrast([new], [old])
    value, low, high = difference.value, difference.low, difference.high
    moved = ""
    alike = _likeness(before, arrays[0], after, arrays[1])
    if not alike >= ALIKE:
        moved = f"the same weights give other scores: correlation {alike:.3f}"
    tolerance = max(PRINTED, WIDTH * (value - low if value > 0 else high - value))
    return replace(
        verdict,
        difference=difference,
        tolerance=tolerance,
        moved="beyond its tolerance" if abs(value) > tolerance else moved,
        same=before.predictions == after.predictions,
    )


def _likeness(before: Record, old: Arrays, after: Record, new: Arrays) -> float:
    """Correlation of the scores that one frozen encoder gives, median of the classes.

    1 where the weights differ, or a task trains more than a linear model on them.
    """
    weights = {found.encoder and found.encoder.weights_sha256 for found in (before, after)}
    if len(weights) > 1 or before.tuning or "scores" not in old:
        return 1.0
    if old["scores"].shape != new["scores"].shape:
        return 0.0
    pairs = list(zip(old["scores"].T, new["scores"].T, strict=True))
    each = [
        float(np.array_equal(a, b)) if not a.std() or not b.std() else _correlation(a, b)
        for a, b in pairs
    ]
    return float(np.median(each))


def _correlation(a: Floats, b: Floats) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def declared_order(path: Path, records: Iterable[Record]) -> list[Pair]:
    """The pairs that order.toml declares; none without the file.

    Raises:
        UserError: it is not TOML of that form, or names what the reference does not hold.
    """
    if not path.is_file():
        return []
    held = {(entry.suite, entry.task, entry.method) for entry in records}
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not TOML: {error}") from None
    pairs = []
    for suite, tasks in said.items():
        for task, methods in tasks.items() if isinstance(tasks, dict) else [(suite, None)]:
            if not isinstance(methods, list) or len({*map(str, methods)}) < max(2, len(methods)):
                fault = "is not a list of two or more different methods in a [SUITE] table"
                raise UserError(f"{path}: '{task}' {fault}")
            for method in methods:
                if (suite, task, method) not in held:
                    names = ("/".join(key) for key in held)
                    wrong = unknown("cell", f"{suite}/{task}/{method}", names)
                    raise UserError(f"{path}: {wrong}")
            pairs += [Pair(suite, task, *two) for two in itertools.pairwise(methods)]
    return pairs


def _settle(pair: Pair, rows: dict[tuple[str, str, str], list[Found]]) -> Pair:
    first, second = (rows.get((pair.suite, pair.task, m)) for m in (pair.above, pair.below))
    if not first or not second:
        return pair
    return replace(pair, difference=contrast(first, second)[0])


def failed(verdicts: Iterable[Verdict], pairs: Iterable[Pair]) -> bool:
    """Whether anything moved, or stands in another order than declared."""
    return any(v.moved for v in verdicts) or not all(pair.holds for pair in pairs)


def render(verdicts: Sequence[Verdict], pairs: Sequence[Pair]) -> Iterator[Grid | str]:
    """What the terminal shows."""
    grid = Grid(box=box.SIMPLE)
    for header in ("cell", "reference", "now", "difference [95 %]", "may differ by", "verdict"):
        grid.add_column(header, justify="left" if header in ("cell", "verdict") else "right")
    for row in verdicts:
        values = ["-" if value is None else f"{value:.2f}" for value in (row.before, row.after)]
        limit = f"{row.tolerance:.2f}" if row.difference else "-"
        calm = "the same bytes" if row.same else "within"
        verdict = "MOVED" if row.moved else calm
        grid.add_row(f"{row.suite}: {row.cell}", *values, _estimate(row.difference), limit, verdict)
    yield grid
    for row in verdicts:
        if row.moved:
            yield f"{row.suite}: {row.cell}: MOVED: {row.moved}"
    for pair in pairs:
        word = "as declared" if pair.holds else "NOT as declared, above"
        where = f"{pair.suite}, {pair.task}: {pair.above} less {pair.below}"
        yield f"{where}: {_estimate(pair.difference)}, {word}"
    moved = sum(bool(row.moved) for row in verdicts)
    wrong = sum(not pair.holds for pair in pairs)
    order = f"; no {ORDER}, so no order was asserted"
    if pairs:
        order = f"; {wrong} of {len(pairs)} declared pairs in another order"
    yield f"{moved} of {len(verdicts)} cells moved{order}"


def _estimate(found: Estimate | None) -> str:
    return "-" if found is None else f"{found.value:+.2f} [{found.low:.2f}, {found.high:.2f}]"
