"""Which test images stand in the pretraining corpus, and what the board makes of it.

`bench audit` searches for near-duplicates (`duplicates`) and writes OUT/SUITE/audit.json. The board
counts them for rows that were trained on that very corpus and tested on that very list, and says so
where an audit is of other images. Imports no torch but to search.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from pathlib import Path

from pydantic import ValidationError

from bench.config.schema import Suite
from bench.errors import UserError
from bench.results.record import Record, Table
from bench.runtime.files import atomic_write
from bench.runtime.progress import Reporter

FILE = "audit.json"


class Searched(Table):
    """One set of images that was searched."""

    fingerprint: str
    """As records name it."""
    images: int


class Thresholds(Table):
    """What made two images near-duplicates; see `duplicates`."""

    hash: str
    bits: int
    side: int
    difference: float


class Duplicate(Table):
    """A test image and a corpus image that look the same."""

    list: str
    """The test list, as records name it: `voc_test` or `masks_test`."""
    test: str
    corpus: str
    mirrored: bool
    bits: int
    difference: float


class Audit(Table):
    """What a search found."""

    suite: str
    corpus: Searched
    tests: dict[str, Searched]
    thresholds: Thresholds
    duplicates: list[Duplicate]

    def contaminated(self, names: Set[str]) -> int:
        """How many test images of some lists have a near-duplicate in the corpus."""
        return len({found.test for found in self.duplicates if found.list in names})


def search(
    suite: Suite, reads: Set[str], root: Path | None, cache: Path, reporter: Reporter
) -> Audit:
    """Compare every test image, as it is and mirrored, with every image of the corpus.

    Args:
        suite: says where both lie.
        reads: the image sets of the tasks that count: `voc`, `masks`.
        root: the data root; None for a suite that renders its own.
        cache: where rendered images are kept.
        reporter: where progress is shown.

    Raises:
        UserError: the data cannot be used.
    """
    from importlib.metadata import version

    from bench.data import near_duplicates
    from bench.data.datasets import open_data

    data = open_data(suite, root, {*reads, "corpus"}, cache, reporter)
    assert data.corpus is not None
    corpus = data.corpus.images
    lists = {"voc_test": data.voc and data.voc.test, "masks_test": data.masks and data.masks.test}
    tests = {name: split for name, split in lists.items() if split}
    found = []
    with reporter.stage("hashing the corpus", len(corpus.files)) as bar:
        known = near_duplicates.hashes(corpus, bar.advance)
    for name, split in tests.items():
        for mirrored in (False, True):
            what = f"{name}{', mirrored' if mirrored else ''}"
            with reporter.stage(f"hashing {what}", len(split.ids)) as bar:
                signs = near_duplicates.hashes(split.images, bar.advance, mirrored)
            with reporter.stage(f"searching for {what}", len(known)) as bar:
                for row, place, bits in near_duplicates.near(known, signs, bar.advance):
                    test, other = split.images.files[place], corpus.files[row]
                    paths = split.images.root / test, corpus.root / other
                    unlike = near_duplicates.difference(*paths, mirrored)
                    if unlike <= near_duplicates.DIFFERENCE:
                        found.append(
                            Duplicate(
                                list=name,
                                test=test,
                                corpus=other,
                                mirrored=mirrored,
                                bits=bits,
                                difference=round(unlike, 4),
                            )
                        )
    return Audit(
        suite=suite.name,
        corpus=Searched(fingerprint=corpus.fingerprint, images=len(corpus.files)),
        tests={
            name: Searched(fingerprint=split.fingerprint, images=len(split.ids))
            for name, split in tests.items()
        },
        thresholds=Thresholds(
            hash=f"imagehash {version('imagehash')} phash",
            bits=near_duplicates.DISTANCE,
            side=near_duplicates.SIDE,
            difference=near_duplicates.DIFFERENCE,
        ),
        duplicates=sorted(found, key=lambda d: (d.list, d.test, d.corpus, d.mirrored)),
    )


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
    if not path.is_file():
        return None
    try:
        return Audit.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"{path}: not an audit (key '{key}': {first['msg']}); delete it and run bench audit"
        ) from None


def flags(audit: Audit | None, records: Sequence[Record]) -> list[str]:
    """What an audit says of a row: nothing without one, or of a row that saw no corpus."""
    trained = [found for found in records if "corpus" in found.data]
    if audit is None or not trained:
        return []
    lists = {k: v for k, v in trained[0].data.items() if k.endswith("_test")}
    audited = {name: searched.fingerprint for name, searched in audit.tests.items()}
    mine = (
        trained[0].data["corpus"] == audit.corpus.fingerprint and lists.items() <= audited.items()
    )
    if not lists.keys() <= audited.keys():
        return ["not audited: this test list was not searched"]
    if not mine:
        return ["stale audit: of other images"]
    count = audit.contaminated(lists.keys())
    return [f"contaminated: {count} test images"] if count else []
