"""The endless shuffled stream of training images, seeded by position."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from bench.data.image_files import (
    ImageError,
    ImageFiles,
    UndecodableError,
    check_damaged,
    read_pixels,
    refusal,
)
from bench.errors import UserError


class DamagedImages:
    """The images that a run could not decode, noted by every process that meets one.

    Each is an empty file, which a killed run leaves for the one that resumes it.

    Args:
        folder: for these files, named by the indices of the images.
        images: of the run.
    """

    def __init__(self, folder: Path, images: ImageFiles) -> None:
        self._folder = folder
        self._images = images
        self._known = set[int]()
        self._said = set[int]()

    def __contains__(self, index: int) -> bool:
        """Whether this process has noted an image."""
        return index in self._known

    def add(self, index: int) -> None:
        """Note an image.

        Raises:
            UserError: they are too many.
        """
        self._known.add(index)
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / str(index)).touch()
        self.check(self.indices())

    def indices(self) -> set[int]:
        """The images that all processes with this folder have noted."""
        if self._images.damaged == "stop" or not self._folder.is_dir():
            return set()
        return {int(path.name) for path in self._folder.iterdir()}

    def check(self, indices: set[int]) -> None:
        """Refuse too many of them, together with those that were left out at the start.

        Raises:
            UserError: they are too many.
        """
        images = self._images
        skipped = len(images.skipped)
        check_damaged(images.root, skipped + len(indices), skipped + len(images.files))

    def say_new(self, say: Callable[[str], None]) -> None:
        """Name the images that this process has not named yet."""
        for index in sorted(self.indices() - self._said):
            self._said.add(index)
            say(f"{self._images.root / self._images.files[index]}: cannot be decoded; skipped")

    def clear(self) -> None:
        """Remove the files, when the run is at its end."""
        shutil.rmtree(self._folder, ignore_errors=True)


class Stream(Dataset[Any]):
    """An endless stream of images: shuffled passes, one after another.

    An item depends on the seed and its position alone, not on workers, processes or resuming.
    Before an image is augmented, its position seeds torch. In place of a damaged image, where such
    are skipped, comes the next one of the pass; after the last one, the first.

    Args:
        images: the files.
        labels: one for each image, int64 (N,).
        seed: of the order and of the augmentation.
        transform: image uint8 (3, H, W) and label -> what the loader collates.
        length: how many positions a loader may ask for.
        damaged: notes what cannot be decoded.
    """

    def __init__(
        self,
        images: ImageFiles,
        labels: np.ndarray,
        seed: int,
        transform: Callable[[Tensor, int], Any],
        length: int,
        damaged: DamagedImages | None = None,
    ) -> None:
        self._images = images
        self._labels = labels
        self._seed = seed
        self._transform = transform
        self._length = length
        self._damaged = damaged
        self._epoch = -1
        self._order = np.empty(0, int)

    def __len__(self) -> int:
        return self._length

    def index(self, position: int) -> int:
        """The index of the image at a position."""
        epoch, offset = divmod(position, len(self._labels))
        if epoch != self._epoch:
            rng = np.random.default_rng([self._seed, epoch])
            self._order = rng.permutation(len(self._labels))
            self._epoch = epoch
        return int(self._order[offset])

    def __getitem__(self, position: int) -> Any:
        index, image = self._draw(position)
        # Not torch.manual_seed, which also visits every accelerator: as slow as the decoding.
        torch.default_generator.manual_seed(_position_seed(self._seed, position))
        return self._transform(image, int(self._labels[index]))

    def _draw(self, position: int) -> tuple[int, Tensor]:
        """The index and the pixels of the image at a position, or of the next one of its pass.

        Raises:
            UserError: an image cannot be read, or must not be skipped.
        """
        count = len(self._labels)
        start = position - position % count
        for step in range(count):
            index = self.index(start + (position + step) % count)
            if self._damaged and index in self._damaged:
                continue
            path = self._images.root / self._images.files[index]
            try:
                return index, read_pixels(path, self._images.decoder)
            except UndecodableError as problem:
                if self._images.damaged == "stop":
                    raise refusal(path, str(problem)) from None
            except ImageError as problem:
                raise UserError(f"{path}: {problem}") from None
            if self._damaged:
                self._damaged.add(index)
        raise UserError(f"{self._images.root}: has no image that can be decoded")


def _position_seed(seed: int, position: int) -> int:
    """A 63-bit seed for one position; neighbors get unrelated random streams."""
    text = f"{seed}/{position}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 1
