"""`bench compare`: two rows, or the rows of two suites, side by side. Imports no torch.

`bench compare ROW literature` lays published numbers of the same method and task beside a row. A
suite of another protocol is shown as well, with the reason why it is not comparable and without a
difference: the sources and their status are of use to a reader before the expensive run is made.
"""

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

from bench.errors import UserError, one_line, unknown
from bench.metrics import registry
from bench.reporting import literature
from bench.reporting.format import MISSING, estimate, settled, signed_interval
from bench.reporting.literature import Column, Number
from bench.results import comparability, storage
from bench.results.differences import Difference, differences
from bench.results.record import Record
from bench.statistics import calibration
from bench.statistics.cache import EXACT, SEED, find_metric, weights
from bench.statistics.intervals import ConfidenceInterval, Estimate
from bench.statistics.planning import Needed
from bench.statistics.scores import IMAGES_ONLY, less, row_score
from bench.statistics.training_runs import Runs, training_runs

EXTREMES = 3  # classes shown at either end
LITERATURE = "literature"  # in place of B
ELSEWHERE = (
    "Published rows are of other pretraining, and of other tuning: no ranking. Only those that are"
    " verified were checked in their source."
)

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
        p_above: share of the samples in which A is above B, those where they are equal by half;
            None where nothing is known of the training runs of one of them.
        needed: what would tell them apart at this difference; likewise.
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
    p_above: float | None
    needed: Needed | None
    paired: bool
    classes: tuple[tuple[str, float], ...]
    settings: tuple[Difference, ...]
    refused: str = ""


@dataclass(frozen=True)
class Contrast:
    """One row less another.

    Attributes:
        difference: of the means over seeds, in points, with its 95% interval.
        p_above: see `Comparison`.
        needed: see `Comparison`.
        paired: whether both were tested on the same images.
    """

    difference: Estimate
    p_above: float | None
    needed: Needed | None
    paired: bool


@dataclass(frozen=True)
class Published:
    """A row's score beside a published number.

    Attributes:
        record: a record of the row.
        column: that the number is of.
        number: as it was published.
        score: of the row, in points; with its interval where it is the main score; None if the
            record does not have it.
        reasons: why the two are not comparable.
    """

    record: Record
    column: Column
    number: Number
    score: Estimate | None
    reasons: tuple[str, ...]

    @property
    def difference(self) -> Estimate | None:
        """The score less the number, with the score's interval; None if not comparable."""
        if self.score is None or self.reasons:
            return None
        value = float(self.number.value)
        own = self.score.interval
        moved = ConfidenceInterval(own.low - value, own.high - value) if own else None
        return Estimate(self.score.value - value, moved)


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
    left_rows, left_method, left_folder = _rows_of(left, out)
    right_rows, right_method, right_folder = _rows_of(right, out)
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
    return [
        _comparison(
            left_rows[a],
            right_rows[b],
            runs_of(left_rows, a, left_folder),
            runs_of(right_rows, b, right_folder),
        )
        for a, b in pairs
    ]


def published(row: str, out: Path, folder: Path) -> list[Published]:
    """The published numbers of a row's method, in each of its tasks.

    Args:
        row: see `compare`; a folder alone is all its methods.
        out: where names are looked up.
        folder: of the tables.

    Raises:
        UserError: no such records, tables that break their schema, or nothing published.
    """
    rows, named, suite = _rows_of(row, out)
    names = literature.read_names(folder)
    files = literature.read_all(folder)
    found = []
    for (task, method), seeds in sorted(rows.items()):
        if named in (None, method):
            runs = runs_of(rows, (task, method), suite)
            found += _published(seeds, runs, literature.beside(seeds[0][1], names, files), names)
    if not found:
        tasks = ", ".join(sorted({task for task, method in rows if named in (None, method)}))
        raise UserError(f"{row}: {folder} has no number of it in {tasks}; see {literature.NAMES}")
    return found


def _published(
    seeds: Seeds, runs: Runs, numbers: Sequence[tuple[Column, Number]], names: literature.Names
) -> list[Published]:
    record = seeds[0][1]
    backbone = record.encoder.backbone if record.encoder else ""
    scores = {column.score: _score(seeds, runs, column.score) for column, _ in numbers}
    found = []
    for column, number in numbers:
        reasons = column.differences(record)
        if names.backbones.get(backbone) != number.backbone:
            reasons.append(f"backbone {backbone}, published: {number.backbone}")
        found.append(Published(record, column, number, scores[column.score], tuple(reasons)))
    return found


def _score(seeds: Seeds, runs: Runs, name: str) -> Estimate | None:
    """The main score with its interval, or the mean of a diagnostic; None if a seed lacks it."""
    if name:
        each = [record.diagnostics.get(name) for _, record in seeds]
        known = [value for value in each if value is not None]
        return Estimate(float(np.mean(known))) if len(known) == len(each) else None
    for path, record in seeds:
        check_value(path, record)
    metric, _ = find_metric(seeds[0][1].metric)
    if metric is None:
        return Estimate(_mean([record for _, record in seeds]))
    arrays = [storage.read_predictions(*seed) for seed in seeds]
    values = [registry.resampled_values(metric, a, weights(len(a["ids"]))) for a in arrays]
    return row_score(seeds[0][1].method, values, runs).estimate


