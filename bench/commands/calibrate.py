"""`bench calibrate`: how much runs vary in a suite, from records of several seeds; no torch.

The section `[uncertainty]` that it writes gives rows of one seed an interval that holds training
runs: see `bench.statistics.calibration`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table as Grid

from bench.commands.compare import read_rows, suite_folder
from bench.config import loader
from bench.errors import UserError
from bench.metrics.average_precision import Floats
from bench.reporting.format import deviation
from bench.runtime.files import atomic_write
from bench.statistics import calibration, model
from bench.statistics.cache import all_resampled_scores
from bench.statistics.calibration import TaskUncertainty, Uncertainty
from bench.statistics.model import Kind, Seeds

PERMUTATIONS = 2000  # of the seeds within each row; a p of 0.05 is known to within 0.01


@dataclass(frozen=True)
class Summary:
    """The rows of one kind in one task.

    Attributes:
        task: theirs.
        kind: see `calibration.kind_of`.
        rows: how many have several seeds.
        degrees: of freedom, over all rows.
        sds: of each row whose seeds differ, in points.
        next_sd: median of what is known of the sd of another row.
        correlation: between the seeds of two rows, mean over pairs; None where rows or seeds are
            too few to say.
        p: probability of a correlation as large where seeds are independent.
    """

    task: str
    kind: str
    rows: int
    degrees: int
    sds: tuple[float, ...]
    next_sd: float | None
    correlation: float | None
    p: float | None


def calibrate(folder: Path, to: Path | None, cache: Path) -> tuple[Uncertainty, Path, list[str]]:
    """Write `[uncertainty]` from the records of a suite, of its own backbone.

    Args:
        folder: OUT/SUITE, or OUT with one suite.
        to: a TOML file that gets the section at its end; None for the file beside the records.
        cache: where resampled scores are kept.

    Returns:
        What was written, where, and what was left out, in words.

    Raises:
        UserError: no row has several seeds from 0 on, records cannot be used, or the file cannot be
            written.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name one of a suite's records")
    folder = suite_folder(folder)
    rows = read_rows(folder)
    own = {row: seeds for row, seeds in rows.items() if not seeds[0][1].other_backbone}
    numbers = {row: sorted(record.seed for _, record in seeds) for row, seeds in own.items()}
    several = {row: own[row] for row, seeds in numbers.items() if seeds[:2] == [0, 1]}
    if not several:
        raise UserError(
            f"{folder}: no row of the suite's backbone has seeds 0 and 1; make some with "
            "bench run --seeds 5"
        )
    left_out = [
        f"{task} x {method}: seeds {', '.join(map(str, seeds))} are not all from 0 on without a "
        "gap; those after it are left out"
        for (task, method), seeds in numbers.items()
        if seeds != list(range(len(seeds)))
    ]
    records = {path: record for seeds in several.values() for path, record in seeds}
    scores, errors = all_resampled_scores(records, cache)
    for error in errors.values():
        raise error
    interactions: dict[tuple[str, str], float | None] = {}
    for row, seeds in several.items():
        resampled = [v[1:] for path, _ in seeds if (v := scores[path].values) is not None]
        interactions[row] = model.interaction(resampled) if len(resampled) > 1 else None
    found = calibration.calibrate(list(records.values()), interactions)
    file = to or folder / calibration.FILE
    if to:
        _check_suite(to, found.suite_sha256)
    _write(found, file)
    return found, file, left_out


def _check_suite(file: Path, sha256: str) -> None:
    """Refuse a file that is not the suite of the records.

    Raises:
        UserError: it is no suite, or another one.
    """
    if file.suffix != ".toml":
        raise UserError(f"--to {file}: is no suite's TOML file")
    own = loader.load(str(file)).sha256
    if own != sha256:
        raise UserError(f"--to {file}: is suite {own[:8]}, the records are of {sha256[:8]}")


def _write(uncertainty: Uncertainty, file: Path) -> None:
    """Put the section into a file.

    Raises:
        UserError: the file cannot be read or written, or the section cannot be put into it.
    """
    section = calibration.to_toml(uncertainty)
    try:
        before = file.read_text(encoding="utf-8") if file.is_file() else ""
        after = calibration.put(before, section)
        if _others(before) != _others(after):
            raise UserError(f"--to {file}: has {calibration.HEADER} in it; remove that by hand")
        atomic_write(file, after.encode())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--to {file}: cannot be written ({error})") from None


