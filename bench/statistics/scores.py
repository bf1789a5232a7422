"""The scores of a table's rows and of their differences, over test images and training runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from bench.metrics.average_precision import Floats
from bench.results.record import Record
from bench.statistics import intervals, model, planning, simultaneous
from bench.statistics.cache import EXACT, SEED, Resampled
from bench.statistics.calibration import TaskUncertainty
from bench.statistics.intervals import ConfidenceInterval, Estimate
from bench.statistics.model import NO_SPREAD
from bench.statistics.planning import Needed
from bench.statistics.training_runs import Runs, training_runs

NOTHING = Estimate(0.0, ConfidenceInterval(0.0, 0.0))
REPEATS = 8  # of the resamples, each with other draws of the runs: ends move by 1% of the width
IMAGES_ONLY = Runs(None)  # nothing is known of the training runs


@dataclass(frozen=True)
class Pair:
    """One row less another.

    Attributes:
        difference: in points, paired over test images.
        p_better: share of the samples in which the difference is above 0, those where it is 0 by
            half: 0..1; None where nothing is known of the training runs of one of them.
        needed: what would tell them apart at this difference; likewise.
        different: whether it is not 0, tested jointly with every other pair of the table; likewise.
    """

    difference: Estimate
    p_better: float | None = None
    needed: Needed | None = None
    different: bool | None = None

    @property
    def reversed(self) -> Pair:
        """The other row less the one."""
        better = None if self.p_better is None else 1 - self.p_better
        return replace(self, difference=self.difference.negated, p_better=better)


@dataclass(frozen=True)
class RowScore:
    """The main score of one row: the mean over its seeds.

    Attributes:
        value: in points.
        runs: what is known of its training runs.
        seeds: how many it has.
        common: share of the images' variance that is not in the spread of runs as well.
        samples: (B,) of the test images and of training runs, as far as they are known.
        images: (B,) of the test images alone.
    """

    value: float
    runs: Runs
    seeds: int
    common: float
    samples: Floats
    images: Floats

    @property
    def known(self) -> bool:
        """Whether it is known how far its training runs vary."""
        return self.runs.spread is not None

    @property
    def varies(self) -> bool:
        """Whether its training runs are known to vary."""
        return self.runs.spread is not None and self.runs.spread.varies

    @property
    def estimate(self) -> Estimate:
        """The score with its intervals, cut at the ends of the scale."""
        found = intervals.estimate(self.value, self.samples, self.images if self.varies else None)
        return replace(found, interval=_cut(found.interval), images=_cut(found.images))

    @property
    def shares(self) -> dict[str, float]:
        """The shares of `images` and `training` in its variance; none where that is not known."""
        if not self.sd:
            return {}
        images = self.common * float(np.nanvar(self.images)) / self.sd**2
        return {"images": images, "training": 1 - images}

    @property
    def sd(self) -> float | None:
        """Standard deviation of the score in points; None where runs are not known."""
        if self.runs.spread is None:
            return None
        images = self.common * float(np.nanvar(self.images))
        return float(np.sqrt(images + self.runs.spread.variance / self.seeds))


def _cut(interval: ConfidenceInterval | None) -> ConfidenceInterval | None:
    if interval is None:
        return None
    return ConfidenceInterval(max(interval.low, 0.0), min(interval.high, 100.0))


def row_score(method: str, scores: Sequence[Floats], runs: Runs, other: bool = False) -> RowScore:
    """The score of a row.

    Args:
        method: its name, by which its runs are independent of those of other rows.
        scores: (1 + B,) of each seed: on all images, then on each resample.
        runs: what is known of its training runs.
        other: whether this is another row of the same name, with runs of its own.
    """
    values = np.array([each[0] for each in scores])
    resampled = np.tile(np.array([each[1:] for each in scores]), REPEATS)
    share = (model.interaction(resampled) if len(scores) > 1 else runs.interaction) or 0.0
    order = [SEED, *method.encode(), *([0] if other else [])]
    spread = runs.spread or NO_SPREAD
    images = model.samples(values, resampled, NO_SPREAD, 0.0, order)
    return RowScore(
        value=float(values.mean()),
        runs=runs,
        seeds=len(scores),
        common=model.common_share(float(np.nanvar(images)), spread, share, len(scores)),
        samples=model.samples(values, resampled, spread, share, order),
        images=images,
    )


def less(row: RowScore, other: RowScore) -> Pair:
    """One row less another, on the same resamples; `different` is left open."""
    return _pair(row, other, difference(row, other))


def _pair(row: RowScore, other: RowScore, samples: Floats) -> Pair:
    value = float(np.nanmean(samples))
    images = row.images - other.images
    inner = images if row.known and other.known and (row.varies or other.varies) else None
    estimate = intervals.estimate(value, samples, inner)
    if not (row.known and other.known):
        return Pair(estimate)
    runs = sum(each.runs.spread.variance / each.seeds for each in (row, other) if each.runs.spread)
    own = sum((1 - each.common) * float(np.nanvar(each.images)) for each in (row, other))
    seeds = min(row.seeds, other.seeds)
    needed = planning.needed(value, float(np.nanvar(images)), own, runs, seeds)
    return Pair(estimate, intervals.probability_above(samples), needed)


def difference(row: RowScore, other: RowScore) -> Floats:
    """Samples of one row less another, (B,); 0 of rows that are equal but for rounding."""
    value = row.value - other.value
    samples = row.samples - other.samples
    if abs(value) < EXACT and np.nanmax(np.abs(samples)) < EXACT:
        return np.zeros_like(samples)
    return intervals.center_on(value, samples)


@dataclass(frozen=True)
class Scores:
    """The main scores of a table.

    The metric of a table is known, and then every row has samples, or it is not.

    Attributes:
        values: by method, in points.
        rows: the same with their samples; empty where the metric is not known.
        runs: what is known of training runs.
        pairs: (method, other) -> the one less the other, for any two rows with samples.
        reason: why there are no samples.
    """

    values: Mapping[str, float]
    rows: Mapping[str, RowScore]
    runs: Mapping[str, Runs]
    pairs: Mapping[tuple[str, str], Pair]
    reason: str

    def value(self, method: str) -> Estimate:
        """The score of a method."""
        return self.rows[method].estimate if self.rows else Estimate(self.values[method])

    def known(self, *methods: str | None) -> bool:
        """Whether it is known of all of some rows how far training runs vary."""
        rows = [self.rows.get(method) if method else None for method in methods]
        return all(row is not None and row.known for row in rows)

    def difference(self, method: str | None, other: str | None) -> Estimate | None:
        """The score of a method less that of another; None without one of the two."""
        if method is None or other is None:
            return None
        if not self.rows:
            return Estimate(self.values[method] - self.values[other])
        return NOTHING if method == other else self.pairs[method, other].difference

    def above(self, other: str, methods: Sequence[str]) -> frozenset[str]:
        """The methods that are above another one, tested jointly; of rows that are `known`."""
        family = {m: difference(self.rows[m], self.rows[other]) for m in methods}
        found = simultaneous.different(family)
        return frozenset(m for m in found if self.values[m] > self.values[other])

    def ranks(self) -> dict[str, simultaneous.Ranks]:
        """The ranks that rows may have, all together; of rows that are `known`."""
        known = [method for method in self.rows if self.known(method)]
        above = {
            (a, b)
            for (a, b), pair in self.pairs.items()
            if pair.different and pair.difference.value > 0
        }
        return {m: simultaneous.from_pairs(m, len(known), above) for m in known}


def score_rows(
    groups: Mapping[str, Sequence[tuple[Path, Record]]],
    resampled: Mapping[Path, Resampled],
    calibrated: TaskUncertainty | None,
) -> Scores:
    """The scores of the rows of a task that have any.

    Args:
        groups: method -> its records with their paths.
        resampled: of every scored record.
        calibrated: of the task, where the suite has a calibration that holds for it.
    """
    scored = {m: [(p, r) for p, r in seeds if r.status == "ok"] for m, seeds in groups.items()}
    scored = {method: seeds for method, seeds in scored.items() if seeds}
    runs = training_runs({m: [r for _, r in seeds] for m, seeds in scored.items()}, calibrated)
    values: dict[str, float] = {}
    rows: dict[str, RowScore] = {}
    reason = ""
    for method, seeds in scored.items():
        scores = [v for path, _ in seeds if (v := resampled[path].values) is not None]
        if scores:
            rows[method] = row_score(method, scores, runs[method])
            values[method] = rows[method].value
        else:
            values[method] = float(np.mean([record.value for _, record in seeds]))
            reason = resampled[seeds[0][0]].reason
    return Scores(values, rows, runs, _pairs(rows), reason)


def _pairs(rows: Mapping[str, RowScore]) -> dict[tuple[str, str], Pair]:
    """Every ordered pair of two rows."""
    samples = {(a, b): difference(rows[a], rows[b]) for a, b in combinations(rows, 2)}
    pairs = {(a, b): _pair(rows[a], rows[b], drawn) for (a, b), drawn in samples.items()}
    family = {key: samples[key] for key, pair in pairs.items() if pair.p_better is not None}
    found = simultaneous.different(family)
    tested = {
        key: replace(pair, different=key in found) if key in family else pair
        for key, pair in pairs.items()
    }
    return tested | {(b, a): pair.reversed for (a, b), pair in tested.items()}
