"""What would settle it: how many seeds, or test images, tell two rows apart.

Two rows are told apart if z^2 V < d^2, where d is their difference as it is now, and V its variance

    V = (V_I + V_IT / k) / f + V_T / k

- V_I, V_IT: of the test images, common to all seeds, and of one seed each alone (`model`);
- V_T = sigma_1^2 + sigma_2^2 - V_IT: of one training run of each;
- k: the seeds of each; f: by how many times there are more test images;
- z: the 97.5% quantile of the normal distribution.

At such a size half of the repeats tell them apart, for the difference moves too: it is a lower
bound of what to plan for.
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
        images: times as many test images as there are, more than 1; None if no number does with
            these seeds.
    """

    seeds: int | None
    images: float | None


def needed(difference: float, images: float, own: float, runs: float, seeds: int) -> Needed:
    """How many seeds, or how many times the test images, two rows need.

    Args:
        difference: d, in points.
        images: V_I + V_IT / k of the seeds that there are, in points squared.
        own: V_IT / k of them, at most `images`.
        runs: (V_T + V_IT) / k of them, at least `own`.
        seeds: k, of the row that has fewer.
    """
    square = (difference / Z) ** 2
    common = max(images - own, 0.0)
    count = math.floor(seeds * runs / (square - common)) + 1 if square > common else MOST + 1
    fixed = max(runs - own, 0.0)
    times = images / (square - fixed) if square > fixed else math.inf
    return Needed(
        max(count, seeds + 1) if runs and count <= MOST else None,
        times if 1 < times <= MOST else None,
    )
