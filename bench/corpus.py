"""The pretraining corpus: an image folder, and the endless shuffled stream drawn from it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from bench.errors import UserError
from bench.images import Pictures, read, scan
from bench.progress import Reporter

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


class Stream(Dataset[Any]):
    """Position p of an endless stream: shuffled passes over the corpus, one after another.

    What stands at a position depends on the seed and the position alone, not on workers,
    processes or where a run was resumed: every position seeds torch afresh before the picture is
    augmented.

    Args:
        corpus: the pictures.
        seed: of the order and of the augmentation.
        example: picture uint8 (3, H, W) and label -> what the loader collates.
        length: how many positions a loader may ask for.
    """

    def __init__(
        self, corpus: Corpus, seed: int, example: Callable[[Tensor, int], Any], length: int
    ) -> None:
        self._corpus, self._seed, self._example, self._length = corpus, seed, example, length
        self._pass: tuple[int, np.ndarray] = (-1, np.empty(0, int))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, position: int) -> Any:
        count = len(self._corpus.labels)
        epoch, offset = divmod(position, count)
        if self._pass[0] != epoch:
            self._pass = epoch, np.random.default_rng([self._seed, epoch]).permutation(count)
        index = int(self._pass[1][offset])
        pictures = self._corpus.pictures
        image = read(pictures.root / pictures.files[index])
        # Not torch.manual_seed, which also visits every accelerator: as slow as the decoding.
        torch.default_generator.manual_seed(_mix(self._seed, position))
        return self._example(image, int(self._corpus.labels[index]))


def _mix(seed: int, position: int) -> int:
    """A 63-bit seed for one position: neighbours must not give related random streams."""
    text = f"{seed}/{position}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 1
