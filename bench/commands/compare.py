"""Two rows, or two suites' rows, beside one another: `bench compare`. Imports no torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.table import Table as Grid

from bench.errors import UserError, unknown
from bench.metrics.average_precision import Floats
from bench.metrics.resampled import resampled_scores
from bench.metrics.rescore import headline
from bench.reporting.leaderboard import Estimate
from bench.results import comparability, storage
from bench.results.differences import Difference, differences, table
from bench.results.record import Record
from bench.statistics import intervals
from bench.statistics.cache import EXACT, SEED, weights

EXTREMES = 3  # classes shown at either end

Arrays = Mapping[str, NDArray[Any]]
Rows = dict[tuple[str, str], list[tuple[Path, Record]]]  # (task, method) -> scored seeds


@dataclass(frozen=True)
class Comparison:
    """One task's row of A beside one of B.

    Attributes:
        task: its name.
        metric: of its headline.
        methods: A's and B's.
        values: the headlines in points, each the mean over its seeds.
        difference: A less B, with its 95 % interval; None where they cannot be compared.
        above: share of the resamples in which A is above B, those where they are equal by half.
        paired: whether both were tested on the same images.
        classes: A less B by class, best for A first.
        settings: in what they differ.
        refused: why they cannot be compared.
    """

    task: str
    metric: str
    methods: tuple[str, str]
    values: tuple[float, float]
    difference: Estimate | None
    above: float
    paired: bool
    classes: tuple[tuple[str, float], ...]
    settings: tuple[Difference, ...]
    refused: str = ""


def compare(one: str, other: str, out: Path) -> list[Comparison]:
    """Compare two rows in every task that both have.

    Args:
        one: A: `METHOD` of the one suite below `out`; `FOLDER/METHOD`, FOLDER being one that
            `bench run` wrote for a suite, or the suite's name below `out`; or such a FOLDER alone,
            which is all its methods.
        other: B, likewise. Where one of the two is a folder alone, the same methods are compared.
        out: where names are looked up.

    Raises:
        UserError: no such records, or nothing in common.
    """
    (left, method), (right, partner) = (_find(text, out) for text in (one, other))
    pairs = [
        (a, b)
        for a in sorted(left)
        for b in sorted(right)
        if a[0] == b[0]
        and a[1] == (method or partner or a[1])
        and b[1] == (partner or method or a[1])
    ]
    if not pairs:
        raise UserError(f"{one} and {other} have no scored task and method in common")
    return [_pair(left[a], right[b]) for a, b in pairs]


def _find(text: str, out: Path) -> tuple[Rows, str | None]:
    """The rows an argument means, and the method that it names, if any."""
    path = Path(text)
    if any(path.glob("*/*/seed*.json")) or any(path.glob("*/*/*/seed*.json")):
        return _rows(_suite_folder(path)), None
    parent = path.parent
    named = parent if parent.is_dir() and parent != Path() else out / parent
    folder = _suite_folder(named)
    rows, method = _rows(folder), path.name
    if method not in {name for _, name in rows}:
        raise unknown(f"method in {folder}", method, {name for _, name in rows})
    return rows, method


def _suite_folder(path: Path) -> Path:
    """The folder of one suite's records: the path itself, or the only such folder in it."""
    found = sorted({file.parents[2] for file in path.glob("*/*/seed*.json")})
    found = found or sorted({file.parents[2] for file in path.glob("*/*/*/seed*.json")})
    if not found:
        raise UserError(f"{path}: holds no records; name METHOD, FOLDER/METHOD or FOLDER")
    if len(found) > 1:
        choices = ", ".join(folder.name for folder in found)
        mend = f"name one of {choices} as well, for example {path / found[0].name}"
        raise UserError(f"{path}: holds several suites; {mend}")
    return found[0]


def _rows(folder: Path) -> Rows:
    records = storage.read_all(folder)
    comparability.check_places(records, folder)
    rows: Rows = defaultdict(list)
    for path, found in records.items():
        if found.status == "ok":
            rows[found.task, found.method].append((path, found))
    for row in rows.values():
        comparability.check_seeds(dict(row), row[0][1].method)
    return dict(rows)


def _pair(one: Sequence[tuple[Path, Record]], other: Sequence[tuple[Path, Record]]) -> Comparison:
    sides = [[found for _, found in side] for side in (one, other)]
    first, second = sides[0][0], sides[1][0]
    values = tuple(float(np.mean([found.value for found in side])) for side in sides)
    classes = [_by_class(side) for side in sides]
    for path, found in (*one, *other):
        _check_value(path, found)
    reason = _incomparable(first, second)
    difference, above, paired = None, float("nan"), False
    if not reason:
        difference, above, paired = contrast(one, other)
    shared = {} if reason else {name: classes[0][name] - classes[1][name] for name in classes[0]}
    return Comparison(
        task=first.task,
        metric=first.metric,
        methods=(first.method, second.method),
        values=(values[0], values[1]),
        difference=difference,
        above=above,
        paired=paired,
        classes=tuple(sorted(shared.items(), key=lambda item: -item[1])),
        settings=tuple(differences(*sides)),
        refused=reason,
    )


def _check_value(path: Path, found: Record) -> None:
    """Refuse a record whose predictions give another value than it says."""
    value = headline(storage.read_predictions(path, found))
    if found.value is None or not abs(found.value - value) <= EXACT:
        raise UserError(f"{path}: says {found.value}, but its predictions give {value:.4f}")


