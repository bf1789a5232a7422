"""`bench audit`: search the pretraining images for near-duplicates of test images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench import plugins
from bench.commands import plan
from bench.config import settings
from bench.config.schema import PRETRAINING, Suite
from bench.results import audit as results
from bench.results.audit import Audit, Duplicate, Searched, Thresholds
from bench.runtime.progress import Reporter

if TYPE_CHECKING:
    from bench.data.datasets import Split


def audit(
    suite: Suite,
    tasks: Sequence[str],
    root: Path | None,
    out: Path,
    cache: Path,
    reporter: Reporter,
) -> Iterator[str]:
    """Search, write OUT/SUITE/audit.json and say what there is, line by line.

    Raises:
        UserError: the data cannot be used, or the folder cannot be written.
    """
    names = {
        settings.resolved_task_settings(suite, task, cache)["dataset"]
        for task in tasks
        if task in suite.tasks or plugins.describe("tasks", task).origin != "shipped"
    }
    plan.check_cache(cache)
    outcome = search(suite, sorted(names), root, cache, reporter)
    path = results.save(outcome, out / suite.name)
    for name, searched in outcome.tests.items():
        count = outcome.contaminated({name})
        yield (
            f"{name}: {count} of {searched.num_images:,} test images have a near-duplicate among "
            f"{outcome.pretraining.num_images:,} pretraining images"
        )
    yield f"{path}; bench leaderboard --out {out} counts it"


def search(
    suite: Suite, names: Sequence[str], root: Path | None, cache: Path, reporter: Reporter
) -> Audit:
    """Compare every test image, as it is and mirrored, with every pretraining image.

    Args:
        suite: says where both are.
        names: the data sets whose test splits are searched.
        root: the data root; None for a suite that renders its own images.
        cache: folder for rendered images.
        reporter: for progress.

    Raises:
        UserError: the data cannot be used.
    """
    from importlib.metadata import version

    from bench.data import near_duplicates
    from bench.data.datasets import open_datasets

    opened = open_datasets(suite, {*names, PRETRAINING}, root, cache, reporter)
    pretraining = opened[PRETRAINING].train
    tests = {f"{n}_test": d.test for n, d in opened.items() if n in names and d.test is not None}
    return Audit(
        suite=suite.name,
        pretraining=_searched(pretraining),
        tests={name: _searched(split) for name, split in tests.items()},
        thresholds=Thresholds(
            hash=f"imagehash {version('imagehash')} phash",
            bits=near_duplicates.DISTANCE,
            side=near_duplicates.SIDE,
            difference=near_duplicates.DIFFERENCE,
        ),
        duplicates=_duplicates(pretraining, tests, reporter),
    )


def _searched(split: Split) -> Searched:
    return Searched(fingerprint=split.fingerprint, num_images=len(split.ids))


def _duplicates(
    pretraining: Split, tests: Mapping[str, Split], reporter: Reporter
) -> list[Duplicate]:
    """The near-duplicates of every test split, in order."""
    from bench.data import near_duplicates

    images = pretraining.images
    duplicates = []
    with reporter.stage("hashing pretraining images", len(images.files)) as bar:
        hashes = near_duplicates.hashes(images, bar.advance)
    for name, split in tests.items():
        for mirrored in (False, True):
            what = f"{name}, mirrored" if mirrored else name
            with reporter.stage(f"hashing {what}", len(split.ids)) as bar:
                queries = near_duplicates.hashes(split.images, bar.advance, mirrored)
            with reporter.stage(f"searching for {what}", len(hashes)) as bar:
                for row, index, bits in near_duplicates.near(hashes, queries, bar.advance):
                    test = split.images.files[index]
                    other = images.files[row]
                    difference = near_duplicates.difference(
                        split.images.root / test, images.root / other, mirrored
                    )
                    if difference > near_duplicates.DIFFERENCE:
                        continue
                    duplicates.append(
                        Duplicate(
                            split=name,
                            test=test,
                            pretraining=other,
                            mirrored=mirrored,
                            bits=bits,
                            difference=round(difference, 4),
                        )
                    )
    return sorted(duplicates, key=lambda d: (d.split, d.test, d.pretraining, d.mirrored))
