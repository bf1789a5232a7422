"""audit.json: near-duplicates of test images among the pretraining images, and their warnings.

`bench audit` writes OUT/SUITE/audit.json. The leaderboard counts the duplicates for rows that were
trained on those very images and tested on that very split. It says so where an audit is of others.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from pathlib import Path

from pydantic import ValidationError

from bench.config.schema import PRETRAINING
from bench.errors import UserError, from_validation
from bench.results.record import Count, Measure, Record, Table
from bench.runtime import regular
from bench.runtime.files import atomic_write

FILE = "audit.json"
LARGEST = 2**24  # bytes of it
TRAINED_ON = f"{PRETRAINING}_train"


class Searched(Table):
    """One set of images that was searched."""

    fingerprint: str
    """As records name it."""
    num_images: Count


class Thresholds(Table):
    """Thresholds of near-duplicates; see `data.near_duplicates`."""

    hash: str
    bits: Count
    side: Count
    difference: Measure


class Duplicate(Table):
    """A test image and a pretraining image that look the same."""

    split: str
    """The test split, as records name it: `voc_test`."""
    test: str
    pretraining: str
    mirrored: bool
    bits: Count
    difference: Measure


class Audit(Table):
    """The outcome of a search."""

    suite: str
    pretraining: Searched
    tests: dict[str, Searched]
    thresholds: Thresholds
    duplicates: list[Duplicate]

    def contaminated(self, splits: Set[str]) -> int:
        """Number of test images of some splits that have a near-duplicate in pretraining."""
        return len({entry.test for entry in self.duplicates if entry.split in splits})


def save(audit: Audit, folder: Path) -> Path:
    """Write audit.json into OUT/SUITE.

    Raises:
        UserError: the folder cannot be written.
    """
    path = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(path, (audit.model_dump_json(indent=1) + "\n").encode())
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); see --out") from None
    return path


def read(folder: Path) -> Audit | None:
    """The audit in OUT/SUITE; None if there is none.

    Raises:
        UserError: the file is not one.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        return Audit.model_validate_json(regular.read(path, LARGEST))
    except ValidationError as error:
        hint = "delete it and run bench audit"
        raise from_validation(f"{path}: not an audit", error, hint) from None


def warnings(audit: Audit | None, records: Sequence[Record]) -> list[str]:
    """Warnings of an audit about a row; none without one, or if the suite's images were unused."""
    trained = [record for record in records if TRAINED_ON in record.data]
    if audit is None or not trained:
        return []
    splits = trained[0].test_data
    audited = {name: searched.fingerprint for name, searched in audit.tests.items()}
    if not splits.keys() <= audited.keys():
        return ["not audited: this test split was not searched"]
    same = trained[0].data[TRAINED_ON] == audit.pretraining.fingerprint
    if not (same and splits.items() <= audited.items()):
        return ["stale audit: of other images"]
    count = audit.contaminated(splits.keys())
    return [f"contaminated: {count} test images"] if count else []
