"""Many comparisons at once: which differences hold together, and the ranks that follow.

Each 95% interval holds by itself; of the 136 pairs of 17 rows that are alike, seven would exclude 0
by chance. A family of differences is tested jointly instead, by the stepwise procedure of Romano
and Wolf (2005, Econometrica 73(4)). The largest ratio of a difference to its width, over the family
and over the joint samples, has a 95% quantile; what exceeds it is different from 0; the rest is
tested again without it, until nothing more exceeds. The chance that any difference is called
wrongly is at most 5%.

Ranks follow from all pairs (Mogstad, Romano, Shaikh and Wilhelm 2024, Review of Economic Studies
91(1), section 3.3): a row's best rank is one more than the rows that are above it, its worst the
number of rows less those that are below it. All ranges hold together in at least 95% of cases.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import NamedTuple, TypeVar

import numpy as np

from bench.metrics.average_precision import Floats
from bench.statistics.intervals import LEVEL

Key = TypeVar("Key", bound=Hashable)


class Ranks(NamedTuple):
    """The first and the last rank that a row may have; 1 is the best."""

    first: int
    last: int


def different(samples: Mapping[Key, Floats], level: float = LEVEL) -> set[Key]:
    """The differences of a family that are not 0, jointly.

    Args:
        samples: of each difference (B,), centered on its value, all on the same draws; nan is left
            out.
        level: the probability that none is called wrongly.
    """
    if not samples:
        return set()
    keys = list(samples)
    draws = np.stack([samples[key] for key in keys])
    values = np.nanmean(draws, axis=1)
    moves = np.abs(draws - values[:, None])
    quantile = np.nanquantile if np.isnan(moves).any() else np.quantile  # the latter is faster
    scale = quantile(moves, level, axis=1)
    ratios = np.divide(moves, scale[:, None], out=np.zeros_like(moves), where=scale[:, None] > 0)
    found = (scale == 0) & (np.abs(values) > 0)  # nothing varies
    sizes = np.divide(np.abs(values), scale, out=np.zeros_like(values), where=scale > 0)
    open_ = scale > 0
    while open_.any():
        largest = np.where(np.isnan(ratios[open_]), -1.0, ratios[open_]).max(axis=0)
        critical = np.quantile(largest[largest >= 0], level)
        more = open_ & (sizes > critical)
        if not more.any():
            break
        found |= more
        open_ &= ~more
    return {key for key, is_different in zip(keys, found, strict=True) if is_different}


def from_pairs(name: str, count: int, above: set[tuple[str, str]]) -> Ranks:
    """The ranks of one of `count` rows, by the pairs of which the first is above the second."""
    better = sum(second == name for _, second in above)
    worse = sum(first == name for first, _ in above)
    return Ranks(1 + better, count - worse)
