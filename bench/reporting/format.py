"""Numbers as text, the same in every table: `41.3 [38.3, 44.3]`, 95%, 2.96 M, 3 min."""

from __future__ import annotations

import re

from bench.statistics.intervals import Estimate
from bench.statistics.planning import Needed

MISSING = "-"
MINUS, EN_DASH = "\N{MINUS SIGN}", "\N{EN DASH}"
MINUTE, HOUR = 60, 3600  # seconds


def points(value: float) -> str:
    """Points with one decimal, never a negative zero."""
    return f"{value:z.1f}"


def deviation(value: float) -> str:
    """A standard deviation in points, with two decimals."""
    return f"{value:.2f}"


def signed(value: float) -> str:
    """Points with one decimal and a sign."""
    return f"{value:+z.1f}"


def estimate(estimated: Estimate) -> str:
    """Points with their interval, where there is one."""
    if estimated.interval is None:
        return points(estimated.value)
    low, high = estimated.interval
    return f"{points(estimated.value)} [{points(low)}, {points(high)}]"


def signed_interval(difference: Estimate | None) -> str:
    """A difference in points with a sign and two decimals, and its interval, where there is one."""
    if difference is None:
        return MISSING
    text = f"{difference.value:+z.2f}"
    if difference.interval is None:
        return text
    return f"{text} [{difference.interval.low:z.2f}, {difference.interval.high:z.2f}]"


def settled(difference: Estimate, needed: Needed) -> str:
    """What would tell two rows apart at their difference, as a sentence without a stop."""
    interval = difference.interval
    if interval and not interval.low <= 0 <= interval.high:
        return "told apart"
    if difference.value == 0:
        return "the same score"
    ways = []
    if needed.seeds:
        ways.append(f"{needed.seeds} seed{'s' if needed.seeds > 1 else ''} of each")
    if needed.images:
        ways.append(f"{needed.images:.1f} times as many test images")
    if not ways:
        return "at this difference, neither seeds nor test images alone would tell them apart"
    return f"at this difference, {' or '.join(ways)} would tell them apart in half of the repeats"


def coefficient(estimated: Estimate) -> str:
    """A correlation with two decimals, and its interval."""
    text = f"{estimated.value:z.2f}"
    if estimated.interval is None:
        return text
    return f"{text} [{estimated.interval.low:z.2f}, {estimated.interval.high:z.2f}]"


def share(estimated: Estimate) -> str:
    """A share in percent, with its interval."""
    text = f"{100 * estimated.value:z.0f}%"
    if estimated.interval is None:
        return text
    low, high = estimated.interval
    return f"{text} [{100 * low:z.0f}, {100 * high:z.0f}]"


def probability(value: float) -> str:
    """A probability in percent; a thousand resamples cannot tell 1 from nearly 1."""
    if value > 0.99:
        return ">99%"
    return "<1%" if value < 0.01 else f"{100 * value:.0f}%"


def percentage(value: float) -> str:
    """A share in percent; with a decimal below 10%."""
    return f"{100 * value:.0f}%" if value >= 0.1 else f"{100 * value:.1f}%"


def count(value: float) -> str:
    """A number of things."""
    return f"{value:,.0f}"


def millions(value: float) -> str:
    """A number of parameters."""
    return f"{value / 1e6:.2f} M"


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    if seconds < MINUTE:
        return "<1 min"
    return f"{seconds / MINUTE:.0f} min" if seconds < 1.5 * HOUR else f"{seconds / HOUR:.1f} h"


def typographic(text: str) -> str:
    """Numbers with a true minus sign, and a dash where there is none."""
    if text == MISSING:
        return EN_DASH
    return re.sub(r"(?<![\w.])-(?=\d)", MINUS, text)


def latex(text: str) -> str:
    """Text for LaTeX: special characters escaped, a true minus sign before numbers."""
    if text == MISSING:
        return "--"
    escaped = re.sub(r"[\\{}$&#^_%~<>]", lambda match: SPECIAL[match[0]], text)
    return re.sub(r"(?<![\w.])-(?=\d)", "$-$", escaped)


SPECIAL = {character: f"\\{character}" for character in "{}$&#_%"} | {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": "$<$",
    ">": "$>$",
}
