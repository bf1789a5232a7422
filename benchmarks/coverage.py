"""How often the leaderboard's 95% intervals contain the true value, simulated.

    python benchmarks/coverage.py                       # all; some ten minutes on two cores
    python benchmarks/coverage.py --scale 0.1           # a tenth of the experiments
    python benchmarks/coverage.py --draws bootstrap     # with replacement, for comparison
    python benchmarks/coverage.py --metric top1         # or mAP_samples, mIoU: one class an image,
                                                        # five training samples, pixels
    python benchmarks/coverage.py --boards 200          # whole boards: see simulated_boards.py

A simulated experiment draws test images with their classes and the scores of two methods: Gauss
noise, shifted up by `strength` where the class is shown. The noise is in part the same for both
methods, as some images are hard for all. Then it computes value, gap and intervals by the
functions of the leaderboard. With several seeds, each seed of a method has a strength of its own.

The true value is the expected one on splits of as many images (the mean over thousands of fresh
splits). Beside it is the value on an endless split, by quadrature: average precision of few
positives is too high, for every row and by any protocol, so that on short splits with many classes
that one is not what an interval can contain. It is computed for mAP alone. Exit status 1 if the
claim does not hold: all intervals of the rows marked * contain the true value 93% to 97% of the
time.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import simulated_boards
from numpy.typing import NDArray
from scipy.stats import norm

from bench.metrics import registry
from bench.metrics.resampled import resampling_weights
from bench.statistics import intervals, resampling
from bench.statistics.model import Kind, Seeds
from bench.statistics.scores import row_score
from bench.statistics.training_runs import Runs

STRENGTHS = (2.0, 1.2)
SAMPLES = 5  # of training images, for mAP_samples
SHARED, OWN = 0.5, 0.3  # of the noise's variance: of all methods, of all seeds of one; the rest 0.2
FEW = (0.05, 0.1, 0.2, 0.4)  # frequencies of the classes
MANY = (0.04,) * 4 + (0.05,) * 6 + (0.06,) * 5 + (0.08, 0.1, 0.12, 0.16, 0.4)
LOWEST, HIGHEST = 0.93, 0.97
METRICS = ("mAP", "mAP_samples", "top1", "mIoU")

Floats = NDArray[np.float64]
Draws = Callable[[int, int, int], NDArray[np.uint16]]


@dataclass(frozen=True)
class Scenario:
    """What is simulated: the splits, the seeds and their spread in strength, how many times."""

    images: int
    experiments: int
    resamples: int
    classes: tuple[float, ...] = FEW
    seeds: int = 1
    spread: float = 0.0
    claimed: bool = False


SCENARIOS = (
    Scenario(500, 2000, 1000, claimed=True),
    Scenario(5000, 1000, 400, claimed=True),
    Scenario(500, 500, 400, MANY),
    Scenario(500, 1000, 400, seeds=2, spread=0.03),
    Scenario(500, 1000, 400, seeds=2, spread=0.1),
    Scenario(500, 1000, 400, seeds=3),
    Scenario(500, 1000, 400, seeds=3, spread=0.03),
    Scenario(500, 1000, 400, seeds=3, spread=0.1),
    Scenario(5000, 300, 200, seeds=3, spread=0.03),
    Scenario(5000, 300, 200, seeds=3, spread=0.1),
)


def with_replacement(images: int, resamples: int, seed: int) -> NDArray[np.uint16]:
    """The bootstrap's draws, for comparison."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(images, size=(resamples, images))
    return np.array([np.bincount(row, minlength=images) for row in drawn], dtype=np.uint16)


def values(
    scenario: Scenario, metric: str, counts: NDArray[np.uint16], rng: np.random.Generator
) -> Floats:
    """The score of both methods, every seed and every row of counts: (2, S, B)."""
    weights = resampling_weights(counts)
    shape = scenario.images, len(scenario.classes)
    shown = rng.random(shape) < scenario.classes
    if metric == "top1":  # one class an image, all as frequent
        shown = np.eye(shape[1], dtype=bool)[rng.integers(shape[1], size=shape[0])]
    pixels = shown * rng.lognormal(7, 1, shape) if metric == "mIoU" else shown
    shared = np.sqrt(SHARED) * rng.normal(size=shape)
    scores_of = []
    for strength in STRENGTHS:
        of_method = shared + np.sqrt(OWN) * rng.normal(size=shape)
        for _ in range(scenario.seeds):
            own = strength + scenario.spread * rng.normal()
            several = (SAMPLES, *shape) if metric == "mAP_samples" else shape
            noise = of_method + np.sqrt(1 - SHARED - OWN) * rng.normal(size=several)
            predictions = predicted(metric, own * shown + noise, pixels)
            scores_of.append(registry.resampled_values(registry.get(metric), predictions, weights))
    return np.reshape(scores_of, (len(STRENGTHS), scenario.seeds, -1))


