"""`bench compare`: two rows, or the rows of two suites, side by side. Imports no torch."""

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
from bench.metrics import registry
from bench.metrics.average_precision import Floats
from bench.metrics.registry import Metric
from bench.reporting.format import signed_interval
from bench.results import comparability, storage
from bench.results.differences import Difference, differences
from bench.results.record import Record
from bench.statistics import intervals
from bench.statistics.cache import EXACT, SEED, find_metric, weights
from bench.statistics.intervals import Estimate

EXTREMES = 3  # classes shown at either end

Arrays = Mapping[str, NDArray[Any]]
Seeds = Sequence[tuple[Path, Record]]
Rows = dict[tuple[str, str], list[tuple[Path, Record]]]  # (task, method) -> scored seeds


@dataclass(frozen=True)
class Comparison:
    """One task's row of A beside one of B.

    Attributes:
        task: its name.
        metric: label of the main score.
        methods: A's and B's.
        values: the main scores in points, each the mean over its seeds.
        difference: A less B, with its 95% interval; None where they cannot be compared.
        p_above: share of the resamples in which A is above B, those where they are equal by half.
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
    p_above: float
    paired: bool
    classes: tuple[tuple[str, float], ...]
    settings: tuple[Difference, ...]
    refused: str = ""


@dataclass(frozen=True)
class Contrast:
    """One row less another.

    Attributes:
        difference: of the means over seeds, in points, with its 95% interval.
        p_above: share of the resamples in which the first is above.
        paired: whether both were tested on the same images.
    """

    difference: Estimate
    p_above: float
    paired: bool


def compare(left: str, right: str, out: Path) -> list[Comparison]:
    """Compare two rows in every task that both have.

    Args:
        left: A: `METHOD` of the one suite below `out`; `FOLDER/METHOD`, FOLDER being one that
            `bench run` wrote for a suite, or the suite's name below `out`; or such a FOLDER alone,
            which is all its methods.
        right: B, likewise. Where one of the two is a folder alone, the same methods are compared.
        out: where names are looked up.

    Raises:
        UserError: no such records, or nothing in common.
    """
    left_rows, left_method = _rows_of(left, out)
    right_rows, right_method = _rows_of(right, out)
    pairs = [
        (a, b)
        for a in sorted(left_rows)
        for b in sorted(right_rows)
        if a[0] == b[0]
        and a[1] == (left_method or right_method or a[1])
        and b[1] == (right_method or left_method or a[1])
    ]
    if not pairs:
        raise UserError(f"{left} and {right} have no scored task and method in common")
    return [_comparison(left_rows[a], right_rows[b]) for a, b in pairs]


def _rows_of(text: str, out: Path) -> tuple[Rows, str | None]:
    """The rows that an argument names, and its method, if it names one."""
    path = Path(text)
    if any(path.glob("*/*/seed*.json")) or any(path.glob("*/*/*/seed*.json")):
        return _read_rows(_suite_folder(path)), None
    parent = path.parent
    named = parent if parent.is_dir() and parent != Path() else out / parent
    folder = _suite_folder(named)
    rows = _read_rows(folder)
    methods = {method for _, method in rows}
    if path.name not in methods:
        raise unknown(f"method in {folder}", path.name, methods)
    return rows, path.name


def _suite_folder(path: Path) -> Path:
    """The folder of one suite's records: the path itself, or the only such folder in it."""
    folders = sorted({file.parents[2] for file in path.glob("*/*/seed*.json")})
    folders = folders or sorted({file.parents[2] for file in path.glob("*/*/*/seed*.json")})
    if not folders:
        raise UserError(f"{path}: has no records; name METHOD, FOLDER/METHOD or FOLDER")
    if len(folders) > 1:
        names = ", ".join(folder.name for folder in folders)
        hint = f"name one of {names} as well, for example {path / folders[0].name}"
        raise UserError(f"{path}: has several suites; {hint}")
    return folders[0]