def _incomparable(one: Record, other: Record) -> str:
    """Why a difference of two rows would mean nothing; empty if it does not."""
    if one.metric != other.metric:
        return f"{one.metric} is not {other.metric}"
    if one.task_version != other.task_version:
        return f"scored by versions {one.task_version} and {other.task_version} of {one.task}"
    classes = [set(found.scores.get("per_class", {})) for found in (one, other)]
    if classes[0] != classes[1]:
        return f"means over different classes: {', '.join(sorted(classes[0] ^ classes[1]))}"
    return ""


def _by_class(side: Sequence[Record]) -> dict[str, float]:
    names = side[0].scores.get("per_class", {})
    return {name: float(np.mean([f.scores["per_class"][name] for f in side])) for name in names}


def contrast(
    one: Sequence[tuple[Path, Record]], other: Sequence[tuple[Path, Record]]
) -> tuple[Estimate, float, bool]:
    """A row less another, from the predictions of their seeds.

    On the same test images both are recomputed on the same resamples; on others each on its own.

    Returns:
        The difference of the means over seeds with its 95 % interval, the share of resamples in
        which the first is above, and whether the two were paired.

    Raises:
        UserError: predictions are missing or were changed.
    """
    sides = [[storage.read_predictions(*seed) for seed in side] for side in (one, other)]
    records = [found for side in (one, other) for _, found in side]
    paired = all(
        same_images(records[0], sides[0][0], found, arrays)
        for found, arrays in zip(records, [*sides[0], *sides[1]], strict=True)
    )
    names = [side[0][1].method for side in (one, other)]
    twin = (
        [0] if names[0] == names[1] else []
    )  # seeds of two rows are not paired, named alike or not
    samples = [
        _samples(side, SEED if paired else SEED + place, [SEED, *name.encode(), *twin[:place]])
        for place, (side, name) in enumerate(zip(sides, names, strict=True))
    ]
    values = [float(np.mean([f.value for _, f in side])) for side in (one, other)]
    value = values[0] - values[1]
    difference = intervals.center_on(value, samples[0] - samples[1])
    estimate = Estimate(value, *intervals.interval(difference, value))
    return estimate, intervals.probability_above(difference), paired


def _samples(seeds: Sequence[Arrays], seed: int, order: list[int]) -> Floats:
    """The row's value on every resample of images, and of seeds where there are several."""
    drawn = [resampled_scores(arrays, weights(len(arrays["ids"]), seed)) for arrays in seeds]
    return intervals.combine_seeds([v[0] for v in drawn], [v[1:] for v in drawn], order)


def same_images(one: Record, mine: Arrays, other: Record, yours: Arrays) -> bool:
    """Whether two records were tested on the same list: the same names, files or truth."""
    if not np.array_equal(mine["ids"], yours["ids"]):
        return False
    lists = [{k: v for k, v in found.data.items() if k.endswith("_test")} for found in (one, other)]
    return bool(lists[0] and lists[0] == lists[1]) or all(
        np.array_equal(a, b) for a, b in zip(_truth(mine), _truth(yours), strict=True)
    )


def _truth(arrays: Arrays) -> list[NDArray[Any]]:
    """What the predictions hold of the truth: labels, boxes, or pixels of every class."""
    if "confusion" in arrays:
        return [arrays["confusion"].sum(-1)]
    return [arrays[name] for name in sorted(arrays) if name.startswith("tru")]


def render(found: Sequence[Comparison], one: str, other: str) -> Iterator[Grid | str]:
    """What the terminal shows: differences, classes, settings."""
    grid = Grid(title=f"A = {one}, B = {other}", box=box.SIMPLE, title_justify="left")
    for header in ("task", "method", "metric", "A", "B", "A - B [95 %]", "A above B", "images"):
        grid.add_column(header, justify="left" if header in ("task", "method") else "right")
    for row in found:
        method = " / ".join(dict.fromkeys(row.methods))
        values = [f"{value:.2f}" for value in row.values]
        grid.add_row(row.task, method, row.metric, *values, *_cells(row))
    yield grid
    for reason in dict.fromkeys(row.refused for row in found if row.refused):
        yield f"not comparable: {reason}"
    for row in found:
        if len(row.classes) > 1:
            count = min(EXTREMES, len(row.classes) // 2)
            best = ", ".join(f"{name} {value:+.1f}" for name, value in row.classes[:count])
            worst = ", ".join(
                f"{name} {value:+.1f}" for name, value in reversed(row.classes[-count:])
            )
            what = f"{row.task}, {' / '.join(dict.fromkeys(row.methods))}"
            yield f"{what}: A over B most for {best}; least for {worst}"
    shared: dict[Difference, list[str]] = defaultdict(list)
    for row in found:
        for pair in row.settings:
            shared[pair].append(f"{row.task} {row.methods[0]}")
    rows = [
        pair if len(of) == len(found) else Difference(f"{_of(of)}: {pair.setting}", *_both(pair))
        for pair, of in shared.items()
    ]
    yield table("in what they differ", ("setting", "A", "B"), rows) if rows else "the same settings"


def _cells(row: Comparison) -> tuple[str, str, str]:
    if row.difference is None:
        return "not comparable", "-", "-"
    low, high = row.difference.low, row.difference.high
    difference = f"{row.difference.value:+.2f} [{low:.2f}, {high:.2f}]"
    images = "the same: paired" if row.paired else "others: unpaired"
    return difference, f"{100 * row.above:.1f} %", images


def _both(pair: Difference) -> tuple[str, str]:
    return pair.one, pair.other


def _of(rows: Sequence[str]) -> str:
    return rows[0] if len(rows) == 1 else f"{rows[0]} and {len(rows) - 1} more"
