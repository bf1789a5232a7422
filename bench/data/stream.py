"""TODO."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from bench.data.image_files import read
from bench.data.image_folder import LabeledImages


class Stream(Dataset[Any]):
    """Position p of an endless stream: shuffled passes over the corpus, one after another.

    What stands at a position depends on the seed and the position alone, not on workers,
    processes or where a run was resumed: every position seeds torch afresh before the image is
    augmented.

    Args:
        corpus: the images.
        seed: of the order and of the augmentation.
        example: image uint8 (3, H, W) and label -> what the loader collates.
        length: how many positions a loader may ask for.
    """

    def __init__(
        self, corpus: LabeledImages, seed: int, example: Callable[[Tensor, int], Any], length: int
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
        images = self._corpus.images
        image = read(images.root / images.files[index])
        # Not torch.manual_seed, which also visits every accelerator: as slow as the decoding.
        torch.default_generator.manual_seed(_mix(self._seed, position))
        return self._example(image, int(self._corpus.labels[index]))


def _mix(seed: int, position: int) -> int:
    """A 63-bit seed for one position: neighbors must not give related random streams."""
    text = f"{seed}/{position}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 1