def _read_rows(folder: Path) -> Rows:
    records = storage.read_all(folder)
    comparability.check_places(records, folder)
    rows: Rows = defaultdict(list)
    for path, record in records.items():
        if record.status == "ok":
            rows[record.task, record.method].append((path, record))
    for (_, method), row in rows.items():
        comparability.check_seeds(dict(row), method)
    return dict(rows)


def _comparison(left: Seeds, right: Seeds) -> Comparison:
    sides = [[record for _, record in side] for side in (left, right)]
    first = sides[0][0]
    second = sides[1][0]
    metric, reason = find_metric(first.metric)
    for path, record in (*left, *right):
        check_value(path, record)
    reason = _incomparable(first, second) or reason
    outcome = None if reason or metric is None else contrast(left, right)
    classes = {} if reason else _class_differences(sides[0], sides[1])
    return Comparison(
        task=first.task,
        metric=metric.label if metric else first.metric,
        methods=(first.method, second.method),
        values=(_mean(sides[0]), _mean(sides[1])),
        difference=outcome.difference if outcome else None,
        p_above=outcome.p_above if outcome else float("nan"),
        paired=outcome.paired if outcome else False,
        classes=tuple(sorted(classes.items(), key=lambda item: -item[1])),
        settings=tuple(differences(*sides)),
        refused=reason,
    )


def check_value(path: Path, record: Record) -> None:
    """Refuse a record whose predictions give another value than it has.

    Raises:
        UserError: they do, cannot be scored, are missing or were changed.
    """
    arrays = storage.read_predictions(path, record)
    metric, _ = find_metric(record.metric)
    if metric is None:
        return
    try:
        value = registry.value(metric, arrays)
    except Exception as error:  # whatever a damaged file or somebody's metric raises
        problem = f"cannot be scored by '{metric.name}' ({type(error).__name__}: {error})"
        raise UserError(f"{path}: its predictions {problem}; delete it and run again") from error
    if record.value is None or not abs(record.value - value) <= EXACT:
        raise UserError(f"{path}: value {record.value}, but its predictions give {value:.4f}")


def _incomparable(left: Record, right: Record) -> str:
    """Why a difference of two rows would mean nothing; empty if it does not."""
    if left.metric != right.metric:
        return f"{left.metric} is not {right.metric}"
    if left.task_version != right.task_version:
        return f"scored by versions {left.task_version} and {right.task_version} of {left.task}"
    odd = {*left.per_class} ^ {*right.per_class}
    if odd:
        return f"means over different classes: {', '.join(sorted(odd))}"
    return ""


def _mean(side: Sequence[Record]) -> float:
    return float(np.mean([record.value for record in side]))


def _class_differences(left: Sequence[Record], right: Sequence[Record]) -> dict[str, float]:
    """The left side's mean over seeds less the right side's, by class."""
    each = [
        {name: float(np.mean([r.per_class[name] for r in side])) for name in side[0].per_class}
        for side in (left, right)
    ]
    return {name: value - each[1][name] for name, value in each[0].items()}


def contrast(left: Seeds, right: Seeds) -> Contrast:
    """A row less another, from the predictions of their seeds.

    On the same test images both are scored on the same resamples; on others each on its own.

    Raises:
        UserError: predictions are missing or were changed, or the metric is unknown.
    """
    metric = registry.get(left[0][1].metric)
    arrays = [[storage.read_predictions(*seed) for seed in side] for side in (left, right)]
    records = [record for side in (left, right) for _, record in side]
    paired = all(
        same_images(records[0], arrays[0][0], record, own)
        for record, own in zip(records, [*arrays[0], *arrays[1]], strict=True)
    )
    names = [side[0][1].method for side in (left, right)]
    # Seeds of two rows are not paired, not even of rows of one name: the second has its own order.
    second_order = [SEED, *names[1].encode(), *([0] if names[0] == names[1] else [])]
    left_samples = _samples(arrays[0], metric, SEED, [SEED, *names[0].encode()])
    right_samples = _samples(arrays[1], metric, SEED if paired else SEED + 1, second_order)
    value = _mean([r for _, r in left]) - _mean([r for _, r in right])
    samples = intervals.center_on(value, left_samples - right_samples)
    return Contrast(
        intervals.estimate(value, samples), intervals.probability_above(samples), paired
    )


