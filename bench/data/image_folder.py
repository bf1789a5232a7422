"""A folder of images: with a folder for each class, or flat and without labels."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from bench.config.schema import ImageFolder
from bench.data.image_files import ImageFiles, verify
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
    def ids(self) -> tuple[str, ...]:
        """The files' paths below the folder."""
        return self.images.files

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the images; their labels are part of the file names."""
        return self.images.fingerprint


def open_image_folder(
    root: Path, name: str, section: ImageFolder, split: SplitName, reporter: Reporter
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
    files = sorted(content.files)
    if not files:
        raise UserError(f"{folder}: has no images (CLASS/*.jpg or *.jpg){content.left_out_text()}")
    flat = sum("/" not in file for file in files)
    if 0 < flat < len(files):
        raise UserError(
            f"{folder}: has {flat} images beside the class folders; move them into one, or away"
        )
    if content.left_out:
        reporter.say(f"{folder}{content.left_out_text()}")
    with reporter.stage(f"checking {name}", len(files)) as bar:
        images = verify(folder, files, section.damaged, bar.advance)
    if flat:
        return LabeledImages(images, np.zeros(len(images.files), dtype=np.int64), ())
    names = [file.split("/")[0] for file in images.files]
    classes, labels = np.unique(names, return_inverse=True)
    if {name.lower() for name in classes} <= SPLITS:
        raise UserError(
            f"{folder}: its folders have names of splits, not of classes ({', '.join(classes)}); "
            f"name one of them as datasets.{name}.{split}"
        )
    _check_classes(images, labels, classes.tolist())
    return LabeledImages(images, labels, tuple(map(str, classes)))


def _check_classes(images: ImageFiles, labels: np.ndarray, classes: list[str]) -> None:
    """Refuse a split inside itself, and two classes of the same images.

    Raises:
        UserError: names the folders.
    """
    for file in images.files:
        top, *below = file.split("/")
        if top.lower() in SPLITS and len(below) > 1:
            raise UserError(
                f"{images.root / top}: has the name of a split and folders inside: it is no class; "
                "move it away"
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


@dataclass
class _Content:
    """What is below a folder.

    Attributes:
        files: images, their paths below it.
        left_out: the paths of everything else, by its kind.
    """

    files: list[str] = field(default_factory=list)
    left_out: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def left_out_text(self) -> str:
        """How many of each kind were left out, and the first of each; nothing if none were."""
        if not self.left_out:
            return ""
        kinds = [f"{len(n):,} {kind} ({min(n)!a})" for kind, n in sorted(self.left_out.items())]
        return f": left out {', '.join(kinds)}"


def walk(folder: Path) -> _Content:
    """The regular files below a folder, links followed.

    Raises:
        UserError: a folder cannot be read or is reached twice, or a link is broken.
    """
    content = _Content()
    above = [_identity(path) for path in (folder, *folder.resolve().parents)]
    reached: dict[tuple[int, int], str] = {}
    pending = [("", frozenset(above))]
    while pending:
        below, ancestors = pending.pop()
        for entry in _entries(folder / below):
            name = f"{below}{entry.name}"
            try:
                kind = _left_out_kind(entry, ancestors)
            except OSError as error:  # of a link to itself
                raise UserError(f"{entry.path}: cannot be read ({error.strerror})") from None
            if kind:
                content.left_out[kind].append(name)
                continue
            if not entry.is_dir():
                content.files.append(name)
                continue
            own = _identity(entry)
            if own in reached:
                raise UserError(
                    f"{folder / name}: is the folder {folder / reached[own]} under another name"
                )
            reached[own] = name
            pending.append((f"{name}/", ancestors | {own}))
    return content


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from None


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