def _others(text: str) -> dict[str, Any] | None:
    """The other tables of a TOML file; None if it is none."""
    try:
        return {key: value for key, value in tomllib.loads(text).items() if key != calibration.KEY}
    except tomllib.TOMLDecodeError:
        return None


def summaries(uncertainty: Uncertainty) -> Iterator[Summary]:
    """How much runs vary, by task and kind."""
    for task, part in uncertainty.tasks.items():
        for kind in sorted({row.kind for row in part.rows.values()}):
            yield _summary(task, kind, part)


def _summary(task: str, kind: str, part: TaskUncertainty) -> Summary:
    values = {name: row.values for name, row in part.rows.items() if row.kind == kind}
    varying = {name: each for name, each in values.items() if np.ptp(each) > model.LEAST}
    law = Kind({name: seeds for name, each in varying.items() if (seeds := Seeds.of(each))})
    spread = law.spread("")
    correlation, p = seed_correlation(list(varying.values()))
    return Summary(
        task=task,
        kind=kind,
        rows=len(values),
        degrees=sum(row.degrees for row in law.rows.values()),
        sds=tuple(sorted(row.variance**0.5 for row in law.rows.values())),
        next_sd=spread.variance**0.5 if spread else None,
        correlation=correlation,
        p=p,
    )


def seed_correlation(
    rows: Sequence[Sequence[float]], seed: int = 0
) -> tuple[float | None, float | None]:
    """Whether rows of one seed move together: they share where their random numbers start.

    Args:
        rows: the scores of the seeds of each row; the seeds that all rows have are taken.
        seed: of the permutations.

    Returns:
        The mean correlation of two rows, and by permutation of the seeds within rows the
        probability of one as large, on either side; None of fewer than two rows or three seeds.
    """
    count = min(map(len, rows), default=0)
    if len(rows) < 2 or count < 3:
        return None, None
    scores = np.array([row[:count] for row in rows])
    scores = scores - scores.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(scores, axis=1, keepdims=True)
    scores = scores[norms[:, 0] > 0] / norms[norms[:, 0] > 0]
    if len(scores) < 2:
        return None, None
    observed = _mean_correlation(scores)
    rng = np.random.default_rng(seed)
    drawn = [_mean_correlation(rng.permuted(scores, axis=1)) for _ in range(PERMUTATIONS)]
    larger = int(np.sum(np.abs(drawn) >= abs(observed) - 1e-12))
    return observed, (1 + larger) / (1 + PERMUTATIONS)


def _mean_correlation(scores: Floats) -> float:
    """Mean correlation of two rows that are centered and of norm 1."""
    count = len(scores)
    return float((np.sum(scores.sum(axis=0) ** 2) - count) / (count * (count - 1)))


def render(uncertainty: Uncertainty, file: Path, left_out: Sequence[str]) -> Iterator[Grid | str]:
    """What the terminal shows."""
    grid = Grid(box=box.SIMPLE)
    headings = ("task", "kind", "rows", "degrees", "sd of seeds", "of a new row", "correlation")
    for heading in headings:
        grid.add_column(heading, justify="left" if heading in ("task", "kind") else "right")
    for row in summaries(uncertainty):
        sds = "none: fixed"
        if row.sds:
            sds = " to ".join(dict.fromkeys(map(deviation, (row.sds[0], row.sds[-1]))))
        another = "-" if row.next_sd is None else deviation(row.next_sd)
        same = "-" if row.correlation is None else f"{row.correlation:+.2f} (p {row.p:.2f})"
        grid.add_row(row.task, row.kind, str(row.rows), str(row.degrees), sds, another, same)
    yield grid
    yield (
        "sd: standard deviation over seeds in points, smallest to largest, and as expected of a "
        "new row; degrees: of freedom, seeds less one, over rows; correlation: between rows, of "
        "the scores of one seed"
    )
    yield from left_out
    yield f"{file}: written; bench leaderboard uses it"
