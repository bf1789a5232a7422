"""What a reader of a row must know first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.results.record import Record

COLLAPSED = 0.1  # an adversarial method whose images vary less than this share of real ones'


def flags(records: Sequence[Record], over: Mapping[str, tuple[float, float]]) -> list[str]:
    """The flags of one method's records, and of what it gained.

    Args:
        records: of all seeds, failed ones too.
        over: per untrained method, the interval of the difference to it.
    """
    scored = [found for found in records if found.status == "ok"]
    said = sorted({flag for found in scored for flag in found.flags})
    said += [f"seed {found.seed} failed" for found in records if found.status != "ok"]
    varied = [r.pretraining.logged.get("diversity", 1.0) for r in scored if r.pretraining]
    if min(varied, default=1.0) < COLLAPSED:
        said.append("generated images collapsed")
    unconverged = sum(found.selection.get("unconverged", 0) for found in scored)
    if unconverged:
        said.append(f"{unconverged} probe fits unconverged")
    for floor, (low, high) in over.items():
        if high < 0:
            said.append(f"below {floor}")
        elif low <= 0:
            said.append(f"not distinguishable from {floor}")
    return said
