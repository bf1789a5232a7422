"""Does an interval from one seed hold another seed? Leaving one row out, on calibrated suites.

For every row of a suite whose seeds differ: the spread of its runs is taken from the other rows of
its kind, without its own seeds. From each of its seeds an interval for another run on the same
images is made, and each other seed is looked up in it. The width is compared with that of the same
interval where the row's own seeds are known too.

    python benchmarks/seeds.py mini
    python benchmarks/seeds.py mini --rerun results/local/mini   # the same seeds, run elsewhere
"""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path

import numpy as np

from bench.config import loader
from bench.results import storage
from bench.statistics import calibration
from bench.statistics.model import LEAST, Kind, Seeds, Spread

TWO_RUNS = 0.5  # the difference of two runs has twice the variance of one


def half_width(spread: Spread) -> float:
    """Points within which 95% of the differences of two runs are expected."""
    return float(spread.quantiles([0.975], TWO_RUNS)[0])


def main() -> None:
    """Print a line for each row, the share of pairs inside, and the median width."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suite")
    parser.add_argument("--rerun", type=Path, help="OUT/SUITE with the same seeds, run elsewhere")
    arguments = parser.parse_args()
    found = calibration.parse(loader.read_tables(arguments.suite), arguments.suite)
    if found is None:
        raise SystemExit(f"{arguments.suite} has no calibration")
    for task, part in found.tasks.items():
        inside: list[bool] = []
        widths: list[float] = []
        reruns: list[bool] = []
        for kind in sorted({row.kind for row in part.rows.values()}):
            values = {name: row.values for name, row in part.rows.items() if row.kind == kind}
            varying = {name: each for name, each in values.items() if np.ptp(each) > LEAST}
            seeds = {name: s for name, each in varying.items() if (s := Seeds.of(each))}
            for name in seeds:
                others = Kind({other: row for other, row in seeds.items() if other != name})
                spread = others.spread(name)
                own = Kind(seeds).spread(name)
                if spread is None or own is None:
                    continue
                most = half_width(spread)
                pairs = [abs(a - b) <= most for a, b in combinations(values[name], 2)]
                inside += pairs
                widths.append(most / half_width(own))
                line = f"{task} {name}: sd {seeds[name].variance ** 0.5:.2f}, another run within "
                line += f"{most:.2f} points: {sum(pairs)} of {len(pairs)} pairs"
                file = arguments.rerun and arguments.rerun / task / name / "seed0.json"
                if file and file.exists():
                    moved = abs((storage.read(file).value or 0.0) - values[name][0])
                    reruns.append(moved <= half_width(own))
                    line += f"; run elsewhere it moved by {moved:.2f} of {half_width(own):.2f}"
                print(line)
        print(f"{task}: {100 * np.mean(inside):.1f}% of {len(inside)} pairs of {len(widths)} rows")
        print(f"{task}: {np.median(widths):.2f} times as wide as with the own seeds, median")
        if reruns:
            print(f"{task}: run elsewhere, {sum(reruns)} of {len(reruns)} rows within")


if __name__ == "__main__":
    main()