def predicted(metric: str, scores: Floats, pixels: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Predictions as the tasks save them.

    Args:
        metric: by its name.
        scores: (N, C), or (S, N, C) for mAP_samples; higher is more positive.
        pixels: (N, C) of each class in each image; for mAP and top-1, which are shown.
    """
    if metric == "top1":
        return {"predicted": scores.argmax(1), "label": pixels.argmax(1)}
    if metric != "mIoU":
        return {
            "scores": scores.astype(np.float32),
            "truth": np.where(pixels, 1, -1).astype(np.int8),
        }
    # Of the pixels of a class the share Phi(score) is found, and the rest taken for background,
    # which is as large as all objects together and loses as many to each class shown as that lost.
    found = (pixels * norm.cdf(scores)).astype(np.int64)
    lost = pixels.astype(np.int64) - found
    classes = scores.shape[1] + 1
    confusion = np.zeros((len(scores), classes, classes), dtype=np.int64)
    diagonal = np.arange(1, classes)
    confusion[:, diagonal, diagonal] = found
    confusion[:, 1:, 0] = confusion[:, 0, 1:] = lost
    confusion[:, 0, 0] = found.sum(1)
    return {"confusion": confusion}


def experiment(scenario: Scenario, metric: str, draws: Draws, number: int) -> Floats:
    """Intervals of both methods' score and of the gap, (3, 2), as the leaderboard computes them."""
    rng = np.random.default_rng([scenario.images, scenario.seeds, number])
    once = np.ones((1, scenario.images), dtype=np.uint16)
    counts = np.concatenate([once, draws(scenario.images, scenario.resamples, number)])
    scores = values(scenario, metric, counts, rng)
    means = scores[..., 0].mean(axis=1)
    kind = Kind({str(i): seeds for i, each in enumerate(scores) if (seeds := Seeds.of(each[:, 0]))})
    one, two = (
        row_score(f"{number} {i}", list(each), Runs(kind.spread(str(i)))).samples
        for i, each in enumerate(scores)
    )
    return np.array(
        [
            intervals.interval(one, means[0]),
            intervals.interval(two, means[1]),
            intervals.interval(one - two, means[0] - means[1]),
        ]
    )


def fresh(scenario: Scenario, metric: str, number: int) -> Floats:
    """The score of both methods on a fresh split, mean over its seeds."""
    rng = np.random.default_rng([scenario.images, scenario.seeds, number, 1])
    once = np.ones((1, scenario.images), dtype=np.uint16)
    return values(scenario, metric, once, rng)[..., 0].mean(axis=1)


def endless(scenario: Scenario) -> Floats:
    """The mAP of both methods on an endless split, mean over seeds, in points: (2,)."""
    t = np.linspace(-8, 12, 20_001)
    nodes, weights = np.polynomial.hermite_e.hermegauss(9)
    means = []
    for strength in STRENGTHS:
        by_seed = []
        for own in strength + scenario.spread * nodes:
            recall, false = norm.sf(t - own), norm.sf(t)
            precision = [f * recall / (f * recall + (1 - f) * false) for f in scenario.classes]
            by_seed.append((np.mean(precision, axis=0) * norm.pdf(t - own)).sum() * (t[1] - t[0]))
        means.append(100 * np.average(by_seed, weights=weights))
    return np.array(means)


def with_gap(both: Floats) -> Floats:
    """Two methods' values and their difference, (3,)."""
    return np.append(both, both[0] - both[1])


def coverage(intervals: Floats, true: Floats) -> Floats:
    """Share of the intervals (E, 3, 2) that contain the true values (3,)."""
    return ((intervals[..., 0] <= true) & (true <= intervals[..., 1])).mean(axis=0)


def line(cells: Iterable[object]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def main() -> int:
    """Simulate every scenario, print the table; 1 if the claim fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="share of the experiments")
    parser.add_argument("--draws", choices=("halves", "bootstrap"), default="halves")
    parser.add_argument("--metric", choices=METRICS, default="mAP")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--boards", type=int, help="simulate so many boards of every shape instead")
    parser.add_argument("--widest", type=float, help="of model.WIDEST, with --boards")
    options = parser.parse_args()
    if options.boards:
        return simulated_boards.run(options.boards, options.processes, options.widest)
    draws = resampling.resamples if options.draws == "halves" else with_replacement
    headers = ["images", "classes", "seeds", "their spread", "experiments"]
    both = [f"{options.metric} {i}" for i in (1, 2)]
    headers += [*both, "gap", f"endless: {both[0]}", both[1], "gap", "width of the gap"]
    print(line(headers), line(["---:"] * len(headers)), sep="\n", flush=True)
    held = True
    with ProcessPoolExecutor(options.processes) as pool:
        for scenario in SCENARIOS:
            start = time.monotonic()
            count = max(20, round(scenario.experiments * options.scale))
            splits = max(100, round((4000 if scenario.images < 1000 else 1500) * options.scale))
            intervals = np.array(
                list(
                    pool.map(
                        partial(experiment, scenario, options.metric, draws),
                        range(count),
                        chunksize=5,
                    )
                )
            )
            lots = list(
                pool.map(partial(fresh, scenario, options.metric), range(splits), chunksize=20)
            )
            contained = coverage(intervals, with_gap(np.mean(lots, axis=0)))
            limit = endless(scenario) if options.metric == "mAP" else np.full(2, np.nan)
            beside = coverage(intervals, with_gap(limit))
            width = np.median(np.ptp(intervals[:, 2], axis=1))
            mark = " *" if scenario.claimed else ""
            shares = [f"{100 * share:.1f}%" for share in contained]
            shares += [f"{100 * s:.1f}%" if options.metric == "mAP" else "-" for s in beside]
            cells = [f"{scenario.images:,}{mark}", len(scenario.classes), scenario.seeds]
            print(
                line([*cells, f"{scenario.spread:g}", count, *shares, f"{width:.1f}"]), flush=True
            )
            print(f"{time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
            if scenario.claimed:
                held &= bool(((contained >= LOWEST) & (contained <= HIGHEST)).all())
    return int(not held)


if __name__ == "__main__":
    sys.exit(main())
