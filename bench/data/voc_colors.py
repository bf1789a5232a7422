"""The colors of class indices in the masks of a VOCdevkit."""

from __future__ import annotations

from functools import cache

Color = tuple[int, int, int]


@cache
def voc_colors(count: int) -> tuple[Color, ...]:
    """RGB bytes of the first class indices, from 0, background.

    Bit 3k + c of an index is bit 7 - k of channel c, as in the devkit's VOCcode/VOClabelcolormap.m.

    Args:
        count: of indices, at most 256.
    """
    return tuple((_channel(i, 0), _channel(i, 1), _channel(i, 2)) for i in range(count))


def _channel(index: int, channel: int) -> int:
    """One channel of the color of an index."""
    return sum((index >> (3 * k + channel) & 1) << (7 - k) for k in range(3))
