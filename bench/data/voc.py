"""A year of a VOCdevkit: images, image-level labels and boxes of its splits, all checked.

Layout and meaning as in the devkit's documentation (Everingham et al. 2012, devkit_doc, sections
2 and 3): ImageSets/Main/LIST.txt names the images, ImageSets/Main/CLASS_LIST.txt labels them
(1 present, -1 absent, 0 only `difficult` objects), Annotations/ID.xml has the boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from bench.config import schema
from bench.data.image_files import ImageFiles, verify
from bench.errors import UserError
from bench.runtime.fingerprint import digest, file_digest
from bench.runtime.progress import Reporter


@dataclass(frozen=True)
class ObjectAnnotation:
    """One annotated object; its box is (xmin, ymin, xmax, ymax), 1-based inclusive pixels."""

    name: str
    box: tuple[float, float, float, float]
    difficult: bool
    truncated: bool


@dataclass(frozen=True)
class BoxSplit:
    """The images of one split with image labels and boxes.

    Attributes:
        ids: the identifiers, in the order of the split.
        images: the files, in the same order.
        labels: int8 (N, C); 1 present, -1 absent, 0 only difficult objects.
        objects: the annotated objects of each image.
        fingerprint: SHA-256 of identifiers, images, labels and annotations.
    """

    ids: tuple[str, ...]
    images: ImageFiles
    labels: np.ndarray
    objects: tuple[tuple[ObjectAnnotation, ...], ...]
    fingerprint: str


def open_voc(
    root: Path, name: str, section: schema.Voc, reporter: Reporter
) -> tuple[BoxSplit, BoxSplit]:
    """Open and check the training and the test split of a VOCdevkit.

    Raises:
        UserError: anything is missing, malformed or overlapping; the message names the file.
    """
    folder = root / section.folder
    parts = {
        split: split_parts(folder, name, key, splits)
        for key, split, splits in (
            ("train", "train", section.train),
            ("test", "test", section.test),
        )
    }
    ids = {split: [identifiers(*part) for part in years] for split, years in parts.items()}
    check_disjoint(folder, (section.train, section.test), list(ids.values()))
    count = sum(len(part) for years in ids.values() for part in years)
    with reporter.stage(f"checking {name}", count) as bar:
        opened = {
            split: [
                _open_part(*part, own, section.classes, bar.advance)
                for part, own in zip(years, ids[split], strict=True)
            ]
            for split, years in parts.items()
        }
    return _joined(folder, opened["train"]), _joined(folder, opened["test"])


def split_parts(folder: Path, name: str, key: str, splits: Sequence[str]) -> list[tuple[Path, str]]:
    """The year's folder and the split of each YEAR/SPLIT.

    Raises:
        UserError: one is not written so, or its folder is missing.
    """
    parts = []
    for split in splits:
        year, _, own = split.partition("/")
        if not year or not own or "/" in own:
            raise UserError(f"datasets.{name}.{key}: '{split}' is not YEAR/SPLIT (VOC2007/test)")
        if not (folder / year).is_dir():
            where = f"the suite's datasets.{name}.{key}"
            raise UserError(f"{folder / year}: no such folder ({where}); see --data-root")
        parts.append((folder / year, own))
    if not parts:
        raise UserError(f"datasets.{name}.{key}: names no split")
    return parts


def check_disjoint(
    folder: Path, names: Sequence[Sequence[str]], ids: Sequence[Sequence[Sequence[str]]]
) -> None:
    """Refuse splits that share an image.

    Args:
        folder: the devkit.
        names: of the training splits and of the test splits.
        ids: their identifiers.

    Raises:
        UserError: they do.
    """
    train, test = ({identifier for part in split for identifier in part} for split in ids)
    if train & test:
        both = " and ".join(", ".join(split) for split in names)
        raise UserError(
            f"{folder}: {min(train & test)} is in both splits, {both}: "
            "the test images must not be trained on"
        )


def joined_files(folder: Path, parts: Sequence[ImageFiles]) -> ImageFiles:
    """The files of several years as one; those of a single year stay below its own folder."""
    if len(parts) == 1:
        return parts[0]
    files = [f"{part.root.name}/{file}" for part in parts for file in part.files]
    return ImageFiles(folder, tuple(files), digest([part.fingerprint for part in parts]))


def _joined(folder: Path, parts: Sequence[BoxSplit]) -> BoxSplit:
    if len(parts) == 1:
        return parts[0]
    return BoxSplit(
        ids=tuple(identifier for part in parts for identifier in part.ids),
        images=joined_files(folder, [part.images for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        objects=tuple(entry for part in parts for entry in part.objects),
        fingerprint=digest([part.fingerprint for part in parts]),
    )


def _open_part(
    devkit: Path,
    name: str,
    ids: tuple[str, ...],
    classes: tuple[str, ...],
    advance: Callable[[int], None],
) -> BoxSplit:
    annotations = [devkit / "Annotations" / f"{identifier}.xml" for identifier in ids]
    objects = tuple(_objects(path, classes) for path in annotations)
    columns = [_labels(devkit, f"{label}_{name}", ids) for label in classes]
    labels = np.array(columns, dtype=np.int8).T
    files = [f"JPEGImages/{identifier}.jpg" for identifier in ids]
    for identifier, file in zip(ids, files, strict=True):
        if not (devkit / file).is_file():
            where = _list_path(devkit, name)
            raise UserError(f"{where}: names {identifier}, but {devkit / file} does not exist")
    images = verify(devkit, files, "stop", advance)
    boxes = [file_digest(path) for path in annotations]
    fingerprint = digest([ids, images.fingerprint, labels.tolist(), boxes])
    return BoxSplit(ids, images, labels, objects, fingerprint)


def _list_path(devkit: Path, name: str, kind: str = "Main") -> Path:
    return devkit / "ImageSets" / kind / f"{name}.txt"


def _lines(path: Path) -> list[list[str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    return [line.split() for line in text.splitlines() if line.strip()]


def identifiers(devkit: Path, name: str, kind: str = "Main") -> tuple[str, ...]:
    """The images that ImageSets/KIND/NAME.txt names.

    Raises:
        UserError: the list is missing or empty, or names an image twice.
    """
    path = _list_path(devkit, name, kind)
    ids = tuple(fields[0] for fields in _lines(path))
    if not ids:
        raise UserError(f"{path}: the list is empty")
    if len(set(ids)) != len(ids):
        raise UserError(f"{path}: names an image twice")
    return ids


def _labels(devkit: Path, name: str, ids: tuple[str, ...]) -> list[int]:
    where = _list_path(devkit, name)
    labels: dict[str, int] = {}
    for fields in _lines(where):
        if len(fields) != 2 or fields[1] not in ("1", "-1", "0"):
            raise UserError(f"{where}: '{' '.join(fields)}' is not 'ID 1', 'ID -1' or 'ID 0'")
        labels[fields[0]] = int(fields[1])
    missing = [identifier for identifier in ids if identifier not in labels]
    if missing:
        raise UserError(f"{where}: has no label for {missing[0]}")
    return [labels[identifier] for identifier in ids]


def _objects(path: Path, classes: tuple[str, ...]) -> tuple[ObjectAnnotation, ...]:
    """The objects of one annotation file, in the suite's classes; boxes are inside the image."""
    try:
        tree = ElementTree.parse(path).getroot()
        size = tree.find("size")
        width, height = (float(_text(size, side)) for side in ("width", "height"))
        objects = tuple(_object(node) for node in tree.iter("object"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such annotation file") from None
    except (ElementTree.ParseError, OSError) as error:
        raise UserError(f"{path}: not readable as XML ({error})") from None
    except ValueError as error:
        raise UserError(f"{path}: not a VOC annotation ({error})") from None
    for entry in objects:
        if entry.name not in classes:
            raise UserError(f"{path}: object '{entry.name}' is not among the data set's classes")
        xmin, ymin, xmax, ymax = entry.box
        box = f"box ({', '.join(f'{value:g}' for value in entry.box)}) of '{entry.name}'"
        if not (xmin <= xmax and ymin <= ymax):  # of equal corners it has one pixel
            raise UserError(f"{path}: {box} has no area: xmax or ymax is below xmin or ymin")
        # VOC 2011 and 2012 have fractional boxes that begin at half a pixel.
        if xmin < 0 or ymin < 0 or xmax > width or ymax > height:
            raise UserError(f"{path}: {box} is outside the image ({width:g} x {height:g})")
    return objects


def _object(node: ElementTree.Element) -> ObjectAnnotation:
    box = node.find("bndbox")
    xmin, ymin, xmax, ymax = (float(_text(box, side)) for side in ("xmin", "ymin", "xmax", "ymax"))
    return ObjectAnnotation(
        name=_text(node, "name").strip(),
        box=(xmin, ymin, xmax, ymax),
        difficult=(node.findtext("difficult") or "0").strip() == "1",
        truncated=(node.findtext("truncated") or "0").strip() == "1",
    )


def _text(node: ElementTree.Element | None, tag: str) -> str:
    text = None if node is None else node.findtext(tag)
    if text is None:
        raise ValueError(f"no <{tag}>")
    return text