def render_published(rows: Sequence[Published], row: str) -> Iterator[Grid | str]:
    """What the terminal shows: scores beside numbers with source and status, and the reasons."""
    grid = Grid(title=f"A = {row}, B = {LITERATURE}", box=box.SIMPLE, title_justify="left")
    headings = ("task", "method", "score", "A (95% CI)", "B", "A - B", "protocol", "status, source")
    for heading in headings:
        grid.add_column(heading, overflow="fold")
    for each in rows:
        number = each.number
        text = MISSING if each.score is None else estimate(each.score)
        apart = signed_interval(each.difference)
        protocol = f"{number.protocol}, {number.backbone}"
        source = ", ".join(part for part in (number.status, number.source, number.note) if part)
        cells = (each.record.task, number.row, number.metric, text, number.value, apart)
        grid.add_row(*cells, protocol, source)
    yield grid
    reasons: dict[str, list[str]] = defaultdict(list)
    for each in rows:
        reasons[each.record.task] += each.reasons
    for task, listed in reasons.items():
        if listed:
            yield f"{task}, not comparable: {'; '.join(dict.fromkeys(listed))}"
    yield ELSEWHERE


def _rows_of(text: str, out: Path) -> tuple[Rows, str | None, Path]:
    """The rows that an argument names, its method, if it names one, and the suite's folder."""
    path = Path(text)
    if storage.files(path) or storage.files(path, storage.IN_OUT):
        folder = suite_folder(path)
        return read_rows(folder), None, folder
    parent = path.parent
    inside = parent == Path() or (not parent.is_dir() and (out / parent).is_dir())
    named = out / parent if inside else parent
    absent = not storage.files(named) and not storage.files(named, storage.IN_OUT)
    if absent and parent == Path():
        raise UserError(
            f"{path}: is no folder, and {named} has no records of a row of that name; "
            "name METHOD, FOLDER/METHOD or FOLDER"
        )
    folder = suite_folder(named)
    rows = read_rows(folder)
    methods = {method for _, method in rows}
    if path.name not in methods:
        raise unknown(f"method in {folder}", path.name, methods)
    return rows, path.name, folder


def suite_folder(path: Path) -> Path:
    """The folder of one suite's records: the path itself, or the only such folder in it.

    Raises:
        UserError: there is none, or there are several.
    """
    folders = sorted({file.parents[2] for file in storage.files(path)})
    folders = folders or sorted({file.parents[2] for file in storage.files(path, storage.IN_OUT)})
    if not folders:
        raise UserError(f"{path}: has no records; name METHOD, FOLDER/METHOD or FOLDER")
    if len(folders) > 1:
        names = ", ".join(folder.name for folder in folders)
        hint = f"name one of {names} as well, for example {path / folders[0].name}"
        raise UserError(f"{path}: has several suites; {hint}")
    return folders[0]


def runs_of(rows: Rows, row: tuple[str, str], folder: Path) -> Runs:
    """What is known of the training runs of a row, by its seeds and by the rows of its table."""
    task, method = row
    example = rows[row][0][1]
    table = {
        m: [record for _, record in seeds]
        for (t, m), seeds in rows.items()
        if t == task and seeds[0][1].other_backbone == example.other_backbone
    }
    uncertainty = calibration.read(folder, example.suite, example.suite_sha256)
    return training_runs(table, calibration.task(uncertainty, example))[method]


def read_rows(folder: Path) -> Rows:
    """The scored rows below a suite's folder.

    Raises:
        UserError: a record cannot be read, or is not where it belongs.
    """
    records = storage.read_all(folder)
    comparability.check_places(records, folder)
    rows: Rows = defaultdict(list)
    for path, record in records.items():
        if record.status == "ok":
            rows[record.task, record.method].append((path, record.printable()))
    for (_, method), row in rows.items():
        comparability.check_seeds(dict(row), method)
    return dict(rows)


def _comparison(left: Seeds, right: Seeds, left_runs: Runs, right_runs: Runs) -> Comparison:
    sides = [[record for _, record in side] for side in (left, right)]
    first = sides[0][0]
    second = sides[1][0]
    metric, reason = find_metric(first.metric)
    for path, record in (*left, *right):
        check_value(path, record)
    reason = _incomparable(first, second) or reason
    outcome = None if reason or metric is None else contrast(left, right, left_runs, right_runs)
    classes = {} if reason else _class_differences(sides[0], sides[1])
    return Comparison(
        task=first.task,
        metric=metric.label if metric else first.metric,
        methods=(first.method, second.method),
        values=(_mean(sides[0]), _mean(sides[1])),
        difference=outcome.difference if outcome else None,
        p_above=outcome.p_above if outcome else None,
        needed=outcome.needed if outcome else None,
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
    """The left side's mean over seeds less the right side's, by class that all seeds have."""
    common = set.intersection(*(set(record.per_class) for record in (*left, *right)))
    means = [
        {name: float(np.mean([record.per_class[name] for record in side])) for name in common}
        for side in (left, right)
    ]
    return {name: means[0][name] - means[1][name] for name in left[0].per_class if name in common}


def contrast(
    left: Seeds, right: Seeds, left_runs: Runs = IMAGES_ONLY, right_runs: Runs = IMAGES_ONLY
) -> Contrast:
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
    scores = [
        [registry.resampled_values(metric, each, weights(len(each["ids"]), seed)) for each in side]
        for side, seed in zip(arrays, (SEED, SEED if paired else SEED + 1), strict=True)
    ]
    rows = [
        row_score(names[0], scores[0], left_runs),
        row_score(names[1], scores[1], right_runs, other=left != right and len({*names}) == 1),
    ]
    found = less(*rows)
    return Contrast(found.difference, found.p_better, found.needed, paired)


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
        if row.needed and row.difference:
            methods = " / ".join(dict.fromkeys(row.methods))
            yield f"{row.task}, {methods}: {settled(row.difference, row.needed)}"
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
    above = MISSING if row.p_above is None else f"{100 * row.p_above:.1f}%"
    return signed_interval(row.difference), above, images


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
        grid.add_row(*map(one_line, (row.setting, row.left, row.right)))
    return grid
