"""A folder of images: with a folder for each class, or flat and without labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from bench.config.schema import ImageFolder
from bench.data.image_files import ImageFiles, verify
from bench.errors import UserError
from bench.runtime.progress import Reporter

SplitName = Literal["train", "test", "validation"]

SUFFIXES = {".jpg", ".jpeg", ".png"}


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
    paths = [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES]
    files = sorted(path.relative_to(folder).as_posix() for path in paths)
    if not files:
        raise UserError(f"{folder}: has no images (CLASS/*.jpg or *.jpg)")
    flat = sum("/" not in file for file in files)
    if 0 < flat < len(files):
        raise UserError(
            f"{folder}: has {flat} images beside the class folders; move them into one, or away"
        )
    with reporter.stage(f"checking {name}", len(files)) as bar:
        images = verify(folder, files, section.damaged, bar.advance)
    if flat:
        return LabeledImages(images, np.zeros(len(images.files), dtype=np.int64), ())
    names = [file.split("/")[0] for file in images.files]
    classes, labels = np.unique(names, return_inverse=True)
    return LabeledImages(images, labels, tuple(map(str, classes)))
