"""Warnings shown beside a leaderboard row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bench.results.record import Record
from bench.statistics.intervals import Estimate

CONTINUOUS = ("cost", "learning_rate", "ridge")  # hyperparameters whose grid could go further
LEARNED = 1.0  # points, from which on a row counts as having learned a class
COLLAPSED = 0.1  # an adversarial method whose images vary less than this share of real ones'


def warnings(
    records: Sequence[Record], score: Estimate | None, gains: Mapping[str, Estimate]
) -> list[str]:
    """The warnings of one method's records, of their score, and of what it gained.

    Args:
        records: of all seeds, failed ones too.
        score: of the row, if it has one.
        gains: per baseline, the row's score less that of the baseline.
    """
    scored = [record for record in records if record.status == "ok"]
    texts = sorted({text for record in scored for text in record.warnings})
    texts += sorted({text for record in scored for text in at_edges(record)})
    texts += sorted({text for record in scored for text in of_one_class(record)})
    texts += [f"seed {record.seed} failed" for record in records if record.status != "ok"]
    if score and score.interval and score.low == score.high:
        texts.append("too few test images for an interval: all halves of them score the same")
    diversities = [record.pretraining.logged.get("diversity", 1.0) for record in scored]
    if min(diversities, default=1.0) < COLLAPSED:
        texts.append("generated images collapsed")
    scores = [record.pretraining.pretext for record in scored]
    for answer in sorted({s.trivial_answer for s in scores if s and not s.improves}):
        texts.append(f"not better than {answer} at its own task")
    intervals = {name: gain.interval for name, gain in gains.items() if gain.interval}
    below = [name for name, interval in intervals.items() if interval.high < 0]
    alike = [name for name, interval in intervals.items() if interval.low <= 0 <= interval.high]
    texts += [f"below {' and '.join(below)}"] if below else []
    texts += [f"not distinguishable from {' and '.join(alike)}"] if alike else []
    return texts


def at_edges(record: Record) -> Iterator[str]:
    """The hyperparameters whose grid should go further: most were selected at an end of it."""
    for name in CONTINUOUS:
        grid = record.hyperparameters.tried.get(name, [])
        if any(type(value) not in (int, float) for value in grid) or len({*grid}) < 2:
            continue
        selected = record.hyperparameters.selected.get(name)
        each = list(selected.values()) if isinstance(selected, dict) else [selected]
        ends = sum(value in (min(grid), max(grid)) for value in each)
        if 2 * ends > len(each):
            some = f" for {ends} of {len(each)}" if isinstance(selected, dict) else ""
            yield f"{name} selected at the edge of its grid{some}"


def of_one_class(record: Record) -> Iterator[str]:
    """Whether a record scores in one class at most, as one whose pixels are all background."""
    learned = [name for name, points in record.per_class.items() if points >= LEARNED]
    if len(record.per_class) > 2 and len(learned) < 2:
        but = f" but {learned[0]}" if learned else ""
        yield f"scores below {LEARNED:.0f} in every class{but}"
