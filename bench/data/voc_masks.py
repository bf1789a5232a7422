"""The segmentation splits of a VOCdevkit: images and masks of class indices, all checked.

Layout and meaning as in the devkit's documentation (Everingham et al. 2012, devkit_doc, section
2.3): ImageSets/Segmentation/SPLIT.txt names the images, SegmentationClass/ID.png has a class
index for every pixel, 0 for background, 255 for a pixel that does not count. Masks of the SBD
(Hariharan et al. 2011) are in a folder of their own, beside those or instead of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from bench.config import schema
from bench.data.image_files import ImageFiles, ImageProblem, decode, verify
from bench.data.voc import check_disjoint, identifiers, joined_files, split_parts
from bench.errors import UserError
from bench.metrics.segmentation import VOID
from bench.runtime.fingerprint import digest
from bench.runtime.progress import Reporter

OFFICIAL = "SegmentationClass"


@dataclass(frozen=True)
class MaskSplit:
    """The images of one segmentation split.

    Attributes:
        ids: the identifiers, in the order of the split.
        images: the files, in the same order.
        masks: files of class indices, 0 background, 255 ignored; in the same order.
        fingerprint: SHA-256 of identifiers, images and masks.
    """

    ids: tuple[str, ...]
    images: ImageFiles
    masks: ImageFiles
    fingerprint: str


def open_voc_masks(
    root: Path, name: str, section: schema.VocMasks, reporter: Reporter
) -> tuple[MaskSplit, MaskSplit]:
    """Open and check the training and the test split of a VOCdevkit's segmentation.

    Raises:
        UserError: anything is missing, malformed or overlapping; the message names the file.
    """
    folder = root / section.folder
    train = split_parts(folder, name, "train", section.train)
    test = split_parts(folder, name, "test", section.test)
    train_ids = [identifiers(*part, "Segmentation") for part in train]
    test_ids = [identifiers(*part, "Segmentation") for part in test]
    check_disjoint(folder, (section.train, section.test), [train_ids, test_ids])
    num_labels = len(section.classes) + 1
    count = sum(map(len, [*train_ids, *test_ids]))
    with reporter.stage(f"checking {name}", count) as bar:
        opened = [
            _joined(
                folder,
                [
                    _open_part(year, masks, ids, num_labels, bar.advance)
                    for (year, _), ids in zip(parts, all_ids, strict=True)
                ],
            )
            for parts, all_ids, masks in (
                (train, train_ids, section.masks),
                (test, test_ids, OFFICIAL),
            )
        ]
    return opened[0], opened[1]


def _joined(folder: Path, parts: Sequence[MaskSplit]) -> MaskSplit:
    if len(parts) == 1:
        return parts[0]
    return MaskSplit(
        ids=tuple(identifier for part in parts for identifier in part.ids),
        images=joined_files(folder, [part.images for part in parts]),
        masks=joined_files(folder, [part.masks for part in parts]),
        fingerprint=digest([part.fingerprint for part in parts]),
    )


def _open_part(
    year: Path, folder: str, ids: tuple[str, ...], labels: int, advance: Callable[[int], None]
) -> MaskSplit:
    images = verify(year, [f"JPEGImages/{name}.jpg" for name in ids], "stop", lambda _: None)
    masks = verify(year, [_mask(year, folder, name) for name in ids], "stop", lambda _: None)
    for image, mask in zip(images.files, masks.files, strict=True):
        _check_mask(year / image, year / mask, labels)
        advance(1)
    return MaskSplit(ids, images, masks, digest([ids, images.fingerprint, masks.fingerprint]))


def _mask(devkit: Path, folder: str, identifier: str) -> str:
    """The mask in a folder, or the official one where that folder has none."""
    own = f"{folder}/{identifier}.png"
    official = f"{OFFICIAL}/{identifier}.png"
    return official if not (devkit / own).is_file() and (devkit / official).is_file() else own


def _check_mask(image: Path, mask: Path, labels: int) -> None:
    values = read_mask(mask)
    width, height = decode(image, lambda opened: opened.size)
    if values.shape != (height, width):
        size = f"{values.shape[1]} x {values.shape[0]}"
        raise UserError(f"{mask}: is {size} pixels, its image is {width} x {height}")
    odd = np.setdiff1d(values, [*range(labels), VOID])
    if odd.size:
        raise UserError(
            f"{mask}: has index {odd[0]}, but the data set's classes give 0 to {labels - 1}"
        )


def read_mask(path: Path) -> np.ndarray:
    """The class indices of a mask, uint8 (H, W): the PNG's palette indices, not its colors.

    Raises:
        UserError: the file is not a palette or gray-level PNG of 8 bits.
    """
    return decode(path, _indices)


def _indices(mask: Image.Image) -> np.ndarray:
    if mask.mode not in ("P", "L"):
        raise ImageProblem(f"has colors ({mask.mode}), not class indices")
    if mask.format != "PNG":
        raise ImageProblem(f"is a {mask.format}, whose compression changes class indices")
    if mask.mode == "L" and mask.tile[0][3] != "L":  # 2 or 4 bits, which Pillow scales
        raise ImageProblem("has gray levels of less than 8 bits, not class indices")
    return np.array(mask)
