"""What would settle it: how many seeds, or test images, tell two rows apart.

Two rows are told apart if z^2 (V_I / f + V_T / k) < d^2, where d is their difference as it is now,
V_I the variance of the difference over test images, f by how many times there are more of them,
V_T = sigma_1^2 + sigma_2^2 that of one training run of each (`model`), k the seeds of each, and z
the 97.5% quantile of the normal distribution. At such a size half of the repeats tell them apart,
for the difference moves too: it is a lower bound of what to plan for.
"""

from __future__ import annotations

import math
from typing import NamedTuple

Z = 1.96
MOST = 1000  # seeds, or times as many images: nobody has more


class Needed(NamedTuple):
    """What would tell two rows apart, the other being as it is.

    Attributes:
        seeds: of each row, more than there are; None if no number does on these images.
        images: times as many test images as there are; None if no number does with these seeds.
    """

    seeds: int | None
    images: float | None


def needed(difference: float, images: float, run: float, runs: float, seeds: int) -> Needed:
    """How many seeds, or how many times the test images, two rows need.

    Args:
        difference: d, in points.
        images: V_I, in points squared.
        run: V_T of one seed each, in points squared.
        runs: the same of the seeds that there are.
        seeds: how many there are of the row that has fewer.
    """
    square = (difference / Z) ** 2
    count = math.floor(run / (square - images)) + 1 if square > images else MOST + 1
    times = images / (square - runs) if square > runs else math.inf
    return Needed(
        max(count, seeds + 1) if run and count <= MOST else None,
        max(times, 1.0) if times <= MOST else None,
    )
