"""How often the interval of a rank correlation contains the tau-b of the expected scores.

    python benchmarks/rank_correlation.py                 # some ten minutes on one core
    python benchmarks/rank_correlation.py --experiments 50

Expected scores of R methods in two tasks are normal, with a correlation `rho` and a standard
deviation of `spread` times that of the noise, in each task. `one ahead`: the first method is 15
deviations of the noise ahead of the mean in both. Beside the interval of the leaderboard is that of
tau-b on resampled scores, which adds noise to noisy scores.
"""

import argparse
from dataclasses import dataclass
from itertools import product

import numpy as np

from bench.statistics.rank_correlation import interval, tau_b

AHEAD = 15.0
DRAWS = 1000
SPREADS = ((0.001, 0.001), (1.0, 1.0), (2.0, 2.0), (5.0, 5.0), (5.0, 0.5))
TAILS = (0.025, 0.975)


@dataclass(frozen=True)
class Scenario:
    """What is simulated."""

    methods: int
    spreads: tuple[float, float]
    rho: float
    ahead: bool = False


SCENARIOS = [
    *(Scenario(*each) for each in product((5, 8, 19), SPREADS, (0.0, 0.8))),
    *(Scenario(*each, ahead=True) for each in product((8, 19), SPREADS[1:3], (0.0, 0.8))),
]


def simulate(scenario: Scenario, experiments: int) -> tuple[float, float, float]:
    """The share of intervals that contain the value, of resampled ones, and the median width."""
    rng = np.random.default_rng(0)
    law = np.linalg.cholesky([[1, scenario.rho], [scenario.rho, 1]])
    held, resampled, widths = [], [], []
    for _ in range(experiments):
        expected = law @ rng.normal(size=(2, scenario.methods))
        expected *= np.array(scenario.spreads)[:, None]
        if scenario.ahead:
            expected[:, 0] = AHEAD
        scores = expected + rng.normal(size=expected.shape)
        moves = rng.normal(size=(*expected.shape, DRAWS))
        true = tau_b(*expected)
        low, high = interval(scores, moves)
        held.append(low - 1e-9 <= true <= high + 1e-9)
        widths.append(high - low)
        ends = np.quantile(tau_b(*np.moveaxis(scores[..., None] + moves, -1, 1)), TAILS)
        resampled.append(ends[0] - 1e-9 <= true <= ends[1] + 1e-9)
    return float(np.mean(held)), float(np.mean(resampled)), float(np.median(widths))


def main() -> None:
    """Print a line for each scenario."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiments", type=int, default=400)
    experiments = parser.parse_args().experiments
    print("methods  spreads       rho  one ahead   held  resampled  width")
    for s in SCENARIOS:
        held, resampled, width = simulate(s, experiments)
        spreads = "{:g}, {:g}".format(*s.spreads)
        print(
            f"{s.methods:7}  {spreads:12}  {s.rho:3}  {s.ahead!s:9}  {held:5.1%}"
            f"  {resampled:9.1%}  {width:5.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
