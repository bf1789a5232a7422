"""A folder of images: with a folder for each class, or flat and without labels."""

from __future__ import annotations

import os
from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Literal

import numpy as np

from bench.config.schema import ImageFolder
from bench.data.image_files import ImageFiles, verify
from bench.data.manifest import Builder, FileNames
from bench.errors import UserError
from bench.runtime.progress import Reporter

SplitName = Literal["train", "test", "validation"]

# Of images; those that are neither JPEG nor PNG inside are refused, not passed over.
SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png"),
    *(".bmp", ".gif", ".webp", ".tif", ".tiff", ".avif", ".heic", ".jp2", ".ppm", ".pgm"),
}
# What systems leave behind, beside names that begin with a dot; lower case.
LEFTOVERS = {
    *("__macosx", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini", "lost+found"),
    *("@eadir", "@recycle", "#recycle", "$recycle.bin", "system volume information"),
}
SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}


@dataclass(frozen=True)
class LabeledImages:
    """Images with the class that each folder names.

    Attributes:
        images: the files.
        labels: int64 (N,), the index of each image's class; 0 where there are no classes.
        classes: the folders' names, sorted; empty for a flat folder.
    """

    images: ImageFiles
    labels: np.ndarray
    classes: tuple[str, ...]

    @property
    def ids(self) -> Sequence[str]:
        """The files' paths below the folder."""
        return self.images.files

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the images; their labels are part of the file names."""
        return self.images.fingerprint


def open_image_folder(
    root: Path,
    name: str,
    section: ImageFolder,
    split: SplitName,
    reporter: Reporter,
    manifests: Path | None = None,
) -> LabeledImages:
    """Open one split of an image folder: FOLDER/CLASS/**/*.jpg, or FOLDER/*.jpg without classes.

    Raises:
        UserError: the folder is missing or empty, mixes both forms, or an image is damaged.
    """
    folder = root / getattr(section, split)
    if not folder.is_dir():
        key = f"datasets.{name}.{split}"
        raise UserError(f"{folder}: no such folder (the suite's {key}); see --data-root")
    content = walk(folder)
    if not content.files:
        raise UserError(f"{folder}: has no images (CLASS/*.jpg or *.jpg){content.left_out_text()}")
    flat = sum("/" not in file for file in content.files)
    if 0 < flat < len(content.files):
        raise UserError(
            f"{folder}: has {flat} images beside the class folders; move them into one, or away"
        )
    if content.left_out:
        reporter.say(f"{folder}{content.left_out_text()}")
    files = content.files
    if section.images_per_class is not None:
        if flat:
            raise UserError(
                f"datasets.{name}.images_per_class: {folder} has no folder for each class"
            )
        files = _first_of_each_class(files, section.images_per_class)
    with reporter.stage(f"checking {name}", len(files)) as bar:
        images = verify(folder, files, section.damaged, bar.advance, manifests, section.decoder)
    if flat:
        return LabeledImages(images, np.zeros(len(images.files), dtype=np.int64), ())
    labels, classes = _labels(images.files)
    if {name.lower() for name in classes} <= SPLITS:
        raise UserError(
            f"{folder}: its folders have names of splits, not of classes ({', '.join(classes)}); "
            f"name one of them as datasets.{name}.{split}"
        )
    _check_classes(images, labels, classes)
    return LabeledImages(images, labels, tuple(classes))


def _first_of_each_class(files: Sequence[str], count: int) -> FileNames:
    """The first files of each class, of sorted paths; all of a class that has no more."""
    classes = groupby(files, key=lambda file: file.partition("/")[0])
    return FileNames.of(file for _, own in classes for file in islice(own, count))


def _labels(files: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """The label of each file, int64 (N,), and the names of the classes, sorted.

    Args:
        files: sorted paths, so that those of a class follow one another.
    """
    folders: list[str] = []
    numbers = array("q")
    for file in files:
        folder = file.partition("/")[0]
        if not folders or folders[-1] != folder:
            folders.append(folder)
        numbers.append(len(folders) - 1)
    classes = sorted(folders)
    return np.searchsorted(classes, folders)[np.array(numbers, np.int64)], classes


def _check_classes(images: ImageFiles, labels: np.ndarray, classes: list[str]) -> None:
    """Refuse a split inside itself, and two classes of the same images.

    Raises:
        UserError: names the folders.
    """
    for label, name in enumerate(classes):
        positions = np.flatnonzero(labels == label) if name.lower() in SPLITS else ()
        if any(images.files[int(position)].count("/") > 1 for position in positions):
            raise UserError(
                f"{images.root / name}: has the name of a split and folders inside: it is no "
                "class; move it away"
            )
    known: dict[bytes, str] = {}
    order = np.lexsort((images.contents, labels))
    starts = np.searchsorted(labels[order], range(1, len(classes)))
    for name, contents in zip(classes, np.split(images.contents[order], starts), strict=True):
        same = known.setdefault(contents.tobytes(), name)
        if same != name:
            raise UserError(
                f"{images.root / name}: has the images of {images.root / same}: "
                "a class under two names; remove one"
            )


@dataclass(frozen=True)
class Content:
    """What is below a folder.

    Attributes:
        files: images, their paths below it, sorted.
        left_out: of everything else, by its kind: how many, and the first path.
    """

    files: FileNames
    left_out: Mapping[str, tuple[int, str]]

    def left_out_text(self) -> str:
        """How many of each kind were left out, and the first of each; nothing if none were."""
        if not self.left_out:
            return ""
        counts = sorted(self.left_out.items())
        return f": left out {', '.join(f'{n:,} {kind} ({first!a})' for kind, (n, first) in counts)}"


def walk(folder: Path) -> Content:
    """The regular files below a folder, links followed.

    Raises:
        UserError: a folder cannot be read or is reached twice, or a link is broken.
    """
    files = Builder()
    left_out: dict[str, tuple[int, str]] = {}
    above = frozenset(_identity(path) for path in (folder, *folder.resolve().parents))
    reached: dict[tuple[int, int], str] = {}
    pending = [("", above, iter(_entries(folder)))]
    while pending:
        below, ancestors, entries = pending[-1]
        entry = next(entries, None)
        if entry is None:
            pending.pop()
            continue
        name = f"{below}{entry.name}"
        if _is_plain_image(entry):
            files.append(name)
            continue
        try:
            kind = _left_out_kind(entry, ancestors)
        except OSError as error:  # of a link to itself
            raise UserError(f"{entry.path}: cannot be read ({error.strerror})") from None
        if kind:
            count, first = left_out.get(kind, (0, name))
            left_out[kind] = (count + 1, min(first, name))
        elif not entry.is_dir():
            files.append(name)
        else:
            own = _identity(entry)
            if own in reached:
                raise UserError(
                    f"{folder / name}: is the folder {folder / reached[own]} under another name"
                )
            reached[own] = name
            pending.append((f"{name}/", ancestors | {own}, iter(_entries(folder / name))))
    return Content(files.names(), left_out)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder, in the order in which the paths below it are sorted."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=_place)
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from None


def _place(entry: os.DirEntry[str]) -> str:
    """What an entry is sorted by: a folder's name goes on with a slash."""
    if entry.is_file(follow_symlinks=False):
        return entry.name
    with suppress(OSError):  # of a link to itself, which is refused by name
        return f"{entry.name}/" if entry.is_dir() else entry.name
    return entry.name


def _is_plain_image(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a regular file, not a link, with the name of an image."""
    suffix = os.path.splitext(entry.name)[1]  # noqa: PTH122 - a million Paths take seconds
    plain = entry.name[0] != "." and entry.is_file(follow_symlinks=False)
    return plain and (suffix in SUFFIXES or suffix.lower() in SUFFIXES)


def _left_out_kind(entry: os.DirEntry[str], ancestors: frozenset[tuple[int, int]]) -> str:
    """Why an entry is left out, as the noun that counts it; empty for an image or a folder.

    Raises:
        UserError: it may be a folder, but links to nothing.
    """
    if entry.name.startswith(".") or entry.name.lower() in LEFTOVERS:
        return "hidden or system files"
    if entry.is_dir():
        loop = entry.is_symlink() and _identity(entry) in ancestors
        return "links to a folder above" if loop else ""
    broken = entry.is_symlink() and not Path(entry).exists()
    if Path(entry.name).suffix.lower() in SUFFIXES:
        return "" if entry.is_file() or broken else "pipes, sockets or devices"
    if broken:
        raise UserError(f"{entry.path}: links to nothing; remove it, or restore what it links to")
    return "files that are no images"


def _identity(path: Path | os.DirEntry[str]) -> tuple[int, int]:
    status = Path(path).stat()
    return status.st_dev, status.st_ino
