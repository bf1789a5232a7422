"""The endless shuffled stream of training images, seeded by position."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from bench.data.image_files import ImageFiles, read


class Stream(Dataset[Any]):
    """An endless stream of images: shuffled passes, one after another.

    An item depends on the seed and its position alone, not on workers, processes or resuming.
    Before an image is augmented, its position seeds torch.

    Args:
        images: the files.
        labels: one for each image, int64 (N,).
        seed: of the order and of the augmentation.
        transform: image uint8 (3, H, W) and label -> what the loader collates.
        length: how many positions a loader may ask for.
    """

    def __init__(
        self,
        images: ImageFiles,
        labels: np.ndarray,
        seed: int,
        transform: Callable[[Tensor, int], Any],
        length: int,
    ) -> None:
        self._images = images
        self._labels = labels
        self._seed = seed
        self._transform = transform
        self._length = length
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
        index = self.index(position)
        image = read(self._images.root / self._images.files[index])
        # Not torch.manual_seed, which also visits every accelerator: as slow as the decoding.
        torch.default_generator.manual_seed(_position_seed(self._seed, position))
        return self._transform(image, int(self._labels[index]))


def _position_seed(seed: int, position: int) -> int:
    """A 63-bit seed for one position; neighbors get unrelated random streams."""
    text = f"{seed}/{position}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 1
