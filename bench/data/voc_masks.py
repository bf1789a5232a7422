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
from PIL import Image, ImageFile

from bench.config import schema
from bench.data.image_files import ImageError, ImageFiles, decode, verify
from bench.data.voc import (
    check_disjoint,
    check_size,
    identifiers,
    joined_files,
    read_annotation,
    split_parts,
)
from bench.data.voc_colors import voc_colors
from bench.errors import UserError
from bench.metrics.segmentation import VOID
from bench.runtime.fingerprint import digest
from bench.runtime.progress import Reporter

OFFICIAL = "SegmentationClass"
BACKGROUND = 0
MOST_VOID = 0.5  # of a split's pixels; official masks of VOC 2012 have 0.06


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
    root: Path,
    name: str,
    section: schema.VocMasks,
    reporter: Reporter,
    manifests: Path | None = None,
) -> tuple[MaskSplit, MaskSplit]:
    """Open and check the training and the test split of a VOCdevkit's segmentation.

    Args:
        root: the data root.
        name: of the data set in the suite.
        section: what the suite declares of it.
        reporter: for progress.
        manifests: see `image_files.verify`.

    Raises:
        UserError: anything is missing, malformed or overlapping; the message names the file.
    """
    folder = root / section.folder
    train = split_parts(folder, name, "train", section.train)
    test = split_parts(folder, name, "test", section.test)
    train_ids = [identifiers(*part, "Segmentation") for part in train]
    test_ids = [identifiers(*part, "Segmentation") for part in test]
    check_disjoint(folder, (section.train, section.test), [train_ids, test_ids])
    count = sum(map(len, [*train_ids, *test_ids]))
    with reporter.stage(f"checking {name}", count) as bar:
        opened = [
            _joined(
                folder,
                [
                    _open_part(year, masks, ids, section.classes, bar.advance, reporter, manifests)
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
    year: Path,
    folder: str,
    ids: tuple[str, ...],
    classes: tuple[str, ...],
    advance: Callable[[int], None],
    reporter: Reporter,
    manifests: Path | None,
) -> MaskSplit:
    images = verify(
        year, [f"JPEGImages/{name}.jpg" for name in ids], "stop", lambda _: None, manifests
    )
    masks = verify(
        year, [mask_file(year, folder, name) for name in ids], "stop", lambda _: None, manifests
    )
    pixels = np.zeros(VOID + 1, int)
    problem = ""
    for index, mask in enumerate(masks.files):
        values = _checked_mask(year / mask, images.sizes[index].tolist(), len(classes) + 1)
        pixels += np.bincount(values.ravel(), minlength=VOID + 1)
        annotation = year / "Annotations" / f"{ids[index]}.xml"
        if annotation.exists():
            own = _contradiction(year / mask, values, annotation, classes, images, index)
            problem = problem or own
        advance(1)
    _check_shares(year / folder, pixels, reporter)
    if problem:
        raise UserError(problem)
    return MaskSplit(ids, images, masks, digest([ids, images.fingerprint, masks.fingerprint]))


def _check_shares(folder: Path, pixels: np.ndarray, reporter: Reporter) -> None:
    """Refuse masks without a class, or in which void takes the place of the background.

    Masks without a background are reported only: the classes of a data set may cover every pixel.

    Args:
        folder: of the masks.
        pixels: how many of a split have each index, (256,).
        reporter: told of masks without a background.

    Raises:
        UserError: no pixel is of a class, or most are void.
    """
    if not pixels[BACKGROUND + 1 : VOID].any():
        raise UserError(f"{folder}: no mask of the split has a pixel of a class")
    void, background = pixels[[VOID, BACKGROUND]] / pixels.sum()
    if void > MOST_VOID:
        raise UserError(
            f"{folder}: {void:.0%} of the split's pixels are {VOID}, which do not count, and "
            f"{background:.0%} are {BACKGROUND}, the background: write the background as "
            f"{BACKGROUND}, and {VOID} only where no label is known"
        )
    if not background:
        reporter.say(f"{folder}: no mask of the split has a pixel of the background ({BACKGROUND})")


def mask_file(devkit: Path, folder: str, identifier: str) -> str:
    """The mask in a folder, or the official one where that folder has none."""
    own = f"{folder}/{identifier}.png"
    official = f"{OFFICIAL}/{identifier}.png"
    return official if not (devkit / own).is_file() and (devkit / official).is_file() else own


def _contradiction(
    path: Path,
    values: np.ndarray,
    annotation: Path,
    classes: tuple[str, ...],
    images: ImageFiles,
    index: int,
) -> str:
    """What is wrong with a mask in which no annotated object has a pixel of its class in its box.

    Empty where one has, or none is annotated.

    Raises:
        UserError: the annotation is malformed or of another image.
    """
    read = read_annotation(annotation, None)
    check_size(annotation, read.size, images, index)
    objects = [own for own in read.objects if own.name in classes and not own.difficult]
    for own in objects:
        xmin, ymin, xmax, ymax = map(int, own.box)
        inside = values[max(ymin - 1, 0) : ymax, max(xmin - 1, 0) : xmax]
        if (inside == classes.index(own.name) + 1).any():
            return ""
    if not objects:
        return ""
    return (
        f"{path}: has no '{objects[0].name}' where {annotation} has one, nor any other object; "
        "the mask is of another image, or its indices are not those of the classes"
    )


def _checked_mask(path: Path, size: list[int], labels: int) -> np.ndarray:
    """The class indices of a mask.

    Args:
        path: of the mask.
        size: width and height of its image.
        labels: how many class indices there are.

    Raises:
        UserError: the mask has another size, other indices or another palette.
    """
    values, palette = decode(path, lambda mask: (_indices(mask), mask.getpalette()))
    width, height = size
    if values.shape != (height, width):
        own = f"{values.shape[1]} x {values.shape[0]}"
        raise UserError(f"{path}: is {own} pixels, its image is {width} x {height}")
    pixels = np.bincount(values.ravel(), minlength=VOID + 1)
    indices = np.flatnonzero(pixels).tolist()
    odd = [index for index in indices if labels <= index != VOID]
    if odd:
        raise UserError(
            f"{path}: has index {odd[0]}, but the data set's classes give 0 to {labels - 1}"
        )
    if palette is not None:
        _check_palette(path, indices, palette)
    return values


def _check_palette(path: Path, indices: list[int], palette: list[int]) -> None:
    """Refuse a palette of other colors than VOC's.

    An adaptive palette numbers the colors anew, so its indices are not those of the classes.

    Args:
        path: of the mask.
        indices: those that the mask has.
        palette: red, green and blue of index 0, of index 1 and so on.

    Raises:
        UserError: the indices have neither VOC's colors nor the gray level of their number.
    """
    colors = {index: tuple(palette[3 * index : 3 * index + 3]) for index in indices}
    if all(color == (index, index, index) for index, color in colors.items()):
        return
    for index, color in colors.items():
        expected = voc_colors(VOID + 1)[index]
        if color != expected:
            raise UserError(
                f"{path}: its palette gives index {index} the color {color}, VOC's {expected}; "
                "save the class indices with VOC's palette, or as gray levels"
            )


def read_mask(path: Path) -> np.ndarray:
    """The class indices of a mask, uint8 (H, W): the PNG's palette indices, not its colors.

    Raises:
        UserError: the file is not a palette or gray-level PNG of 8 bits.
    """
    return decode(path, _indices)


def _indices(mask: Image.Image) -> np.ndarray:
    if mask.mode not in ("P", "L"):
        raise ImageError(f"has colors ({mask.mode}), not class indices")
    if mask.format != "PNG":
        raise ImageError(f"is a {mask.format}, whose compression changes class indices")
    assert isinstance(mask, ImageFile.ImageFile)
    if mask.mode == "L" and mask.tile[0][3] != "L":  # 2 or 4 bits, which Pillow scales
        raise ImageError("has gray levels of less than 8 bits, not class indices")
    return np.array(mask)
