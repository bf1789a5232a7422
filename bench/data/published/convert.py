"""Unpacked archives into the layouts that data sets of a suite have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import loadmat

from bench.data.voc import identifiers
from bench.data.voc_colors import voc_colors
from bench.errors import UserError
from bench.runtime.progress import Reporter

STL10_SIDE = 96  # pixels
STL10_SPLITS = ("train", "test")
SEGMENTATION = "VOCdevkit/VOC2012/ImageSets/Segmentation"
SBD_MASKS = "VOCdevkit/VOC2012/SegmentationClassAug"

Conversion = Callable[[Path, Path, Reporter], None]


def tiny_imagenet(folder: Path, root: Path, reporter: Reporter) -> None:
    """Move each validation image into the folder of its class, as `val_annotations.txt` says.

    Raises:
        UserError: that file does not fit the images.
    """
    val = folder / "tiny-imagenet/val"
    annotations = val / "val_annotations.txt"
    try:
        for line in annotations.read_text().splitlines():
            name, wnid = line.split("\t")[:2]
            target = val / wnid / name
            target.parent.mkdir(exist_ok=True)
            (val / "images" / name).rename(target)
        (val / "images").rmdir()
        annotations.unlink()
    except (OSError, ValueError) as error:
        raise UserError(f"{annotations.name}: does not fit the images ({error})") from None


def stl10(folder: Path, root: Path, reporter: Reporter) -> None:
    """Write the images of the binary files as PNG, into folders of the classes' names.

    The values are stored column by column, one channel after another; labels begin with 1.

    Raises:
        UserError: a file has another size than its images.
    """
    base = folder / "stl-10"
    classes = (base / "class_names.txt").read_text().split()
    for split in STL10_SPLITS:
        labels = np.fromfile(base / f"{split}_y.bin", np.uint8)
        images = _stl10_images(base / f"{split}_X.bin")
        if len(labels) != len(images) or not np.isin(labels, np.arange(len(classes)) + 1).all():
            raise UserError(f"{split}_y.bin: does not fit the images and {len(classes)} classes")
        _write_png(images, [base / split / classes[label - 1] for label in labels], reporter)
    unlabeled = _stl10_images(base / "unlabeled_X.bin")
    _write_png(unlabeled, [base / "unlabeled"] * len(unlabeled), reporter)
    del images, unlabeled  # Windows cannot remove a mapped file
    for path in [*base.glob("*.bin"), *base.glob("*.txt")]:
        path.unlink()


def _stl10_images(path: Path) -> np.ndarray:
    """The images of a binary file, uint8 (N, H, W, 3)."""
    size = path.stat().st_size
    if not size or size % (3 * STL10_SIDE**2):
        raise UserError(f"{path.name}: has {size:,} bytes, which are no images of 96 x 96 pixels")
    values = np.memmap(path, np.uint8, "r").reshape(-1, 3, STL10_SIDE, STL10_SIDE)
    return values.transpose(0, 3, 2, 1)


def _write_png(images: np.ndarray, folders: list[Path], reporter: Reporter) -> None:
    for folder in set(folders):
        folder.mkdir(parents=True, exist_ok=True)
    with reporter.stage("writing PNG", len(images)) as bar:
        for index, (image, folder) in enumerate(zip(images, folders, strict=True)):
            Image.fromarray(np.ascontiguousarray(image)).save(folder / f"{index:06}.png")
            bar.advance(1)


def sbd_masks(folder: Path, root: Path, reporter: Reporter) -> None:
    """Write the masks of the SBD as PNG with VOC's palette, and the split train_aug.

    The split has the images of the SBD and those of VOC's training split, without those of VOC's
    validation split. An image that VOC trains on keeps VOC's mask.

    Raises:
        UserError: VOC 2012 is not there, or a mask cannot be read.
    """
    devkit = root / "VOCdevkit/VOC2012"
    train, val = (set(identifiers(devkit, name, "Segmentation")) for name in ("train", "val"))
    sbd = {
        line.strip()
        for name in ("train", "val")
        for line in (folder / f"sbd/{name}.txt").read_text().split()
    }
    added = sorted(sbd - train - val)
    masks = folder / SBD_MASKS
    masks.mkdir(parents=True)
    palette = [channel for color in voc_colors(256) for channel in color]
    with reporter.stage("writing masks", len(added)) as bar:
        for name in added:
            mask = Image.fromarray(_sbd_mask(folder / f"sbd/cls/{name}.mat"))
            mask.putpalette(palette)
            mask.save(masks / f"{name}.png")
            bar.advance(1)
    split = folder / SEGMENTATION / "train_aug.txt"
    split.parent.mkdir(parents=True)
    split.write_text("".join(f"{name}\n" for name in sorted({*added, *train})))
    for path in sorted((folder / "sbd").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (folder / "sbd").rmdir()


def _sbd_mask(path: Path) -> np.ndarray:
    """The class indices of one mask, uint8 (H, W)."""
    try:
        mask = loadmat(path)["GTcls"][0]["Segmentation"][0]
        return np.asarray(mask, np.uint8)
    except Exception as error:  # a damaged file makes scipy raise nearly anything
        raise UserError(f"{path.name}: cannot be read as a mask of the SBD ({error})") from None


CONVERSIONS: dict[str, Conversion] = {
    "tiny_imagenet": tiny_imagenet,
    "stl10": stl10,
    "sbd_masks": sbd_masks,
}
