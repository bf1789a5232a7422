"""Warnings shown beside a leaderboard row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.results.record import Record
from bench.statistics.intervals import Estimate

COLLAPSED = 0.1  # an adversarial method whose images vary less than this share of real ones'


def warnings(records: Sequence[Record], gains: Mapping[str, Estimate]) -> list[str]:
    """The warnings of one method's records, and of what it gained.

    Args:
        records: of all seeds, failed ones too.
        gains: per baseline, the row's score less that of the baseline.
    """
    scored = [record for record in records if record.status == "ok"]
    texts = sorted({text for record in scored for text in record.warnings})
    texts += [f"seed {record.seed} failed" for record in records if record.status != "ok"]
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
