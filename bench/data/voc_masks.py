"""The segmentation lists of a VOCdevkit: images and masks of class indices, all checked.

Layout and meaning as in the devkit's documentation (Everingham et al. 2012, devkit_doc, section
2.3): ImageSets/Segmentation/LIST.txt names the images, SegmentationClass/ID.png holds a class
index for every pixel, 0 for background, 255 for a pixel that does not count. Masks of the SBD
(Hariharan et al. 2011) lie in a folder of their own, beside those or instead of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from bench.config import schema
from bench.data.image_files import ImageFiles, verify
from bench.data.voc import check_disjoint, identifiers
from bench.errors import UserError
from bench.metrics.segmentation import VOID
from bench.runtime.fingerprint import digest
from bench.runtime.progress import Reporter

OFFICIAL = "SegmentationClass"


@dataclass(frozen=True)
class Masked:
    """The images of one segmentation list.

    Attributes:
        ids: the list's identifiers, in its order.
        images: the files, in the same order.
        masks: files of class indices, 0 background, 255 does not count; in the same order.
        fingerprint: SHA-256 of list, images and masks.
    """

    ids: tuple[str, ...]
    images: ImageFiles
    masks: ImageFiles
    fingerprint: str


@dataclass(frozen=True)
class Masks:
    """The segmentation lists of a suite."""

    train: Masked
    test: Masked


def open_masks(
    root: Path, source: schema.Voc, lists: schema.Segmentation, reporter: Reporter
) -> Masks:
    """Open and check both segmentation lists of a suite.

    Raises:
        UserError: anything is missing, malformed or overlapping; the message names the file.
    """
    key = "voc_seg.folder" if lists.folder else "voc.folder"
    devkit = root / (lists.folder or source.folder)
    if not devkit.is_dir():
        raise UserError(f"{devkit}: no such folder (the suite's {key}); see --data-root")
    names = (lists.train, lists.test)
    ids = [identifiers(devkit, name, "Segmentation") for name in names]
    check_disjoint(devkit, names, ids)
    folders, labels = (lists.masks, OFFICIAL), len(source.classes) + 1
    with reporter.stage("checking masks", sum(map(len, ids))) as bar:
        train, test = (
            _open_masked(devkit, folder, names, labels, bar.advance)
            for folder, names in zip(folders, ids, strict=True)
        )
    return Masks(train, test)


def _open_masked(
    devkit: Path, folder: str, ids: tuple[str, ...], labels: int, advance: Callable[[int], None]
) -> Masked:
    files = [f"JPEGImages/{name}.jpg" for name in ids], [_mask(devkit, folder, i) for i in ids]
    images, masks = (verify(devkit, found, "stop", lambda _: None) for found in files)
    for image, mask in zip(images.files, masks.files, strict=True):
        _check_mask(devkit / image, devkit / mask, labels)
        advance(1)
    return Masked(ids, images, masks, digest([ids, images.fingerprint, masks.fingerprint]))


def _mask(devkit: Path, folder: str, identifier: str) -> str:
    """The mask in a folder, or the official one where that folder has none."""
    own = f"{folder}/{identifier}.png"
    official = f"{OFFICIAL}/{identifier}.png"
    return official if not (devkit / own).is_file() and (devkit / official).is_file() else own


def _check_mask(image: Path, mask: Path, labels: int) -> None:
    values = read_mask(mask)
    with Image.open(image) as opened:
        width, height = opened.size
    if values.shape != (height, width):
        size = f"{values.shape[1]} x {values.shape[0]}"
        raise UserError(f"{mask}: is {size} pixels, its image is {width} x {height}")
    odd = np.setdiff1d(values, [*range(labels), VOID])
    if odd.size:
        raise UserError(
            f"{mask}: holds index {odd[0]}, but the suite's voc.classes give 0 to {labels - 1}"
        )


def read_mask(path: Path) -> np.ndarray:
    """The class indices of a mask, uint8 (H, W): the PNG's palette indices, not its colors.

    Raises:
        UserError: the file is not a palette or gray-level image.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L"):
                raise UserError(f"{path}: holds colors ({image.mode}), not class indices")
            return np.array(image)
    except (OSError, SyntaxError, ValueError):  # what Pillow raises for a damaged file
        raise UserError(f"{path}: cannot be decoded; replace the mask") from None
