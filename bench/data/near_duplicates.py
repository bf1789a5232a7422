"""Near-duplicates between two sets of images: a perceptual hash first, then the pixels.

An image's hash is imagehash's `phash`: 64 signs of the low frequencies of its 32 x 32 gray copy
(Zauner 2010, "Implementation and benchmarking of perceptual image hash functions"). Resizing to
another aspect, compressing again and small changes of color turn a few bits; two different
images differ in 32 of 64 on average. Pairs within `DISTANCE` bits are then compared pixel by
pixel at `SIDE` x `SIDE`. One set is also searched mirrored, as a crop's flip is common in training.
An image that was cropped by more than a few percent, or rotated, is not detected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from bench.data.image_files import ImageFiles, decode, to_rgb
from bench.data.manifest import THREADS
from bench.errors import UserError

BITS = 64
DISTANCE = 10  # bits of 64; of random hashes one pair in 44 million is as near
SIDE = 32  # pixels, for the comparison of pairs
DECODED = 128  # pixels at least, that a larger JPEG is decoded to
DIFFERENCE = 0.3  # of the spread; what was measured is in docs/checks.md
CHUNK = 4096  # hashes compared with all others at a time: 4096 x 10,000 floats are 160 MB


def hashes(
    images: ImageFiles, advance: Callable[[int], None], mirrored: bool = False
) -> NDArray[np.float32]:
    """The perceptual hash of every image, (N, 64) of 1 and -1; zeros of a damaged, skipped one.

    Args:
        images: the files.
        advance: called with 1 for each image.
        mirrored: whether to hash mirror images.

    Raises:
        UserError: an image cannot be decoded, and such are not skipped.
    """
    signs = np.zeros((len(images.files), BITS), np.float32)

    def fill(row: int) -> None:
        try:
            signs[row] = np.where(_hash(images.root / images.files[row], mirrored), 1, -1)
        except UserError:
            if images.damaged == "stop":
                raise

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(fill, range(len(images.files))):
            advance(1)
    return signs


def _hash(path: Path, mirrored: bool) -> NDArray[np.bool_]:
    image = _open(path)
    bits: NDArray[np.bool_] = imagehash.phash(
        ImageOps.mirror(image) if mirrored else image
    ).hash.ravel()
    return bits


def _open(path: Path) -> Image.Image:
    """Decode an image; a large JPEG at a fraction of its size, which is faster."""
    return decode(path, _reduced)


def _reduced(image: Image.Image) -> Image.Image:
    image.draft("RGB", (DECODED, DECODED))
    return to_rgb(image).copy()


def near(
    one: NDArray[np.float32], other: NDArray[np.float32], advance: Callable[[int], None]
) -> Iterator[tuple[int, int, int]]:
    """Every pair of hashes within `DISTANCE` bits: (row of one, row of other, bits).

    Signs agree in 64 - d positions and differ in d, so their product is 64 - 2 d. All distances of
    a chunk are one matrix product.

    Args:
        one: (N, 64) of 1 and -1.
        other: (M, 64) likewise.
        advance: called with the rows of `one` done.
    """
    for start in range(0, len(one), CHUNK):
        alike = one[start : start + CHUNK] @ other.T
        for row, column in np.argwhere(alike >= BITS - 2 * DISTANCE):
            yield start + int(row), int(column), int(BITS - alike[row, column]) // 2
        advance(len(alike))


def difference(one: Path, other: Path, mirrored: bool = False) -> float:
    """Root mean square difference of two images at `SIDE` x `SIDE`, over the second's spread.

    Each channel is compared less its mean, so a change of brightness alone is none. 0 for equal
    images, about 1.4 for unrelated ones of equal spread.
    """
    small = []
    for path, mirror in ((one, mirrored), (other, False)):
        image = _open(path).resize((SIDE, SIDE), Image.Resampling.BOX)
        pixels = np.asarray(ImageOps.mirror(image) if mirror else image, dtype=float)
        small.append(pixels - pixels.mean((0, 1)))
    spread = max(float(np.sqrt((small[1] ** 2).mean())), 1.0)  # a gray level: a blank image's
    return float(np.sqrt(((small[0] - small[1]) ** 2).mean())) / spread