def _samples(seeds: Sequence[Arrays], metric: Metric, seed: int, order: list[int]) -> Floats:
    """The row's value on every resample of images, and of seeds where there are several."""
    resampled = [
        registry.resampled_values(metric, arrays, weights(len(arrays["ids"]), seed))
        for arrays in seeds
    ]
    values = [each[0] for each in resampled]
    return intervals.combine_seeds(values, [each[1:] for each in resampled], order)


def same_images(left: Record, left_arrays: Arrays, right: Record, right_arrays: Arrays) -> bool:
    """Whether two records were tested on the same split: the same names, files or ground truth."""
    if not np.array_equal(left_arrays["ids"], right_arrays["ids"]):
        return False
    if left.test_data and left.test_data == right.test_data:
        return True
    metric = registry.get(left.metric)
    truths = zip(metric.ground_truth(left_arrays), metric.ground_truth(right_arrays), strict=True)
    return all(np.array_equal(a, b) for a, b in truths)


def render(comparisons: Sequence[Comparison], left: str, right: str) -> Iterator[Grid | str]:
    """What the terminal shows: differences, classes, settings."""
    grid = Grid(title=f"A = {left}, B = {right}", box=box.SIMPLE, title_justify="left")
    headings = ("task", "method", "metric", "A", "B", "A - B (95% CI)", "P(A > B)", "test images")
    for heading in headings:
        grid.add_column(heading, justify="left" if heading in ("task", "method") else "right")
    for row in comparisons:
        method = " / ".join(dict.fromkeys(row.methods))
        values = [f"{value:.2f}" for value in row.values]
        grid.add_row(row.task, method, row.metric, *values, *_outcome(row))
    yield grid
    for reason in dict.fromkeys(row.refused for row in comparisons if row.refused):
        yield f"not comparable: {reason}"
    for row in comparisons:
        if len(row.classes) > 1:
            yield _extremes(row)
    rows = _settings(comparisons)
    if rows:
        yield table("different settings", ("setting", "A", "B"), rows)
    else:
        yield "the same settings"


def _outcome(row: Comparison) -> tuple[str, str, str]:
    if row.difference is None:
        return "not comparable", "-", "-"
    images = "same, paired" if row.paired else "different, unpaired"
    return signed_interval(row.difference), f"{100 * row.p_above:.1f}%", images


def _extremes(row: Comparison) -> str:
    """The classes at both ends of the differences."""
    count = min(EXTREMES, len(row.classes) // 2)
    best = ", ".join(f"{name} {value:+.1f}" for name, value in row.classes[:count])
    worst = ", ".join(f"{name} {value:+.1f}" for name, value in reversed(row.classes[-count:]))
    methods = " / ".join(dict.fromkeys(row.methods))
    return f"{row.task}, {methods}: A - B is largest for {best}; smallest for {worst}"


def _settings(comparisons: Sequence[Comparison]) -> list[Difference]:
    """The different settings, those of single rows under the rows' names."""
    rows_of: dict[Difference, list[str]] = defaultdict(list)
    for row in comparisons:
        for difference in row.settings:
            rows_of[difference].append(f"{row.task} {row.methods[0]}")
    listed = []
    for difference, rows in rows_of.items():
        name = difference.setting
        if len(rows) < len(comparisons):
            more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
            name = f"{rows[0]}{more}: {name}"
        listed.append(Difference(name, difference.left, difference.right))
    return listed


def table(title: str, headings: Sequence[str], rows: Sequence[Difference]) -> Grid:
    """Differences as a table for the terminal."""
    grid = Grid(title=title, box=box.SIMPLE, title_justify="left")
    for heading in headings:
        grid.add_column(heading, overflow="fold")
    for row in rows:
        grid.add_row(row.setting, row.left, row.right)
    return grid
