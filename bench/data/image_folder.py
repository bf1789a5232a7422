"""The pretraining corpus: an image folder, and the endless shuffled stream drawn from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from bench.data.image_files import ImageFiles, verify
from bench.errors import UserError
from bench.runtime.progress import Reporter

SUFFIXES = {".jpg", ".jpeg", ".png"}


@dataclass(frozen=True)
class LabeledImages:
    """ImageFiles with the class each folder names; only `supervised` may look at the labels.

    Attributes:
        images: the files.
        labels: int64 (N,), the index of each image's folder.
        classes: the folders' names, sorted.
    """

    images: ImageFiles
    labels: np.ndarray
    classes: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the images; their labels are part of the file names."""
        return self.images.fingerprint


def open_image_folder(folder: Path, damaged: Literal["stop", "skip"], reporter: Reporter) -> LabeledImages:
    """Open an image folder: FOLDER/CLASS/**/*.jpg, any depth below the class.

    Raises:
        UserError: the folder is missing or empty, or an image is damaged.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder (the suite's corpus.folder); see --data-root")
    files = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.parent != folder
    )
    if not files:
        raise UserError(f"{folder}: holds no images in class folders (CLASS/*.jpg)")
    with reporter.stage("checking the corpus", len(files)) as bar:
        images = verify(folder, files, damaged, bar.advance)
    names = [name.split("/")[0] for name in images.files]
    classes, labels = np.unique(names, return_inverse=True)
    return LabeledImages(images, labels, tuple(map(str, classes)))




