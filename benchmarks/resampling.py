"""How much faster resampled mAP is than scikit-learn's average precision on each resample.

    python benchmarks/resampling.py                # scikit-learn on 5 resamples, its time scaled up
    python benchmarks/resampling.py --peer 1000    # on all of them; takes minutes

The work is one paired comparison at the size of VOC07 test: two rows, 4,952 images x 20 classes,
1,000 resamples, the same for both. Kind "step" is scikit-learn's definition. Exit status 1 if a
claim below does not hold.
"""

import argparse
import sys
import time

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from bench.metrics import registry
from bench.metrics.resampled import resampling_weights
from bench.statistics import intervals, resampling

IMAGES, CLASSES, RESAMPLES = 4952, 20, 1000
MAX_SECONDS, MIN_RATIO, MAX_DIFFERENCE = 5.0, 50.0, 1e-9


def rows() -> tuple[list[NDArray[np.float32]], NDArray[np.int8]]:
    """Scores (N, C) of two rows, and truth, 1 and -1, with the class frequencies of VOC07."""
    rng = np.random.default_rng(0)
    frequency = rng.uniform(0.04, 0.09, CLASSES)
    frequency[14] = 0.4  # "person"
    positive = rng.random((IMAGES, CLASSES)) < frequency
    shared = rng.normal(size=positive.shape)
    noise = (rng.normal(size=positive.shape) for _ in range(2))
    scores = [(2 * positive + shared + own).astype(np.float32) for own in noise]
    return scores, np.where(positive, 1, -1).astype(np.int8)


def peer(
    scores: NDArray[np.float32], truth: NDArray[np.int8], counts: NDArray[np.uint16]
) -> NDArray[np.float64]:
    """The same by scikit-learn: mAP of every resample, (B,)."""
    values = []
    for drawn in counts:
        kept = np.repeat(np.arange(len(drawn)), drawn)
        each = [
            average_precision_score(truth[kept, c] > 0, scores[kept, c]) for c in range(CLASSES)
        ]
        values.append(np.mean(each))
    return np.array(values)


def main() -> int:
    """Run both, print seconds, ratio and agreement; 1 if a claim fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", type=int, default=5, metavar="N", help="resamples for the peer")
    options = parser.parse_args()
    scores, truth = rows()
    start = time.perf_counter()
    counts = resampling.resamples(IMAGES, RESAMPLES, seed=0)
    weights = resampling_weights(counts)
    metric = registry.MeanAveragePrecision("mAP_step", "step")
    rows_ = [{"scores": each, "truth": truth} for each in scores]
    ours = [registry.resampled_values(metric, row, weights) / 100 for row in rows_]
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    theirs = [peer(each, truth, counts[: options.peer]) for each in scores]
    scaled = (time.perf_counter() - start) * RESAMPLES / options.peer
    difference = max(
        float(np.abs(one[: options.peer] - two).max())
        for one, two in zip(ours, theirs, strict=True)
    )
    interval = intervals.interval(ours[0] - ours[1], 0)
    print(f"work           2 rows x {RESAMPLES:,} resamples of {IMAGES:,} x {CLASSES}")
    print(f"ours           {seconds:.2f} s, drawing included (claim: under {MAX_SECONDS:g} s)")
    print(f"scikit-learn   {scaled:.1f} s (measured: {options.peer} resamples, scaled)")
    print(f"ratio          {scaled / seconds:.0f} (claim: at least {MIN_RATIO:g})")
    print(f"difference     {difference:.1e} (claim: at most {MAX_DIFFERENCE:g})")
    width = 100 * (interval.high - interval.low)
    print(f"width of the paired interval: {width:.2f} points")
    slow = seconds > MAX_SECONDS or scaled / seconds < MIN_RATIO
    return int(slow or difference > MAX_DIFFERENCE)


if __name__ == "__main__":
    sys.exit(main())
