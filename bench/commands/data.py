"""`bench data`: published data sets, listed, downloaded and verified."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.data.published.catalog import CATALOG, Archive, PublishedDataset, lookup
from bench.runtime.progress import Reporter


def lines() -> Iterator[str]:
    """Each data set: images, terms of use, archives with their checksums, mirrors."""
    for dataset in CATALOG.values():
        yield f"{dataset.name}: {dataset.title}"
        splits = ", ".join(f"{split.name} {split.images:,}" for split in dataset.splits)
        yield f"  images    {splits}"
        yield f"  terms     {dataset.terms}"
        yield f"            {dataset.page}"
        yield f"  placed in {dataset.folder}"
        for archive in dataset.archives:
            yield f"  archive   {_described(archive)}"
            yield f"            checksum read in {archive.source or 'no public source'}"
            yield from (f"            {url}" for url in archive.urls)


def _described(archive: Archive) -> str:
    """An archive by its name, size and checksum."""
    checksum = archive.checksum.replace(":", " ") or "not verified"
    return f"{archive.name}, {archive.size:,} bytes, {checksum}"


def get(name: str, root: Path, say: Callable[[str], None], reporter: Reporter) -> str:
    """Put a data set in place; the line that says where it is.

    Args:
        name: of the data set.
        root: the data root.
        say: prints a line, if the data set has to be put in place by hand.
        reporter: for progress.

    Raises:
        UserError: it cannot be put in place.
    """
    dataset = lookup(name)
    from bench.data.published import fetch, verification
    from bench.data.published.download import UnavailableError

    where = root / dataset.folder
    try:
        if not fetch.fetch(dataset, root, reporter):
            return f"{name}: is complete already, in {where}"
    except UnavailableError:
        for line in by_hand(dataset, root):
            say(line)
        raise
    archives = root / verification.ARCHIVES
    return f"{name}: is complete, in {where}; the archives in {archives} are no longer needed"


def by_hand(dataset: PublishedDataset, root: Path) -> Iterator[str]:
    """The files to put in place where nothing can be downloaded."""
    yield f"{dataset.name} by hand:"
    yield f"  terms: {dataset.terms} ({dataset.page})"
    yield from (f"  {line}" for line in dataset.notes)
    for archive in dataset.archives:
        yield f"  {_described(archive)}"
        yield from (f"    {url}" for url in archive.urls)
    if dataset.is_downloadable:
        yield f"  Put what is listed above into {root / 'archives'} and run the same command again,"
        yield f"  or put these files into {root}:"
    else:
        yield f"  Put these files into {root}:"
    yield from (f"    {line}" for line in dataset.layout)
    yield f"  Then run bench data verify {dataset.name} --data-root {root}"


def verify(name: str, root: Path, say: Callable[[str], None], reporter: Reporter) -> bool:
    """Print what is missing, broken or extra, and a summary; whether nothing is.

    Args:
        name: of the data set.
        root: the data root.
        say: prints a line.
        reporter: for progress.

    Raises:
        UserError: the data set is not there.
    """
    dataset = lookup(name)
    from bench.data.published import verification

    files, problems = verification.verify(dataset, root, reporter)
    for problem in problems:
        say(f"{problem.kind:7}  {problem.text}")
    kinds = Counter(problem.kind for problem in problems)
    counts = ", ".join(f"{kinds[kind]:,} {kind}" for kind in ("missing", "broken", "extra"))
    say(f"{name}: {files:,} files, {counts if problems else 'nothing missing, broken or extra'}")
    return not problems
