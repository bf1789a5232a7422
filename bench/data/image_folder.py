"""The pretraining corpus: an image folder, and the endless shuffled stream drawn from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from bench.data.image_files import Pictures, scan
from bench.errors import UserError
from bench.runtime.progress import Reporter

SUFFIXES = {".jpg", ".jpeg", ".png"}


@dataclass(frozen=True)
class Corpus:
    """Pictures with the class each folder names; only `supervised` may look at the labels.

    Attributes:
        pictures: the files.
        labels: int64 (N,), the index of each picture's folder.
        classes: the folders' names, sorted.
    """

    pictures: Pictures
    labels: np.ndarray
    classes: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the pictures; their labels are part of the file names."""
        return self.pictures.fingerprint


def open_corpus(folder: Path, damaged: Literal["stop", "skip"], reporter: Reporter) -> Corpus:
    """Open an image folder: FOLDER/CLASS/**/*.jpg, any depth below the class.

    Raises:
        UserError: the folder is missing or empty, or a picture is damaged.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder (the suite's corpus.folder); see --data-root")
    files = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.parent != folder
    )
    if not files:
        raise UserError(f"{folder}: holds no pictures in class folders (CLASS/*.jpg)")
    with reporter.stage("checking the corpus", len(files)) as bar:
        pictures = scan(folder, files, damaged, bar.advance)
    names = [name.split("/")[0] for name in pictures.files]
    classes, labels = np.unique(names, return_inverse=True)
    return Corpus(pictures, labels, tuple(map(str, classes)))




