"""What is known of the training runs of each row of a table: by its seeds, or by rows like it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bench.results.record import Record
from bench.statistics.calibration import RowUncertainty, TaskUncertainty, holds, kind_of
from bench.statistics.model import LEAST, NO_SPREAD, Kind, Seeds, Spread

Source = Literal["fixed", "seeds", "calibration", "kind", "unknown"]


@dataclass(frozen=True)
class Runs:
    """The training runs of one row.

    Attributes:
        spread: of one run's score; None where no row of its kind has several seeds.
        interaction: share of the images' variance that is a seed's own, see `model.interaction`.
        source: how the spread is known: `fixed` weights do not vary; from its own `seeds`; from
            those that the `calibration` of the suite has of it; from the rows of its `kind`.
        kind: see `calibration.kind_of`.
        rows: of how many rows the seeds tell, its own among them.
    """

    spread: Spread | None
    interaction: float = 0.0
    source: Source = "unknown"
    kind: str = ""
    rows: int = 0


def training_runs(
    rows: Mapping[str, Sequence[Record]], calibrated: TaskUncertainty | None
) -> dict[str, Runs]:
    """The training runs of every row of a task.

    A row's seeds in the calibration join its own, of which one number counts once. The mean stays
    that of its own seeds.

    Args:
        rows: method -> the scored records of its seeds, at least one.
        calibrated: of the task, where the suite has a calibration that holds for it.
    """
    known = calibrated.rows if calibrated else {}
    parts = {name: part for name, part in known.items() if _holds(part, rows.get(name))}
    kinds: dict[str, dict[str, Seeds]] = defaultdict(dict)
    fixed = set[str]()
    for name in {**rows, **parts}:
        records = rows.get(name, ())
        values = dict(enumerate(parts[name].values)) if name in parts else {}
        values |= {record.seed: record.value or 0.0 for record in records}
        kind = kind_of(records[0]) if records else parts[name].kind
        if _is_fixed(kind, records, list(values.values())):
            fixed.add(name)
        elif seeds := Seeds.of(list(values.values())):
            kinds[kind][name] = seeds
    laws = {kind: Kind(seeds) for kind, seeds in kinds.items()}
    return {name: _runs(name, records, laws, parts, fixed) for name, records in rows.items()}


def _holds(part: RowUncertainty, records: Sequence[Record] | None) -> bool:
    return not records or holds(part, records[0])


def _is_fixed(kind: str, records: Sequence[Record], values: Sequence[float]) -> bool:
    """Whether seeds do not change a row: equal scores alone may be those of two runs.

    Args:
        kind: see `calibration.kind_of`.
        records: of its own seeds.
        values: of all of its seeds, those of the calibration among them.
    """
    if kind == "fine-tuned" or len(values) < 2 or np.ptp(values) > LEAST:
        return False
    weights = {record.encoder.weights_sha256 for record in records if record.encoder}
    predictions = {record.predictions.sha256 for record in records if record.predictions}
    same = len(weights) < 2 and len(predictions) < 2
    return same and (kind == "reference" or len(records) > 1)


def _runs(
    name: str,
    records: Sequence[Record],
    laws: Mapping[str, Kind],
    parts: Mapping[str, RowUncertainty],
    fixed: Collection[str],
) -> Runs:
    kind = kind_of(records[0])
    law = laws.get(kind, Kind({}))
    if name in fixed or (kind == "reference" and not law.rows):
        return Runs(NO_SPREAD, source="fixed", kind=kind)
    spread = law.spread(name)
    if spread is None:
        return Runs(None, kind=kind)
    source: Source = "kind"
    if name in law.rows:
        source = "seeds" if len(records) > 1 else "calibration"
    shares = [p.interaction for p in parts.values() if p.kind == kind and p.interaction is not None]
    share = parts[name].interaction if name in parts else None
    if share is None:
        share = float(np.mean(shares)) if shares else 0.0
    return Runs(spread, share, source, kind, len(law.rows))
