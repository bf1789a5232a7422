"""A published data set below a data root: downloaded, unpacked, converted and put in place."""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.data.published.archives import unpack
from bench.data.published.catalog import PublishedDataset, lookup
from bench.data.published.convert import CONVERSIONS
from bench.data.published.download import (
    UnavailableError,
    check_space,
    download,
    megabytes,
    part_size,
)
from bench.data.published.verification import ARCHIVES, is_complete, manifest_path
from bench.errors import UserError
from bench.runtime.files import atomic_write, locked
from bench.runtime.fingerprint import file_digest
from bench.runtime.progress import Reporter


def fetch(dataset: PublishedDataset, root: Path, reporter: Reporter) -> bool:
    """Put a data set in place, unless it is complete; whether it was not.

    Files that are there are never replaced. Archives are kept in the folder `archives` of the
    data root; those that are there already are used. What is interrupted resumes.

    Raises:
        UnavailableError: it has to be put in place by hand.
        UserError: the disk is full, an archive is damaged, or other files are in the way.
    """
    if is_complete(dataset, root):
        return False
    if dataset.needs and not is_complete(lookup(dataset.needs), root):
        command = f"bench data get {dataset.needs} --data-root {root}"
        raise UserError(f"{dataset.name}: needs {dataset.needs}; run {command}")
    if not dataset.is_downloadable:
        raise UnavailableError(f"{dataset.name}: cannot be downloaded without registration")
    folder = root / ARCHIVES
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / f".{dataset.name}.lock"):
        left = (a.size - part_size(a, folder) + a.unpacked for a in dataset.archives)
        check_space(folder, sum(left))
        paths = [download(archive, folder, reporter) for archive in dataset.archives]
        with _staging(folder / f"{dataset.name}.unpacked") as staging:
            _unpack(dataset, paths, staging, root, reporter)
            _put_in_place(dataset, staging, root)
    return True


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """A new folder that is removed at the end; a killed run may have left one."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unpack(
    dataset: PublishedDataset, paths: list[Path], staging: Path, root: Path, reporter: Reporter
) -> None:
    """Unpack all archives into one folder, the later ones over the earlier, as tar does."""
    for archive, path in zip(dataset.archives, paths, strict=True):
        own = staging.with_name(f"{staging.name}.next")
        with _staging(own), megabytes(reporter, f"unpacking {path.name}", archive.unpacked) as bar:
            unpack(archive, path, own, bar.advance)
            for name in _files(own):
                _move(own / name, staging / name)
    if dataset.conversion:
        CONVERSIONS[dataset.conversion](staging, root, reporter)


def _put_in_place(dataset: PublishedDataset, staging: Path, root: Path) -> None:
    """Move all files below the data root, and write the manifest.

    Raises:
        UserError: another file has the name of one; then none is moved.
    """
    names = _files(staging)
    for name in names:
        target = root / name
        if target.exists() and not filecmp.cmp(staging / name, target, shallow=False):
            raise UserError(
                f"{target}: is there already and differs from that of {dataset.name}; "
                "move it away, or use another --data-root"
            )
    manifest = "".join(f"{file_digest(staging / name)}  {name}\n" for name in names)
    for name in names:
        _move(staging / name, root / name)
    atomic_write(manifest_path(dataset, root), manifest.encode())


def _files(folder: Path) -> list[str]:
    """The paths of all files below a folder."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)
